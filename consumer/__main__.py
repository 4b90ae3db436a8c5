"""`python -m consumer`: wiring and signals."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time

from prometheus_client import start_http_server

from consumer.dead_letters import DeadLetters
from consumer.loop import Loop
from consumer.rebalance import Assignment, close
from consumer.stats import StatsLog
from recsys.errors import OffsetsLost, RecsysError, SettingsError, StoreUnavailable, StreamUnavailable, TopicMissing
from recsys.kafka import Topic, create_topic_if_missing, describe_topic, open_consumer
from recsys.live_model import LiveModel
from recsys.settings import Settings, load_settings
from recsys.store import Store, open_store
from recsys.telemetry import ConsumerMetrics, configure_logging

log = logging.getLogger("consumer")
_RETRY_S = 1.0


def main() -> int:
    """Run until SIGTERM or SIGINT; return the exit code."""
    try:
        settings = load_settings()
    except RecsysError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    configure_logging(settings.log.level)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    metrics = ConsumerMetrics()
    try:
        _serve_metrics(settings, metrics)
        with open_store(settings) as store:
            live = LiveModel(store.shared, poll_s=settings.consumer.model_poll_s, on_refused=metrics.refused_models.inc)
            with live.followed(), StatsLog(metrics, interval_s=settings.consumer.stats_interval_s):
                while not stop.is_set():
                    _consume(settings, store, live, metrics, stop)
    except RecsysError as error:
        log.error("%s", error)
        return 2 if isinstance(error, SettingsError) else 1
    log.info("stopped")
    return 0


def _serve_metrics(settings: Settings, metrics: ConsumerMetrics) -> None:
    port = settings.consumer.metrics_port
    if not port:
        return
    try:
        start_http_server(port, registry=metrics.registry)
    except OSError as error:
        raise SettingsError(f"RECSYS_CONSUMER__METRICS_PORT: cannot listen on port {port}: {error.strerror}") from None


def _await_dependencies(settings: Settings, store: Store, stop: threading.Event) -> Topic | None:
    """Wait until Redis and the topics are there, saying what is missing."""
    said = ""
    while not stop.is_set():
        try:
            store.connection.check()
            topic = describe_topic(settings.kafka, settings.kafka.topic)
            create_topic_if_missing(settings.kafka, settings.kafka.dead_letters, partitions=len(topic.partitions))
            return topic
        except (StoreUnavailable, StreamUnavailable, TopicMissing) as error:
            if str(error) != said:
                said = str(error)
                log.warning("waiting: %s", error)
            stop.wait(_RETRY_S)
    return None


def _consume(
    settings: Settings, store: Store, live: LiveModel, metrics: ConsumerMetrics, stop: threading.Event
) -> None:
    """Run the loop with one Kafka consumer, until stopped or until that consumer fails."""
    topic = _await_dependencies(settings, store, stop)
    if topic is None:
        return
    consumer = open_consumer(
        settings.kafka,
        settings.kafka.group_id,
        queued_min_messages=20_000,
        queued_max_messages_kbytes=65_536,
        fetch_wait_max_ms=100,
    )
    assignment = Assignment(settings.kafka, topic)
    started = time.monotonic()
    try:
        with DeadLetters(settings.kafka) as dead_letters:
            Loop(consumer, assignment, store, live, dead_letters, metrics, settings, stop).run()
    except OffsetsLost:
        raise
    except (StreamUnavailable, TopicMissing) as error:
        log.error("%s; starting again from the committed offsets", error)
        stop.wait(max(0.0, _RETRY_S - (time.monotonic() - started)))
    finally:
        close(consumer)


if __name__ == "__main__":
    sys.exit(main())
