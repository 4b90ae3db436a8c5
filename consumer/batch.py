"""Records that were read together, to be decoded and grouped by user."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from recsys.errors import DecoderUnavailable, MalformedEvent
from recsys.kafka.clients import Message
from recsys.kafka.decoder import EventDecoder, PassedOver
from recsys.kafka.records import record_timestamp_ms
from recsys.kafka.topics import Topic
from recsys.redis import PlacedEvent


@dataclass(frozen=True)
class DecodedBatch:
    """What the records of a batch say.

    Attributes
    ----------
    events : mapping of str → sequence of PlacedEvent
        Each user's events, in order of arrival.
    malformed : mapping of int → MalformedEvent
        What is wrong with the record in this place of the batch.
    next_offsets : mapping of int → int
        The offset behind the last record, by partition.
    timestamps_ms : float64, (n,)
        Of the records that have one and hold an event.
    passed_over : PassedOver
        What was left out of records that are not malformed.
    """

    events: Mapping[str, Sequence[PlacedEvent]]
    malformed: Mapping[int, MalformedEvent]
    next_offsets: Mapping[int, int]
    timestamps_ms: NDArray[np.float64]
    passed_over: PassedOver


@dataclass(eq=False)
class MessageBatch:
    """A micro-batch.

    Attributes
    ----------
    messages : sequence of Message
        In the order in which they were read.
    held : mapping of int → int
        The partitions that were held then, each with the number of its assignment.
    topic : Topic
        As it was known then.
    decoder : EventDecoder
    """

    messages: Sequence[Message]
    held: Mapping[int, int]
    topic: Topic
    decoder: EventDecoder
    _decoded: DecodedBatch | None = field(default=None, init=False)

    def decode(self) -> DecodedBatch:
        """Return what the records say; they are decoded once.

        Raises
        ------
        DecoderUnavailable
            When something that the decoder needs is away; call it again.
        """
        if self._decoded is None:
            self._decoded = self._decode()
        return self._decoded

    def decode_early(self) -> None:
        """Decode already, if what the decoder needs is there."""
        with suppress(DecoderUnavailable):
            self.decode()

    def _decode(self) -> DecodedBatch:
        sources = {partition: self.topic.source(partition) for partition in self.held}
        events: dict[str, list[PlacedEvent]] = defaultdict(list)
        malformed: dict[int, MalformedEvent] = {}
        next_offsets: dict[int, int] = {}
        timestamps_ms: list[int] = []
        before = replace(self.decoder.passed_over)
        for place, message in enumerate(self.messages):
            partition, offset = message.partition() or 0, message.offset() or 0
            next_offsets[partition] = max(next_offsets.get(partition, 0), offset + 1)
            try:
                found = self.decoder.events(message)
            except MalformedEvent as error:
                malformed[place] = error
                found = error.events
            if found and (timestamp_ms := record_timestamp_ms(message)) is not None:
                timestamps_ms.append(timestamp_ms)
            for event in found:
                events[event.user_id].append(PlacedEvent(sources[partition], offset, event))
        return DecodedBatch(
            events,
            malformed,
            next_offsets,
            np.array(timestamps_ms, np.float64),
            passed_over=self.decoder.passed_over.since(before),
        )

    def first(self, count: int) -> MessageBatch:
        """Return the first so many records as a batch."""
        return MessageBatch(self.messages[:count], self.held, self.topic, self.decoder)

    def without_lost(self, held: Mapping[int, int]) -> MessageBatch:
        """Return the batch without records of partitions that were given up since: their next owner reads them."""
        left = [
            message
            for message in self.messages
            if held.get(partition := message.partition() or 0) == self.held.get(partition)
        ]
        return self if len(left) == len(self.messages) else MessageBatch(left, self.held, self.topic, self.decoder)
