"""Sets of very many hashes: in memory while they are few, else in temporary files, so that memory stays bounded.

Hashes are 64 bits that are evenly spread. They are kept as sorted runs, each at least twice as long as the next; two
that are not are merged, a range of hashes at a time. What is on disk is mapped, and its pages are given back after use.
"""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from recsys.errors import InputFileError

_IN_MEMORY_BYTES = 1 << 24
"""Of one array; longer ones go to disk."""
_MAPPED_BYTES = 1 << 26
"""Of one array on disk, at a time."""
_MERGED_AT_ONCE = 1 << 20


class _Column:
    """An array that is appended to, then read; a long one lies in a temporary file without a name."""

    def __init__(self, dtype: type[np.generic]) -> None:
        self._dtype = np.dtype(dtype)
        self._waiting: list[NDArray[Any]] = []
        self._waiting_bytes = 0
        self._file: BinaryIO | None = None
        self._map: mmap.mmap | None = None
        self.values: NDArray[Any] = np.empty(0, dtype)
        """All of them, once `close` was called."""

    def append(self, values: NDArray[Any]) -> None:
        """Add values at the end."""
        self._waiting.append(values)
        self._waiting_bytes += values.nbytes
        if self._waiting_bytes > _IN_MEMORY_BYTES:
            self._write()

    def close(self) -> None:
        """Make the values readable."""
        if self._file is None:
            self.values = np.concatenate([self.values, *self._waiting])
        else:
            self._write()
            self._map = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
            self.values = np.frombuffer(self._map, self._dtype)
        self._waiting = []

    def pieces(self) -> int:
        """Return in how many pieces it is looked at, so that only one is in memory."""
        return 1 if self._map is None else 1 + self.values.nbytes // _MAPPED_BYTES

    def give_back(self) -> None:
        """Have what is on disk take no memory until it is read again."""
        if self._map is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)

    def _write(self) -> None:
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(buffering=0)
            for values in self._waiting:
                left = np.ascontiguousarray(values, self._dtype).view(np.uint8).data
                while left:
                    left = left[self._file.write(left) :]
        except OSError as error:
            raise InputFileError(
                f"what is known of purchases cannot be kept in {tempfile.gettempdir()}: {error.strerror}; set TMPDIR "
                f"to a folder with more room"
            ) from error
        self._waiting, self._waiting_bytes = [], 0


class SortedHashes:
    """Hashes in order, each with a place, in two columns; of equal ones the first that came is first."""

    def __init__(self) -> None:
        self.hashes, self.places = _Column(np.uint64), _Column(np.int32)

    @classmethod
    def of(cls, hashes: NDArray[np.uint64], places: NDArray[np.int32]) -> SortedHashes:
        """Sort hashes that came in this order."""
        made = cls()
        made._append(hashes, places)
        return made._closed()

    @classmethod
    def merged(cls, parts: Sequence[SortedHashes]) -> SortedHashes:
        """Return the hashes of all parts; those of the first part came first."""
        made = cls()
        ranges = 1 + sum(map(len, parts)) // _MERGED_AT_ONCE
        bounds = np.array([(number << 64) // ranges for number in range(1, ranges)], np.uint64)
        cuts = [[0, *np.searchsorted(part.hashes.values, bounds).tolist(), len(part)] for part in parts]
        for number in range(ranges):
            slices = [slice(cut[number], cut[number + 1]) for cut in cuts]
            made._append(
                np.concatenate([part.hashes.values[where] for part, where in zip(parts, slices, strict=True)]),
                np.concatenate([part.places.values[where] for part, where in zip(parts, slices, strict=True)]),
            )
            for part in parts:
                part.give_back()
        return made._closed()

    def _append(self, hashes: NDArray[np.uint64], places: NDArray[np.int32]) -> None:
        order = np.argsort(hashes, kind="stable")
        self.hashes.append(hashes[order])
        self.places.append(places[order])

    def _closed(self) -> SortedHashes:
        self.hashes.close()
        self.places.close()
        return self

    def __len__(self) -> int:
        return len(self.hashes.values)

    def find(self, wanted: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return where the first of its value is or would be, and whether it is there: int64 and bool, (n,)."""
        starts, there = np.empty(len(wanted), np.int64), np.zeros(len(wanted), bool)
        values = self.hashes.values
        for piece in self._pieces(self.hashes, wanted):
            found = np.searchsorted(values, wanted[piece])
            starts[piece] = found
            inside = piece[found < len(values)]
            there[inside] = values[starts[inside]] == wanted[inside]
        return starts, there

    def at(self, indices: NDArray[np.int64]) -> tuple[NDArray[np.uint64], NDArray[np.int32]]:
        """Return the hashes and the places that are there: uint64 and int32, (n,)."""
        hashes, places = np.empty(len(indices), np.uint64), np.empty(len(indices), np.int32)
        for piece in self._pieces(self.hashes, indices):
            hashes[piece] = self.hashes.values[indices[piece]]
            places[piece] = self.places.values[indices[piece]]
        return hashes, places

    def give_back(self) -> None:
        """Have what is on disk take no memory until it is read again."""
        self.hashes.give_back()
        self.places.give_back()

    def _pieces(self, column: _Column, keys: NDArray[Any]) -> Iterator[NDArray[np.int64]]:
        """Yield the places of keys, near ones together; what was mapped for them is given back after each piece."""
        for piece in np.array_split(np.argsort(keys, kind="stable"), column.pieces()):
            yield piece
            self.give_back()


class HashRuns:
    """A growing set of hashes, each with a place."""

    def __init__(self) -> None:
        self._runs: list[SortedHashes] = []

    def add(self, hashes: NDArray[np.uint64], places: NDArray[np.int32] | None = None) -> None:
        """Add hashes; places are 0 if they are not given."""
        if not len(hashes):  # else runs without any pile up, and each look goes through all of them
            return
        self._runs.append(SortedHashes.of(hashes, np.zeros(len(hashes), np.int32) if places is None else places))
        self._merge_while(lambda one, other: len(one) < 2 * len(other))

    def contains(self, hashes: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Say which are in the set: bool, (n,)."""
        found = np.zeros(len(hashes), bool)
        for run in self._runs:
            found |= run.find(hashes)[1]
        return found

    def meet(self, hashes: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Say which were met before, or stand further ahead, and remember all: bool, (n,)."""
        known = np.ones(len(hashes), bool)
        known[np.unique(hashes, return_index=True)[1]] = False
        known |= self.contains(hashes)
        self.add(hashes[~known])
        return known

    def in_one(self) -> SortedHashes:
        """Return all of them, in order."""
        self._merge_while(lambda one, other: True)
        return self._runs[0] if self._runs else SortedHashes()

    def _merge_while(self, shall: Callable[[SortedHashes, SortedHashes], bool]) -> None:
        while len(self._runs) > 1 and shall(*self._runs[-2:]):
            self._runs[-2:] = [SortedHashes.merged(self._runs[-2:])]
