"""Moving new purchases from Kafka into the archive."""

from __future__ import annotations

import logging
from collections import defaultdict
from datetime import datetime

from confluent_kafka import Message

from recsys.archive import Archive, Segment
from recsys.errors import MalformedEvent
from recsys.events import Event, decode
from recsys.kafka import Topic, describe_topic, end_offsets, location, open_consumer, read_range, record_timestamp_ms
from recsys.progress import ProgressReporter
from recsys.settings import KafkaSettings

log = logging.getLogger(__name__)
_ROWS_PER_SEGMENT = 500_000


def archive_new_purchases(
    settings: KafkaSettings, archive: Archive, progress: ProgressReporter, *, at: datetime
) -> int:
    """Append everything that is in the topic and not in the archive; return the number of events.

    Each record is archived exactly once: where to go on follows from the segments that are there, and a segment is
    there completely or not at all. Malformed records are passed over; the consumer sends them to the dead letters.
    Requests to forget a user are carried out in the archive.
    """
    archive.remove_temporaries()
    topic = describe_topic(settings, settings.topic)
    # The group is only a name that librdkafka asks for: nothing is ever committed.
    consumer = open_consumer(settings, f"{settings.group_id}-archiver")
    try:
        watermarks = end_offsets(consumer, settings, topic)
        ranges = _ranges(topic, archive.positions().get(topic.id, {}), watermarks)
        archived = 0
        round_ = archive.new_round(at)
        pending: dict[int, list[tuple[int, Event]]] = defaultdict(list)
        firsts = {partition: first for partition, (first, _) in ranges.items()}

        def flush(partition: int, last: int) -> None:
            nonlocal archived
            rows = pending.pop(partition, [])
            archive.write(Segment(round_, topic.id, partition, firsts[partition], last), rows)
            archived += len(rows)
            firsts[partition] = last + 1

        with progress.stage("archive purchases", sum(end - first for first, end in ranges.values())) as advance:
            for message in read_range(consumer, settings, topic, ranges):
                advance(1)
                partition, offset = message.partition() or 0, message.offset() or 0
                if (event := _event(message)) is not None:
                    pending[partition].append((offset, event))
                if len(pending[partition]) >= _ROWS_PER_SEGMENT:
                    flush(partition, offset)
            for partition, (_, end) in ranges.items():
                if firsts[partition] < end:
                    flush(partition, end - 1)
    finally:
        consumer.close()
    if forgotten := archive.erase_forgotten():
        log.info("%d users erased from the archive, as they asked", forgotten)
    return archived


def _ranges(
    topic: Topic, positions: dict[int, int], watermarks: dict[int, tuple[int, int]]
) -> dict[int, tuple[int, int]]:
    ranges = {}
    for partition, (low, end) in watermarks.items():
        first = positions.get(partition, low)
        if first < low:
            log.error(
                "%s[%d]: offsets %d to %d expired in Kafka before they were archived; they are not in any model",
                topic.name, partition, first, low - 1,
            )  # fmt: skip
        if max(first, low) < end:
            ranges[partition] = (max(first, low), end)
    return ranges


def _event(message: Message) -> Event | None:
    try:
        return decode(message.value(), record_timestamp_ms=record_timestamp_ms(message), location=location(message))
    except MalformedEvent:
        return None
