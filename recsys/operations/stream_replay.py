"""For `verify`: which events Redis says are applied, and replaying those that the archive does not hold.

Consumers may be behind, and the trainer may have archived what they have yet to apply. The applied offsets in Redis say
up to where each partition is applied; they advance at the end of a batch, so a consumer at work, or one that was killed
at it, has applied more of some users.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field

from recsys.data.event import Event, EventType
from recsys.data.history import Entry, HistoryReplay
from recsys.kafka.clients import Message, open_reader
from recsys.kafka.decoder import counting_events
from recsys.kafka.records import read_range
from recsys.kafka.shared_reading import SharedReading
from recsys.kafka.topics import describe_topic, end_offsets
from recsys.redis import Store
from recsys.settings import Settings

_LARGEST_BATCH = 100_000
"""Records of a partition that one batch of a consumer may hold; see `consumer.batch_size`."""
Replays = dict[str, HistoryReplay]


@dataclass(frozen=True, slots=True)
class Beyond:
    """What the stream holds beyond the applied offsets.

    Attributes
    ----------
    records : int
        Of those that were there when the check began.
    events : mapping
        User → events in their order, as far as the batch in progress can reach.
    forgotten : frozenset of str
        Users who are to be erased: the archive may lack what Redis still holds.
    """

    records: int = 0
    events: Mapping[str, list[Event]] = field(default_factory=dict)
    forgotten: frozenset[str] = frozenset()

    def explains(self, user: str, replay: HistoryReplay | None, found: Mapping[str, Entry], max_items: int) -> bool:
        """Whether a history is what the user's has been or will be, with some of these events applied."""
        if user in self.forgotten:
            return True
        ahead = HistoryReplay(max_items) if replay is None else deepcopy(replay)
        for event in self.events.get(user, ()):
            ahead.apply([event])
            if ahead.entries == found:
                return True
        return False


class AppliedStream:
    """The events of the topic that Redis says are applied, and what is beyond them, read bit by bit.

    Parameters
    ----------
    positions : mapping
        Topic id → partition → where the archive ends.
    """

    def __init__(self, settings: Settings, store: Store, positions: Mapping[str, Mapping[int, int]]) -> None:
        self._settings = settings.kafka
        self._store = store
        self._reading = SharedReading(settings, store.readings, store.applied_offsets.read)
        self._topic = describe_topic(settings.kafka, settings.kafka.topic)
        self._reader = open_reader(settings.kafka, "verify")
        self._ends_at_first = self._ends()
        archived = positions.get(self._topic.id, {})
        self._next = {partition: min(archived.get(partition, 0), mark) for partition, mark in self._marks().items()}

    def limits(self) -> dict[str, int]:
        """Return from which offset on nothing of the archive is to be applied: the rest is read from Kafka."""
        return {self._topic.source(partition): offset for partition, offset in self._next.items()}

    def replay_new(self, replays: Replays) -> None:
        """Apply what has been applied since the last call."""
        marks = self._marks()
        for message in self._read({partition: (self._next[partition], marks[partition]) for partition in self._next}):
            for event in counting_events(self._reading.decoder, message):
                replays[event.user_id].apply([event])
        self._next = {partition: max(self._next[partition], marks[partition]) for partition in self._next}

    def beyond(self) -> Beyond:
        """Return what is beyond the events that were replayed."""
        ends = {partition: high for partition, (_, high) in self._ends().items()}
        records, events, forgotten = 0, defaultdict[str, list[Event]](list), set[str]()
        for message in self._read({partition: (self._next[partition], ends[partition]) for partition in self._next}):
            partition, offset = message.partition() or 0, message.offset() or 0
            records += offset < self._ends_at_first[partition][1]
            for event in counting_events(self._reading.decoder, message):
                if event.type == EventType.FORGET:
                    forgotten.add(event.user_id)
                if offset < self._next[partition] + _LARGEST_BATCH:
                    events[event.user_id].append(event)
        return Beyond(records, events, frozenset(forgotten))

    def close(self) -> None:
        """Leave Kafka."""
        self._reader.close()

    def _marks(self) -> dict[int, int]:
        """Return the first offset of each partition that is not applied; 0 where no consumer has applied any."""
        partitions = self._topic.partitions
        marks = self._store.applied_offsets.read(self._topic.sources(partitions))
        return {partition: marks[self._topic.source(partition)] or 0 for partition in partitions}

    def _ends(self) -> dict[int, tuple[int, int]]:
        return end_offsets(self._reader, self._settings, self._topic)

    def _read(self, ranges: Mapping[int, tuple[int, int]]) -> Iterator[Message]:
        """Yield the records of ranges of offsets, as far as they are still, and already, in the topic."""
        there = {
            partition: (max(ranges[partition][0], low), min(ranges[partition][1], high))
            for partition, (low, high) in self._ends().items()
            if partition in ranges
        }
        self._reading.follow(self._topic)
        yield from read_range(self._reader, self._settings, self._topic, there)
