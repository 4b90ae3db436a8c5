"""`python -m consumer`: wiring and signals."""

from __future__ import annotations

import argparse
import gc
import threading
import time
from functools import partial

from consumer.commits import Commits, RefusedCommits
from consumer.dead_letters import DeadLetters
from consumer.loop import Loop
from consumer.metrics import ConsumerMetrics
from consumer.model_swap import ModelSwap
from consumer.outages import Outages
from consumer.polling import Polling
from consumer.rebalance import Assignment, close
from consumer.refresher import Refresher
from consumer.stats import StatsLog
from consumer.vital_signs import VitalSigns
from recsys.errors import KafkaUnavailable, OffsetsLost, RedisError, TopicMissing
from recsys.kafka.cleanup_policy import PolicyWatch
from recsys.kafka.clients import Consumer, open_consumer, renew_logins
from recsys.kafka.readings import reading_of
from recsys.kafka.shared_reading import SharedReading
from recsys.kafka.start_offsets import start_offsets
from recsys.kafka.topics import Topic, TopicWatch, create_topic_if_missing, describe_topic, ensure_group
from recsys.lists.live_model import LiveModel
from recsys.logger import logger
from recsys.operations.check_watch import checks_of
from recsys.redis import EvictionWatch, Service, Store, open_store
from recsys.redis.heartbeat import ending_told, heartbeat
from recsys.runtime.clock import ended_by_clock_rollback
from recsys.runtime.hangup import at_hangup
from recsys.runtime.metrics_server import serve_metrics
from recsys.runtime.service import end_late, on_termination, run_service
from recsys.runtime.startup import until_ready
from recsys.settings import Settings
from recsys.storage.data_dir import open_data_dir

log = logger("consumer")
_RETRY_S = 1.0
_LONGEST_STOP_S = 8.0
"""Supervisors often wait for 10 s before they kill."""


def main() -> int:
    """Run until SIGTERM or SIGINT; return the exit code."""
    argparse.ArgumentParser(
        prog="python -m consumer",
        description="Keeps histories and lists in Redis while purchases come; see recsys config for its settings.",
    ).parse_args()
    return run_service(_serve, log)


def _serve(settings: Settings) -> int:
    stop = threading.Event()
    on_termination(lambda _: stop.set())
    end_late(_LONGEST_STOP_S, log)  # what was not committed is read again
    at_hangup(partial(renew_logins, settings.kafka))
    metrics = ConsumerMetrics()
    own, variable = settings.consumer, "RECSYS_CONSUMER__METRICS_PORT"
    serve_metrics(own.metrics_port, metrics.registry, variable=variable, host=own.metrics_host)
    with open_store(settings) as store, ending_told(store, "consumer"):
        live = LiveModel(
            store,
            open_data_dir(settings).models,
            poll_s=settings.consumer.model_poll_s,
            on_refused=metrics.refused_models.inc,
        )
        stats = StatsLog(metrics, interval_s=settings.consumer.stats_interval_s)
        evictions = EvictionWatch(settings.redis, lambda found: metrics.evictions.note(*found))
        policy = PolicyWatch(settings.kafka, metrics.topic_compacted.set)
        reading = reading_of(settings.events).fingerprint
        checks = checks_of(settings, Service.CONSUMER, metrics.checks.note)
        signs = VitalSigns(metrics, store.applied_offsets, live, checks=checks.failing, reading=reading)
        beats, checking = heartbeat(store, signs.facts), checks.running()
        with ended_by_clock_rollback(), evictions.running(), policy, live.followed(), stats, beats, checking:
            while not stop.is_set():
                consume(settings, store, live, metrics, stop)
                gc.collect()  # the traceback of an error may hold the old client, with its sockets, in a cycle
    log.info("stopped", "stopped")
    return 0


def _ensure_ready(settings: Settings, store: Store, consumer: Consumer) -> Topic:
    """Return the topic if all is there: Redis that can serve, both topics, and in Redis what the group has written."""
    store.connection.check()
    store.connection.ensure_rights(Service.CONSUMER)
    topic = describe_topic(settings.kafka, settings.kafka.topic)
    ensure_group(settings.kafka, consumer)
    create_topic_if_missing(
        settings.kafka, settings.kafka.dead_letters, partitions=len(topic.partitions), for_records_of=topic.name
    )
    describe_topic(settings.kafka, settings.kafka.dead_letters, right="WRITE")
    marks = store.applied_offsets.read(topic.sources(topic.partitions))
    start_offsets(consumer, settings.kafka, topic, topic.partitions, marks=marks)
    return topic


def consume(settings: Settings, store: Store, live: LiveModel, metrics: ConsumerMetrics, stop: threading.Event) -> None:
    """Run the loop with one Kafka consumer, until stopped or until that consumer fails."""
    consumer = open_consumer(
        settings.kafka,
        settings.kafka.group_id,
        on_commit=RefusedCommits(settings.kafka).answered,
        # Some batches ahead and no more: a backlog waits at the broker, not in memory. A broker answers with no more at
        # a time than the queue may hold, and a queue found full is looked at again before it can run empty.
        queued_min_messages=5_000,
        queued_max_messages_kbytes=1_024,
        fetch_queue_backoff_ms=20,
        fetch_wait_max_ms=100,
        topic_metadata_refresh_interval_ms=30_000,  # new partitions are met then
    )
    started = time.monotonic()
    store.applied_offsets.leave_all()

    reading = SharedReading(settings, store.readings, store.applied_offsets.read)  # says at once what is wrong with it

    def ready() -> Topic:
        try:
            return _ensure_ready(settings, store, consumer)
        except KafkaUnavailable:
            metrics.kafka_silent.set(time.monotonic() - started)
            raise

    try:
        asked = f"Redis, or Kafka at {settings.kafka.bootstrap_servers}"
        topic = until_ready(ready, stop=stop, log=log, asked=asked, on_wait=metrics.note_waiting)
        if topic is None:
            return
        assignment = Assignment(settings.kafka, topic, store.applied_offsets, before_read=reading.begin)
        dead_letters = DeadLetters(settings, metrics, topic)
        metrics.assignment = assignment
        with dead_letters, TopicWatch(settings.kafka, topic, on_silence=metrics.kafka_silent.set) as watch:
            polling = Polling(consumer, assignment, watch, reading.decoder, settings, stop)
            outages = Outages(polling, metrics)
            refresher = Refresher(store.users, live, settings.ranking, metrics)
            swap = ModelSwap(refresher, polling, outages, store.connection, metrics, settings)
            commits = Commits(consumer, assignment, settings)
            Loop(polling, outages, store, refresher, swap, dead_letters, commits, reading, metrics).run()
    except OffsetsLost:
        raise
    except (KafkaUnavailable, TopicMissing, RedisError) as error:
        metrics.restarts.inc()
        log.error("starting_again", "{error}; starting again from what is in Redis", error=error)
        stop.wait(max(0.0, _RETRY_S - (time.monotonic() - started)))
    finally:
        metrics.assignment = None
        close(consumer)
