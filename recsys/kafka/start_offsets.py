"""Where to start reading each partition: what the group has committed, and what Redis says it holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from confluent_kafka import Consumer, KafkaException, TopicPartition

from recsys.errors import WritesLost
from recsys.kafka.clients import kafka_unavailable
from recsys.kafka.topics import Topic
from recsys.settings import KafkaSettings

_OURS = "recsys "


@dataclass(frozen=True, slots=True)
class Start:
    """Where reading a partition starts, and the mark in Redis from which that was decided."""

    offset: int
    mark: int | None


def place_to_commit(topic: Topic, partition: int, offset: int) -> TopicPartition:
    """Return what to store for a commit: it says of which topic id the offset is, and that a consumer wrote it."""
    return TopicPartition(topic.name, partition, offset, _OURS + topic.id)


def start_offsets(
    consumer: Consumer,
    settings: KafkaSettings,
    topic: Topic,
    partitions: Iterable[int],
    *,
    marks: Mapping[str, int | None],
) -> dict[int, Start]:
    """Decide where to start reading partitions.

    Parameters
    ----------
    marks : mapping of str → int or None
        Of each partition's source: the next offset whose effects are not yet in Redis; None = Redis has no mark of it.

    Raises
    ------
    WritesLost
        When Redis does not hold what the group has written.
    KafkaUnavailable
        When Kafka cannot be asked.
    """
    places = [TopicPartition(topic.name, partition) for partition in partitions]
    starts = {}
    try:
        for place in consumer.committed(places, timeout=settings.timeout_s):
            if place.error is not None:
                raise KafkaException(place.error)
            mark = marks[topic.source(place.partition)]
            offset = _start(topic, place, mark)
            if offset is None:
                offset, _ = consumer.get_watermark_offsets(place, timeout=settings.timeout_s, cached=False)
            starts[place.partition] = Start(offset, mark)
    except KafkaException as error:
        raise kafka_unavailable(settings, error) from error
    return starts


def _start(topic: Topic, committed: TopicPartition, mark: int | None) -> int | None:
    """Return the offset to start from; None: the oldest record.

    What is in Redis counts: an offset committed by a consumer that lies ahead of the mark was committed before Redis
    lost writes. A commit that is not a consumer's is the operator's decision.
    """
    metadata = committed.metadata or ""
    if committed.offset < 0 or (metadata.startswith(_OURS) and metadata != _OURS + topic.id):
        return mark  # nothing committed, or for a topic of this name that is no more
    if metadata != _OURS + topic.id:
        return committed.offset
    if mark is None:
        raise WritesLost(
            f"Redis does not hold what this group has written: {topic.name}[{committed.partition}] was applied up to "
            f"offset {committed.offset}, but Redis has no applied offset of it; recsys rebuild restores everything "
            f"from the archive (or, to start with an empty Redis without imports, reset the offsets of the group to "
            f"the earliest)"
        )
    return min(committed.offset, mark)
