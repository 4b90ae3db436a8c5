"""Which rows of a file the archive holds already: purchases have an identity, whatever file they came in.

With an event_id, a purchase is its user and that id. Without, it is its user, item, type, quantity and time, and the
how many-th such it is: the second equal row of a file is the second equal purchase.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys.data.event import UNITS_PER_QUANTITY, Event
from recsys.operations.hash_runs import HashRuns
from recsys.storage.archive import Archive
from recsys.storage.segments import IMPORT_PREFIX, Segment

_LARGE = np.iinfo(np.uint8).max
_COLUMNS = ["user_id", "item_id", "type", "quantity", "timestamp", "event_id"]
_FACTORS = tuple(np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xD6E8FEB86659FD93], np.uint64))


@dataclass(frozen=True, slots=True)
class Identities:
    """Of some events.

    Attributes
    ----------
    hashes : uint64, (n,)
        That two different ones share a hash of 64 bits is less likely than a broken disk.
    have_id : bool, (n,)
        Whether they are told apart by their event_id.
    """

    hashes: NDArray[np.uint64]
    have_id: NDArray[np.bool_]

    @classmethod
    def of_events(cls, events: Sequence[Event]) -> Identities:
        """Return those of events."""
        return cls._of(
            [event.user_id for event in events],
            [event.item_id for event in events],
            [event.type.value for event in events],
            np.array([event.quantity for event in events], np.float64),
            np.array([event.timestamp for event in events], np.int64),
            [event.event_id for event in events],
        )

    @classmethod
    def of_table(cls, table: pa.Table) -> Identities:
        """Return those of the rows of a segment."""
        users, items, types, event_ids = (
            table[name].to_pylist() for name in ("user_id", "item_id", "type", "event_id")
        )
        quantities, times = table["quantity"].to_numpy(), table["timestamp"].cast("int64").to_numpy()
        return cls._of(users, items, types, quantities, times, event_ids)

    @classmethod
    def _of(
        cls,
        users: list[str],
        items: list[str | None],
        types: list[str],
        quantities: NDArray[np.float64],
        times_ms: NDArray[np.int64],
        event_ids: list[str | None],
    ) -> Identities:
        have_id = np.array([event_id is not None for event_id in event_ids], bool)
        units = np.maximum(1, np.rint(quantities * UNITS_PER_QUANTITY)).astype(np.int64)
        by_content = (_hashes(items), _hashes(types), units.view(np.uint64), times_ms.view(np.uint64))
        hashes = _hashes(users)
        with np.errstate(over="ignore"):
            for part, factor in zip(by_content, _FACTORS, strict=True):
                hashes = _mixed(hashes + part * factor)
            by_id = _mixed(_hashes(users) + _hashes(event_ids) * _FACTORS[0] + np.uint64(1))
        return cls(np.where(have_id, by_id, hashes), have_id)


NEW, IN_TOPIC, REPEATED = -1, -2, -3
"""Of a row: not in the archive; in the topic, by its event_id; its event_id stood in an earlier row of the file."""


class KnownRows:
    """The purchases of files that are in the archive, and where there the same ones of another file are.

    Parameters
    ----------
    archive : Archive
    segments : sequence of Segment
        In which to look.
    advance : callable
        Called for each of them.
    only_ids_but_of : str or None
        If given, purchases without event_id are compared with those of this source alone.
    """

    def __init__(
        self,
        archive: Archive,
        segments: Sequence[Segment],
        advance: Callable[[int], None],
        *,
        only_ids_but_of: str | None = None,
    ) -> None:
        imported, self._stream, self._stream_ids = HashRuns(), HashRuns(), HashRuns()
        self.rows_of: Counter[str] = Counter()
        """Source → rows that are in the archive because of it."""
        for place, segment in enumerate(segments):
            found = Identities.of_table(archive.read(segment, _COLUMNS))
            if segment.source.startswith(IMPORT_PREFIX):
                self.rows_of[segment.source] += len(found.hashes)
                compared = found.have_id | (only_ids_but_of in (None, segment.source))
                imported.add(found.hashes[compared], np.full(int(compared.sum()), place, np.int32))
            else:
                self._stream.add(found.hashes[~found.have_id])
                self._stream_ids.add(found.hashes[found.have_id])
            advance(1)
        self._imported = imported.in_one()
        self._met = _Counts(len(self._imported) + 1)  # of a run of equal ones, at its start: how many rows were that
        self._ids = HashRuns()

    def find(self, rows: Identities) -> NDArray[np.int64]:
        """Say of consecutive rows of a file where each is known.

        Returns
        -------
        int64, (n,)
            Place of the segment that holds it, or `NEW`, `IN_TOPIC` or `REPEATED`.
        """
        found = np.full(len(rows.hashes), NEW, np.int64)
        starts, is_there = self._imported.find(rows.hashes)
        at = starts + np.where(rows.have_id, 0, self._met.of(starts) + _ranks(rows.hashes))
        matches = np.flatnonzero(is_there & (at < len(self._imported)))
        hashes, places = self._imported.at(at[matches])
        is_same = hashes == rows.hashes[matches]
        found[matches[is_same]] = places[is_same]
        self._met.add(starts[is_there])
        with_id = np.flatnonzero(rows.have_id)
        ids, before = rows.hashes[with_id], found[with_id]
        repeated = self._ids.meet(ids)
        found[with_id] = np.where(
            before != NEW,
            before,
            np.where(repeated, REPEATED, np.where(self._stream_ids.contains(ids), IN_TOPIC, NEW)),
        )
        return found

    def like_stream(self, rows: Identities) -> NDArray[np.bool_]:
        """Say which rows without event_id equal a purchase of the topic: bool, (n,)."""
        return ~rows.have_id & self._stream.contains(rows.hashes)


def _ranks(hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return the how many-th of its value each one is, from 0."""
    order = np.argsort(hashes, kind="stable")  # equal ones stay in their order
    ordered, places = hashes[order], np.arange(len(hashes))
    begins = np.ones(len(hashes), bool)
    begins[1:] = ordered[1:] != ordered[:-1]
    ranks = np.empty(len(hashes), np.int64)
    ranks[order] = places - np.maximum.accumulate(np.where(begins, places, 0))
    return ranks


class _Counts:
    """Counts by place, a byte each: few are large."""

    def __init__(self, size: int) -> None:
        self._small = np.zeros(size, np.uint8)
        self._large: dict[int, int] = {}

    def of(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the counts of places: int64, (n,)."""
        counts = self._small[places].astype(np.int64)
        for at in np.flatnonzero(counts == _LARGE).tolist():
            counts[at] = self._large[int(places[at])]
        return counts

    def add(self, places: NDArray[np.int64]) -> None:
        """Count places, each as often as it is there."""
        places, times = np.unique(places, return_counts=True)
        counts = self.of(places) + times
        self._small[places] = np.minimum(counts, _LARGE)
        for at in np.flatnonzero(counts >= _LARGE).tolist():
            self._large[int(places[at])] = int(counts[at])


def hashes_of(texts: Sequence[str | None]) -> NDArray[np.uint64]:
    """Return hashes of texts that are evenly spread: uint64, (n,)."""
    return _mixed(_hashes(texts))


def _hashes(texts: Sequence[str | None]) -> NDArray[np.uint64]:
    return np.fromiter(map(hash, texts), np.int64, len(texts)).view(np.uint64)


def _mixed(hashes: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Spread hashes over all bits (the finalizer of splitmix64: Steele, Lea and Flood, 2014)."""
    with np.errstate(over="ignore"):
        hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return hashes ^ (hashes >> np.uint64(31))
