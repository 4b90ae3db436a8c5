"""What a history is, and the readable twin of the Lua script that keeps histories in Redis."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from recsys.events import UNITS_PER_QUANTITY, Event, EventType


@dataclass(frozen=True, slots=True)
class History:
    """What one user bought: an item is owned while its net quantity is above zero.

    Attributes
    ----------
    item_ids : sequence of str, length n
    quantities : float64, (n,); net quantities (purchases minus returns), may be zero or negative
    last_event_s : int64, (n,); time of the item's newest event, in epoch seconds
    """

    item_ids: Sequence[str]
    quantities: NDArray[np.float64]
    last_event_s: NDArray[np.int64]

    @classmethod
    def of(cls, entries: dict[str, tuple[int, int]]) -> History:
        """Build from item_id → (net units in millionths, last event in epoch seconds)."""
        units = np.fromiter((entry[0] for entry in entries.values()), np.float64, len(entries))
        last = np.fromiter((entry[1] for entry in entries.values()), np.int64, len(entries))
        return cls(list(entries), units / UNITS_PER_QUANTITY, last)


@dataclass(slots=True)
class HistoryReplay:
    """Replays one user's events in order of arrival: the readable twin of ``store/apply.lua``.

    Up to ``max_items`` items the order does not matter. Past it the items whose newest event is oldest leave
    first (ties by item id), one at a time, after the event that brought one too many.
    """

    max_items: int
    entries: dict[str, tuple[int, int]] = field(default_factory=dict)
    _seen: set[str] = field(default_factory=set)
    _by_age: list[tuple[int, bytes, str]] = field(default_factory=list)
    """A heap of (newest event, id in bytes, id), oldest on top, kept from the first time that an item has to leave;
    pairs that are out of date stay in it and are passed over."""

    def apply(self, events: Iterable[Event]) -> None:
        """Apply events in order; an event_id that was applied before counts once."""
        for event in events:
            self.apply_fields(event.type, event.item_id, event.units, event.timestamp // 1000, event.event_id)

    def apply_fields(
        self, type_: EventType | str, item_id: str | None, units: int, timestamp_s: int, event_id: str | None
    ) -> None:
        """Apply one event given by its parts."""
        if event_id is not None:
            if event_id in self._seen:
                return
            self._seen.add(event_id)
        if type_ == EventType.FORGET:
            self.entries.clear()
            self._seen.clear()
            self._by_age.clear()
            return
        if item_id is None:
            raise ValueError("an item_id is needed")
        old_units, old_last = self.entries.get(item_id, (0, timestamp_s))
        self.entries[item_id] = (old_units + units, max(old_last, timestamp_s))
        if self._by_age:
            heapq.heappush(self._by_age, self._aged(item_id))
        if len(self.entries) > self.max_items:
            self._drop_oldest()

    def _aged(self, item_id: str) -> tuple[int, bytes, str]:
        return (self.entries[item_id][1], item_id.encode(), item_id)

    def _drop_oldest(self) -> None:
        if not self._by_age:
            self._by_age = [self._aged(item_id) for item_id in self.entries]
            heapq.heapify(self._by_age)
        while True:
            last, _, item_id = heapq.heappop(self._by_age)
            if self.entries.get(item_id, (0, None))[1] == last:
                del self.entries[item_id]
                return

    def history(self) -> History:
        """Return the history as it is now."""
        return History.of(self.entries)
