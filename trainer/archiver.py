"""Moving new purchases from Kafka into the archive."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from datetime import datetime

from recsys.data.event import Event
from recsys.errors import KafkaUnavailable
from recsys.kafka.cleanup_policy import cleanup_policy, is_compacted
from recsys.kafka.clients import Message, open_reader
from recsys.kafka.decoder import counting_events
from recsys.kafka.decoder_by_place import DecoderByPlace
from recsys.kafka.records import read_range
from recsys.kafka.shared_reading import SharedReading
from recsys.kafka.topics import Topic, describe_topic, end_offsets
from recsys.logger import logger
from recsys.runtime.progress import ProgressReporter
from recsys.settings import KafkaSettings
from recsys.storage.archive import Archive
from recsys.storage.segments import Segment

log = logger(__name__)
_MOST_HELD = 500_000  # events in memory


def archive_new_purchases(
    settings: KafkaSettings,
    archive: Archive,
    progress: ProgressReporter,
    *,
    at: datetime,
    reading: SharedReading,
    before_write: Callable[[], None] = lambda: None,
) -> int:
    """Append everything that is in the topic and not in the archive; return the number of events.

    Each record is archived exactly once: where to go on follows from the segments that are there, and a segment is
    there completely or not at all. Malformed records are passed over; the consumer sends them to the dead letters.
    Requests to forget a user are carried out in the archive. ``before_write`` is called before each segment; what it
    raises ends the work.
    """
    archive.remove_temporaries()
    topic = describe_topic(settings, settings.topic)
    reader = open_reader(settings, "archiver")

    def before_segment() -> str:
        before_write()
        if describe_topic(settings, settings.topic).id != topic.id:
            raise KafkaUnavailable(f"topic {topic.name} was deleted and created again while it was archived")
        return policy if is_compacted(policy) else cleanup_policy(settings)  # it may have changed while it was read

    policy = cleanup_policy(settings)
    try:
        watermarks = end_offsets(reader, settings, topic)
        ranges = _ranges(topic, archive.positions().get(topic.id, {}), watermarks)
        reading.claim(topic, {partition: end for partition, (_, end) in ranges.items()})
        writer = _SegmentWriter(archive, archive.new_round(at), topic.id, ranges, reading.decoder, before_segment)
        with progress.stage("archive purchases", sum(end - first for first, end in ranges.values())) as advance:
            for message in read_range(reader, settings, topic, ranges):
                writer.add(message)
                advance(1)
            writer.finish()
    finally:
        reader.close()
    if forgotten := archive.erase_forgotten():
        log.info("users_erased", "{users} users erased from the archive (forget)", users=forgotten)
    return writer.archived


def _ranges(
    topic: Topic, positions: dict[int, int], watermarks: dict[int, tuple[int, int]]
) -> dict[int, tuple[int, int]]:
    ranges = {}
    for partition, (low, end) in watermarks.items():
        first = positions.get(partition, low)
        if first < low:
            log.error(
                "records_expired",
                "{topic}[{partition}]: offsets {first} to {last} expired in Kafka before they were archived; no "
                "model will include them",
                topic=topic.name,
                partition=partition,
                first=first,
                last=low - 1,
            )
        if max(first, low) < end:
            ranges[partition] = (max(first, low), end)
    return ranges


class _SegmentWriter:
    """Collects a round's events and writes them as segments that leave no offset out.

    ``before_write`` returns the topic's cleanup.policy, which each segment records.
    """

    def __init__(
        self,
        archive: Archive,
        round_: str,
        source: str,
        ranges: dict[int, tuple[int, int]],
        decoder: DecoderByPlace,
        before_write: Callable[[], str],
    ) -> None:
        self._archive = archive
        self._decoder = decoder
        self._before_write = before_write
        self._round = round_
        self._source = source
        self._ranges = ranges
        self._next = {partition: first for partition, (first, _) in ranges.items()}
        self._read_to = dict(self._next)
        self._pending: dict[int, list[tuple[int, Event]]] = defaultdict(list)
        self._held = 0
        self.archived = 0

    def add(self, message: Message) -> None:
        """Take one record; write what is held when that is much."""
        partition, offset = message.partition() or 0, message.offset() or 0
        if self._decoder.fingerprint(partition, self._next[partition]) != self._decoder.fingerprint(partition, offset):
            self._write({partition: offset})  # a segment holds what was read in one way
        self._read_to[partition] = offset + 1
        events = counting_events(self._decoder, message)
        self._pending[partition].extend((offset, event) for event in events)
        self._held += len(events)
        if self._held >= _MOST_HELD:
            self._write(self._read_to)

    def finish(self) -> None:
        """Write the rest, up to the ends of the ranges."""
        self._write({partition: end for partition, (_, end) in self._ranges.items()})

    def _write(self, ends: dict[int, int]) -> None:
        for partition, end in ends.items():
            first = self._next[partition]
            if first < end:
                rows = self._pending.pop(partition, [])
                policy = self._before_write()
                segment = Segment(self._round, self._source, partition, first, end - 1)
                reading = self._decoder.fingerprint(partition, first)
                self._archive.write(segment, rows, cleanup_policy=policy, reading=reading)
                self.archived += len(rows)
                self._next[partition] = end
                self._held -= len(rows)
