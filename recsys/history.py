"""What a history is, and the readable twin of the Lua script that keeps histories in Redis."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from recsys.cores import spread
from recsys.events import UNITS_PER_QUANTITY, Event, EventType
from recsys.history_kernels import read_owned
from recsys.vocabulary import Texts, Vocabulary


@dataclass(frozen=True)
class History:
    """What one user bought: an item is owned while its net quantity is above zero.

    Attributes
    ----------
    text : bytes
        As Redis has it, in UTF-8: a line with an item id, then a line with its value ``<net quantity>|<last event>``,
        and so on; empty = nothing. Ids hold no line breaks. Compiled code reads it as it is (`owned_rows`).
    """

    text: bytes = b""

    @classmethod
    def of(cls, entries: Mapping[str, tuple[int, int]]) -> History:
        """Build from item_id → (net units in millionths, last event in epoch seconds)."""
        lines = (f"{item}\n{_quantity(units)}|{last}" for item, (units, last) in entries.items())
        return cls("\n".join(lines).encode())

    @cached_property
    def item_ids(self) -> list[str]:
        """The items, in no order."""
        return self._lines[::2]

    @cached_property
    def quantities(self) -> NDArray[np.float64]:
        """Net quantities (purchases minus returns), may be zero or negative: float64, (n,)."""
        return np.array([value.split("|")[0] for value in self._lines[1::2]], np.float64)

    @cached_property
    def last_event_s(self) -> NDArray[np.int64]:
        """Time of each item's newest event, in epoch seconds: int64, (n,)."""
        return np.array([value.split("|")[1] for value in self._lines[1::2]], np.int64)

    @cached_property
    def _lines(self) -> list[str]:
        return self.text.decode().split("\n") if self.text else []


def owned_rows(
    histories: Sequence[History], items: Vocabulary
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float64]]:
    """Return what users own of the items of a model.

    Returns
    -------
    starts : int32, (n_users + 1,)
        Where each user's items begin in the other two.
    rows : int32
        Rows of owned items, ascending for each user: sums are taken in a fixed order, so a list does not depend on
        Redis's.
    quantities : float64
        Their net quantities.
    """
    known = items.encoded

    def part(start: int, stop: int) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float64]]:
        texts = Texts.of([history.text for history in histories[start:stop]])
        most = np.count_nonzero(texts.data == ord("\n")) // 2 + stop - start
        sizes = np.empty(stop - start, np.int32)
        rows, quantities = np.empty(most, np.int32), np.empty(most, np.float64)
        read_owned(texts.data, texts.bounds, known.data, known.bounds, items.table, sizes, rows, quantities)
        count = sizes.sum()
        return sizes, rows[:count], quantities[:count]

    sizes, rows, quantities = map(np.concatenate, zip(*spread(len(histories), part), strict=True))
    return np.concatenate(([0], np.cumsum(sizes))).astype(np.int32), rows, quantities


def _quantity(units: int) -> str:
    """Return a quantity as apply.lua writes it."""
    if units % UNITS_PER_QUANTITY == 0:
        return str(units // UNITS_PER_QUANTITY)
    return f"{units / UNITS_PER_QUANTITY:.6f}".rstrip("0")


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
