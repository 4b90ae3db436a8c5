"""Histories, and a readable Python version of the Lua script that keeps them in Redis."""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys.data.epoch import LAST_MS
from recsys.data.event import UNITS_PER_QUANTITY, Event, EventType
from recsys.data.history_kernels import find_damaged, read_owned
from recsys.data.owned_items import COLUMNS, Owned
from recsys.data.vocabulary import Texts, Vocabulary
from recsys.runtime.threads import map_ranges

_VALUE = re.compile(r"-?[0-9]{1,12}(\.[0-9]{0,6})?\|[0-9]{1,12}(\|[0-9]{1,12}){0,2}")


class Entry(NamedTuple):
    """One item of a history.

    Its value in Redis is ``<net quantity>|<newest event>``. Unless it is a single purchase,
    ``|<number of purchases>|<seconds from the first event to the newest>`` follows.
    """

    units: int
    """Net quantity (purchases minus returns) in millionths."""
    newest_s: int
    """Time of the newest event, in epoch seconds."""
    first_s: int
    """Time of the first event."""
    purchases: int
    """Number of purchases; returns do not count."""

    @classmethod
    def of_event(cls, units: int, timestamp_s: int) -> Entry:
        """Return the entry of a single event."""
        return cls(units, timestamp_s, timestamp_s, int(units > 0))

    def __add__(self, other: Entry) -> Entry:  # type: ignore[override]
        """Return the entry of the events of both."""
        return Entry(
            self.units + other.units,
            max(self.newest_s, other.newest_s),
            min(self.first_s, other.first_s),
            self.purchases + other.purchases,
        )

    def __str__(self) -> str:
        span_s = self.newest_s - self.first_s
        value = f"{_quantity(self.units)}|{self.newest_s}"
        return value if (self.purchases, span_s) == (1, 0) else f"{value}|{self.purchases}|{span_s}"

    @classmethod
    def parse(cls, value: str) -> Entry:
        """Parse a value from Redis.

        Raises
        ------
        ValueError
            When it is none.
        """
        if _VALUE.fullmatch(value) is None:
            raise ValueError(f"{value[:40]!r} is no entry of a history")
        quantity, newest_s, purchases, span_s = [*value.split("|"), "1", "0"][:4]
        if not 0 <= int(span_s) <= int(newest_s) <= LAST_MS // 1000:
            raise ValueError(f"{value!r} is no entry of a history: it has no such times")
        units = int(Decimal(quantity) * UNITS_PER_QUANTITY)
        return cls(units, int(newest_s), int(newest_s) - int(span_s), int(purchases))


@dataclass(frozen=True)
class History:
    """What one user bought. The user owns an item while its net quantity is above zero.

    Attributes
    ----------
    text : bytes
        The text that Redis returns, in UTF-8: for each item a line with its id and a line with its value (see `Entry`);
        empty for no items. Ids contain no line breaks. Compiled code parses this text (`read_histories`).
    """

    text: bytes = b""

    @classmethod
    def of(cls, entries: Mapping[str, Entry]) -> History:
        """Build from item_id → entry."""
        return cls("\n".join(f"{item}\n{entry}" for item, entry in entries.items()).encode())

    @cached_property
    def entries(self) -> dict[str, Entry]:
        """Item_id → entry, in no order; net quantities may be zero or negative."""
        lines = self.text.decode().split("\n") if self.text else []
        return dict(zip(lines[::2], map(Entry.parse, lines[1::2]), strict=True))


def damaged_histories(texts: Sequence[bytes]) -> NDArray[np.bool_]:
    """Return which texts are no histories: somebody else has written to them, or the disk has failed.

    Parameters
    ----------
    texts : sequence of bytes
        As Redis returns them, see `History`.
    """
    joined, damaged = Texts.of(texts), np.empty(len(texts), np.bool_)
    find_damaged(joined.data, joined.bounds, damaged)
    for place, text in enumerate(texts):
        if not text.isascii() and not damaged[place]:
            try:
                text.decode()
            except UnicodeDecodeError:
                damaged[place] = True
    return damaged


def read_histories(histories: Sequence[History], items: Vocabulary) -> Owned:
    """Return what users own of the items of a model, in the order of the histories."""
    known = items.encoded

    def part(start: int, stop: int) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int64]]:
        texts = Texts.of([history.text for history in histories[start:stop]])
        most = np.count_nonzero(texts.data == ord("\n")) // 2 + stop - start
        sizes = np.empty(stop - start, np.int32)
        rows, entries = np.empty(most, np.int32), np.empty((most, COLUMNS), np.int64)
        read_owned(texts.data, texts.bounds, known.data, known.bounds, items.table, sizes, rows, entries)
        count = sizes.sum()
        return sizes, rows[:count], entries[:count]

    sizes, rows, entries = map(np.concatenate, zip(*map_ranges(len(histories), part), strict=True))
    return Owned(np.concatenate(([0], np.cumsum(sizes))).astype(np.int32), rows, entries)


def _quantity(units: int) -> str:
    """Return a quantity as apply.lua writes it."""
    if units % UNITS_PER_QUANTITY == 0:
        return str(units // UNITS_PER_QUANTITY)
    return f"{units / UNITS_PER_QUANTITY:.6f}".rstrip("0")


@dataclass(slots=True)
class HistoryReplay:
    """Replays the events of one user in order of arrival: a readable version of ``redis/lua/apply.lua``.

    Up to ``max_items`` items the order does not matter. Beyond it, each event that adds one item too many removes the
    item whose newest event is oldest (ties by item id).
    """

    max_items: int
    entries: dict[str, Entry] = field(default_factory=dict)
    _seen: set[str] = field(default_factory=set)
    _by_age: list[tuple[int, bytes, str]] = field(default_factory=list)
    """A heap of (newest event, id in bytes, id), the oldest on top, built when the first item must be removed;
    entries that are out of date stay in it and are skipped."""

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
        entry, earlier = Entry.of_event(units, timestamp_s), self.entries.get(item_id)
        self.entries[item_id] = entry if earlier is None else earlier + entry
        if self._by_age:
            heapq.heappush(self._by_age, self._aged(item_id))
        if len(self.entries) > self.max_items:
            self._drop_oldest()

    def _aged(self, item_id: str) -> tuple[int, bytes, str]:
        return (self.entries[item_id].newest_s, item_id.encode(), item_id)

    def _drop_oldest(self) -> None:
        if not self._by_age:
            self._by_age = [self._aged(item_id) for item_id in self.entries]
            heapq.heapify(self._by_age)
        while True:
            newest_s, _, item_id = heapq.heappop(self._by_age)
            entry = self.entries.get(item_id)
            if entry is not None and entry.newest_s == newest_s:
                del self.entries[item_id]
                return

    def history(self) -> History:
        """Return the history as it is now."""
        return History.of(self.entries)
