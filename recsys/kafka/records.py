"""Records: reading a known range of offsets, and where a record is."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import suppress

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE

from recsys.errors import KafkaUnavailable, OffsetsLost
from recsys.kafka.causes import causes_of
from recsys.kafka.clients import (
    ClientError,
    Consumer,
    KafkaException,
    Message,
    TopicPartition,
    client_failed,
    is_fatal,
    kafka_unavailable,
    lacks_right,
)
from recsys.kafka.topics import Topic
from recsys.logger import logger
from recsys.settings import KafkaSettings

log = logger(__name__)


def read_range(
    reader: Consumer, settings: KafkaSettings, topic: Topic, ranges: Mapping[int, tuple[int, int]]
) -> Iterator[Message]:
    """Yield the records of a topic from offset ``first`` up to, not including, ``end``, by partition.

    Offsets that hold no record (transaction markers, compacted ones) are passed over. Nothing is committed.

    Raises
    ------
    KafkaUnavailable
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
                if error is not None and error.code() != ClientError._PARTITION_EOF:
                    _raise_if_lost(error, f"{message.topic()}[{partition}]")
                    if error.code() == ClientError.GROUP_AUTHORIZATION_FAILED:
                        continue  # no matter: a reader joins no group, but its client looks for the coordinator
                    if lacks_right(error):
                        raise kafka_unavailable(settings, error, topic=topic.name)
                    if is_fatal(error):
                        raise client_failed(settings, error, "reader")
                    log.warning("topic_not_read", "while reading {topic}: {error}", topic=topic.name, error=error.str())
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
                cause = causes_of(settings).newest()
                raise KafkaUnavailable(
                    f"Kafka at {settings.bootstrap_servers}: no progress on {topic.name} "
                    f"for {3 * settings.timeout_s:g} s" + (f": {cause}" if cause else "")
                )
    except KafkaException as error:
        if is_fatal(error.args[0]):
            raise client_failed(settings, error.args[0], "reader") from error
        raise kafka_unavailable(settings, error) from error
    finally:
        # One that has failed, or was closed, takes no more orders; what it failed of is to be told.
        with suppress(KafkaException, RuntimeError):
            reader.unassign()


def _raise_if_lost(error: ClientError, where: str) -> None:
    if error.code() in (ClientError._AUTO_OFFSET_RESET, ClientError.OFFSET_OUT_OF_RANGE):
        raise OffsetsLost(f"{where}: {error.str()}")


def record_timestamp_ms(message: Message) -> int | None:
    """Return the record's own timestamp, None when it has none."""
    kind, timestamp = message.timestamp()
    return None if kind == TIMESTAMP_NOT_AVAILABLE or timestamp < 0 else int(timestamp)


def location(message: Message) -> str:
    """Return ``topic[partition] offset`` for error texts."""
    return f"{message.topic()}[{message.partition()}] {message.offset()}"


def offsets_at(
    reader: Consumer, settings: KafkaSettings, topic: Topic, at_ms: int, ends: Mapping[int, tuple[int, int]]
) -> dict[int, int]:
    """Return the first offset whose record is not older than a time, by partition; the end where there is none.

    A broker that cannot look by time, such as the demo's, says that there is none, whatever it holds. Then one newest
    record that is not older tells, and all that such a broker holds is taken for that new.

    Parameters
    ----------
    reader : Consumer
    settings : KafkaSettings
    topic : Topic
    at_ms : int
        Epoch milliseconds.
    ends : mapping of int → (int, int)
        The oldest offset of each partition and the next one to be written.

    Raises
    ------
    KafkaUnavailable
        When the brokers do not answer.
    """
    places = [TopicPartition(topic.name, partition, at_ms) for partition in topic.partitions]
    found = {}
    try:
        for place in reader.offsets_for_times(places, timeout=settings.timeout_s):
            if place.error is not None:
                raise KafkaException(place.error)
            found[place.partition] = place.offset if place.offset >= 0 else ends[place.partition][1]
    except KafkaException as error:
        raise kafka_unavailable(settings, error, topic=topic.name) from error
    newest = {partition: (end - 1, end) for partition, (first, end) in ends.items() if first < end}
    if all(found[partition] == end for partition, (_, end) in newest.items()):
        times = [record_timestamp_ms(message) or 0 for message in read_range(reader, settings, topic, newest)]
        if times and max(times) >= at_ms:
            return {partition: first for partition, (first, _) in ends.items()}
    return found
