"""Records that were read together, to be decoded and grouped by user."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from recsys.data.event import decode
from recsys.errors import MalformedEvent
from recsys.kafka.clients import Message
from recsys.kafka.records import location, record_timestamp_ms
from recsys.kafka.topics import Topic
from recsys.redis import PlacedEvent


@dataclass(frozen=True)
class Decoded:
    """What the records of a batch say.

    Attributes
    ----------
    events : mapping of str → sequence of PlacedEvent
        Each user's events, in order of arrival.
    malformed : mapping of int → MalformedEvent
        What is wrong with the record in this place of the batch.
    after : mapping of int → int
        The offset behind the last record, by partition.
    timestamps_ms : float64, (n,)
        Of the records that have one.
    """

    events: Mapping[str, Sequence[PlacedEvent]]
    malformed: Mapping[int, MalformedEvent]
    after: Mapping[int, int]
    timestamps_ms: NDArray[np.float64]


@dataclass(frozen=True)
class Batch:
    """A micro-batch.

    Attributes
    ----------
    messages : sequence of Message
        In the order in which they were read.
    held : mapping of int → int
        The partitions that were held then, each with the number of its assignment.
    topic : Topic
        As it was known then.
    check_user : callable
        Raises `MalformedEvent` for the ids of users that cannot be kept.
    """

    messages: Sequence[Message]
    held: Mapping[int, int]
    topic: Topic
    check_user: Callable[[str], None]

    @cached_property
    def decoded(self) -> Decoded:
        """What the records say; decoded when first asked for."""
        sources = {partition: self.topic.source(partition) for partition in self.held}
        events: dict[str, list[PlacedEvent]] = defaultdict(list)
        malformed: dict[int, MalformedEvent] = {}
        after: dict[int, int] = {}
        timestamps_ms: list[int] = []
        for place, message in enumerate(self.messages):
            partition, offset = message.partition() or 0, message.offset() or 0
            timestamp_ms = record_timestamp_ms(message)
            after[partition] = max(after.get(partition, 0), offset + 1)
            if timestamp_ms is not None:
                timestamps_ms.append(timestamp_ms)
            try:
                event = decode(message.value(), record_timestamp_ms=timestamp_ms)
                self.check_user(event.user_id)
            except MalformedEvent as error:
                malformed[place] = MalformedEvent(error.reason, error.raw, location(message))
                continue
            events[event.user_id].append(PlacedEvent(sources[partition], offset, event))
        return Decoded(events, malformed, after, np.array(timestamps_ms, np.float64))

    def without_lost(self, held: Mapping[int, int]) -> Batch:
        """Return the batch without records of partitions that were given up since: their next owner reads them."""
        left = [
            message
            for message in self.messages
            if held.get(partition := message.partition() or 0) == self.held.get(partition)
        ]
        return self if len(left) == len(self.messages) else Batch(left, self.held, self.topic, self.check_user)
