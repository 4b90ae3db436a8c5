"""Kafka: configuration, topics, and reading a known range of offsets."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType

from confluent_kafka import (
    TIMESTAMP_NOT_AVAILABLE,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from recsys.errors import OffsetsLost, SettingsError, StreamError, StreamUnavailable, TopicMissing
from recsys.runtime.telemetry import RepeatsLeftOut
from recsys.settings import KafkaSettings

log = logging.getLogger(__name__)
_librdkafka_log = logging.getLogger("librdkafka")
# The operator's properties go to consumers, producers and admin clients alike; each passes over what is not its own.
_librdkafka_log.addFilter(lambda record: "and will be ignored by this" not in record.getMessage())
_librdkafka_log.addFilter(RepeatsLeftOut(every_s=30.0))

ClientConfig = dict[str, str | int | float | bool]
# Topic ids came with Kafka 2.8; librdkafka's embedded broker answers no DescribeTopics request at all.
_EMBEDDED_CLUSTER = "mockCluster"
_NO_TOPIC_ID = "AAAAAAAAAAAAAAAAAAAAAA"
_WATCH_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as the broker describes it.

    Attributes
    ----------
    name : str
    id : str
        Changes when the topic is deleted and created again, which starts its offsets anew.
    partitions : tuple of int
    """

    name: str
    id: str
    partitions: tuple[int, ...]

    def source(self, partition: int) -> str:
        """Name one partition for the floors of applied events."""
        return f"{self.id}:{partition}"


def client_config(settings: KafkaSettings, defaults: ClientConfig, fixed: ClientConfig) -> ClientConfig:
    """Merge properties: the operator's win over our defaults, but not over what the guarantees depend on."""
    return {**defaults, **settings.librdkafka, **fixed, "bootstrap.servers": settings.bootstrap_servers}


def open_consumer(settings: KafkaSettings, group_id: str, **defaults: str | int | float | bool) -> Consumer:
    """Open a consumer whose offsets are stored and committed by hand; defaults have ``_`` for ``.``."""
    fixed: ClientConfig = {
        "group.id": group_id,
        "group.protocol": settings.group_protocol,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        "isolation.level": "read_committed",
        "allow.auto.create.topics": False,
    }
    if settings.group_protocol == "classic":
        fixed["partition.assignment.strategy"] = "cooperative-sticky"
    config = client_config(settings, {"check.crcs": True, **_dotted(defaults)}, fixed)
    with _wrong_properties_named():
        return Consumer(config, logger=_librdkafka_log)


def open_reader(settings: KafkaSettings, name: str) -> Consumer:
    """Open a consumer for `read_range`; it joins no group, the name only shows in the broker's logs."""
    return open_consumer(settings, f"{settings.group_id}-{name}", enable_partition_eof=True)


def open_producer(settings: KafkaSettings, **defaults: str | int | float | bool) -> Producer:
    """Open an idempotent producer that waits for all replicas; defaults have ``_`` for ``.``."""
    config = client_config(settings, _dotted(defaults), {"enable.idempotence": True, "acks": "all"})
    with _wrong_properties_named():
        return Producer(config, logger=_librdkafka_log)


def _open_admin(settings: KafkaSettings) -> AdminClient:
    with _wrong_properties_named():
        return AdminClient(client_config(settings, {}, {}), logger=_librdkafka_log)


@contextmanager
def _wrong_properties_named() -> Iterator[None]:
    """Only the operator's properties can be wrong when a client is made."""
    try:
        yield
    except (KafkaException, TypeError, ValueError) as error:
        problem = error.args[0].str() if error.args and isinstance(error.args[0], KafkaError) else error
        raise SettingsError(f"RECSYS_KAFKA__LIBRDKAFKA: {problem}") from None


def _dotted(properties: Mapping[str, str | int | float | bool]) -> ClientConfig:
    return {name.replace("_", "."): value for name, value in properties.items()}


def describe_topic(settings: KafkaSettings, name: str) -> Topic:
    """Ask a broker about a topic.

    Raises
    ------
    StreamUnavailable
        When no broker answers.
    TopicMissing
        When there is no such topic.
    """
    return _describe(_open_admin(settings), settings, name)


def _describe(admin: AdminClient, settings: KafkaSettings, name: str) -> Topic:
    try:
        metadata = admin.list_topics(name, timeout=settings.timeout_s)
        topic = metadata.topics[name]
        if topic.error is not None or not topic.partitions:
            raise TopicMissing(
                f"topic {name} does not exist at {settings.bootstrap_servers}; "
                f"create it (README, section Running it) or set RECSYS_KAFKA__TOPIC"
            )
        cluster = metadata.cluster_id or ""
        topic_id = _NO_TOPIC_ID
        if not cluster.startswith(_EMBEDDED_CLUSTER):
            described = admin.describe_topics(TopicCollection([name]), request_timeout=settings.timeout_s)
            # Kafka writes its ids in URL-safe base64 without padding; librdkafka's text may hold + and /.
            topic_id = str(described[name].result().topic_id).rstrip("=").replace("+", "-").replace("/", "_")
        if topic_id == _NO_TOPIC_ID:  # the broker knows no topic ids
            topic_id = f"{name}@{cluster}"
        return Topic(name, topic_id, tuple(sorted(topic.partitions)))
    except KafkaException as error:
        raise stream_unavailable(settings, error) from error


class TopicWatch:
    """Notices that a topic has been deleted, or deleted and created again, which starts its offsets anew.

    librdkafka goes on reading at its old position then. Use it as a context manager: a thread looks every second.
    """

    def __init__(self, settings: KafkaSettings, topic: Topic) -> None:
        self._settings = settings
        self._topic = topic
        self._changed: StreamError | None = None
        self._stop = threading.Event()
        self._admin = _open_admin(settings)
        self._thread = threading.Thread(target=self._run, name="topic-watch", daemon=True)

    def __enter__(self) -> TopicWatch:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()

    def raise_if_changed(self, *, look: bool = False) -> None:
        """Raise `TopicMissing` or `StreamUnavailable` if it is no longer the same topic; ``look`` asks right now."""
        if look:
            self._look()
        if self._changed is not None:
            raise self._changed

    def _run(self) -> None:
        while not self._stop.wait(_WATCH_EVERY_S):
            self._look()

    def _look(self) -> None:
        try:
            found = _describe(self._admin, self._settings, self._topic.name)
        except TopicMissing as error:
            self._changed = error
        except Exception as error:  # none may end the thread; the next look may do better
            log.debug("cannot look at the topic: %s", error)
        else:
            if found.id != self._topic.id:
                self._changed = StreamUnavailable(f"topic {found.name} has been deleted and created again")


def create_topic_if_missing(settings: KafkaSettings, name: str, *, partitions: int) -> bool:
    """Create a topic with the broker's default replication; return whether it was missing."""
    admin = _open_admin(settings)
    try:
        topic = admin.list_topics(name, timeout=settings.timeout_s).topics[name]
        if topic.error is None and topic.partitions:
            return False
        admin.create_topics([NewTopic(name, num_partitions=partitions)], request_timeout=settings.timeout_s)[
            name
        ].result()
    except KafkaException as error:
        if error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
            return False
        raise StreamUnavailable(
            f"Kafka at {settings.bootstrap_servers}: topic {name} does not exist and cannot be created: "
            f"{error.args[0].str()}"
        ) from error
    return True


def stream_unavailable(settings: KafkaSettings, error: KafkaException) -> StreamUnavailable:
    """Say in one line which brokers did not serve, and why."""
    problem = error.args[0].str() if error.args and isinstance(error.args[0], KafkaError) else error
    return StreamUnavailable(f"Kafka at {settings.bootstrap_servers}: {problem}")


def end_offsets(consumer: Consumer, settings: KafkaSettings, topic: Topic) -> dict[int, tuple[int, int]]:
    """Return the first offset still there and the next one to be written, by partition."""
    try:
        return {
            partition: consumer.get_watermark_offsets(
                TopicPartition(topic.name, partition), timeout=settings.timeout_s, cached=False
            )
            for partition in topic.partitions
        }
    except KafkaException as error:
        raise stream_unavailable(settings, error) from error


def read_range(
    reader: Consumer, settings: KafkaSettings, topic: Topic, ranges: Mapping[int, tuple[int, int]]
) -> Iterator[Message]:
    """Yield the records of a topic from offset ``first`` up to, not including, ``end``, by partition.

    Offsets that hold no record (transaction markers, compacted ones) are passed over. Nothing is committed.

    Raises
    ------
    StreamUnavailable
        When the brokers stop answering.
    OffsetsLost
        When a first offset is no longer in the topic.
    """
    open_ends = {partition: end for partition, (first, end) in ranges.items() if first < end}
    if not open_ends:
        return
    reader.assign([TopicPartition(topic.name, partition, ranges[partition][0]) for partition in open_ends])
    last_progress = time.monotonic()
    try:
        while open_ends:
            for message in reader.consume(10_000, timeout=0.2):
                partition, offset, error = message.partition() or 0, message.offset() or 0, message.error()
                if error is not None and error.code() != KafkaError._PARTITION_EOF:
                    _raise_if_lost(error, f"{message.topic()}[{partition}]")
                    log.warning("while reading %s: %s", topic.name, error.str())
                    continue
                if partition not in open_ends:
                    continue
                end = open_ends[partition]
                if error is None and offset < end:
                    yield message
                # Transaction markers are no records: where one is last, only the end of the partition tells. An end
                # below ours is that of a replica that has yet to catch up.
                if offset >= end or (error is None and offset + 1 == end):
                    del open_ends[partition]
                    reader.incremental_unassign([TopicPartition(topic.name, partition)])
                last_progress = time.monotonic()
            if time.monotonic() - last_progress > 3 * settings.timeout_s:
                raise StreamUnavailable(
                    f"Kafka at {settings.bootstrap_servers}: no progress on {topic.name} "
                    f"for {3 * settings.timeout_s:g} s"
                )
    except KafkaException as error:
        raise stream_unavailable(settings, error) from error
    finally:
        reader.unassign()


def _raise_if_lost(error: KafkaError, where: str) -> None:
    if error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
        raise OffsetsLost(f"{where}: {error.str()}")


def record_timestamp_ms(message: Message) -> int | None:
    """Return the record's own timestamp, None when it has none."""
    kind, timestamp = message.timestamp()
    return None if kind == TIMESTAMP_NOT_AVAILABLE or timestamp < 0 else int(timestamp)


def location(message: Message) -> str:
    """Return ``topic[partition] offset`` for error texts."""
    return f"{message.topic()}[{message.partition()}] {message.offset()}"
