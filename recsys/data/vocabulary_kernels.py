"""Compiled code of `recsys.data.vocabulary`: ids to rows, by a hash table with linear probing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsys.runtime.jit import compiled

Bytes = NDArray[np.uint8]
Bounds = NDArray[np.int64]
Table = NDArray[np.int32]
_BASIS, _PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)


@compiled()
def _first_slot(text: Bytes, start: int, stop: int, size: int) -> np.int64:
    """Return the first place to look at: FNV-1a with its upper bits folded in."""
    hashed = _BASIS
    for at in range(start, stop):
        hashed = (hashed ^ np.uint64(text[at])) * _PRIME
    hashed ^= hashed >> np.uint64(32)
    return np.int64(hashed) & (size - 1)


@compiled()
def fill_table(data: Bytes, bounds: Bounds, table: Table) -> None:
    """Insert the row of each text into the table.

    Parameters
    ----------
    data, bounds : see `recsys.data.vocabulary.Texts`; texts that differ
    table : int32, a power of two above the number of texts, all −1; written
    """
    size = len(table)
    for row in range(len(bounds) - 1):
        slot = _first_slot(data, bounds[row], bounds[row + 1], size)
        while table[slot] >= 0:
            slot = (slot + 1) & (size - 1)
        table[slot] = row


@compiled()
def find(text: Bytes, start: int, stop: int, data: Bytes, bounds: Bounds, table: Table) -> int:
    """Return the row of ``text[start:stop]``, −1 if it is unknown."""
    size, length = len(table), stop - start
    slot = _first_slot(text, start, stop, size)
    while True:
        row = table[slot]
        if row < 0:
            return -1
        first = bounds[row]
        if bounds[row + 1] - first == length:
            same = True
            for i in range(length):
                if text[start + i] != data[first + i]:
                    same = False
                    break
            if same:
                return int(row)
        slot = (slot + 1) & (size - 1)


@compiled()
def find_each(
    text: Bytes, text_bounds: Bounds, ids: Bytes, bounds: Bounds, table: Table, rows: NDArray[np.int64]
) -> None:
    """Find the row of each text, −1 for unknown ones; ``rows``, int64, is written."""
    for place in range(len(rows)):
        rows[place] = find(text, text_bounds[place], text_bounds[place + 1], ids, bounds, table)
