"""The compiled part of reading histories: from their text to rows of a model, without Python in between."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsys.compiled import compiled
from recsys.vocabulary_kernels import Bounds, Bytes, Table, find

_LINE, _BAR, _MINUS, _POINT, _ZERO, _NINE = 10, 124, 45, 46, 48, 57
_MILLIONTHS = 1_000_000
_MANY = 64


@compiled()
def _line_end(text: Bytes, start: int, stop: int) -> int:
    at = start
    while at < stop and text[at] != _LINE:
        at += 1
    return at


@compiled()
def _units(text: Bytes, start: int, stop: int) -> int:
    """Return the quantity at the beginning of a value, in millionths."""
    negative = start < stop and text[start] == _MINUS
    at = start + 1 if negative else start
    units, scale = 0, 0
    while at < stop and text[at] != _BAR:
        if text[at] == _POINT:
            scale = _MILLIONTHS
        elif _ZERO <= text[at] <= _NINE:
            units = 10 * units + text[at] - _ZERO
            scale //= 10
            if scale == 1:
                break
        at += 1
    if scale == 0:
        scale = _MILLIONTHS
    return -units * scale if negative else units * scale


@compiled()
def _sort(rows: NDArray[np.int32], quantities: NDArray[np.float64], start: int, stop: int) -> None:
    """Sort a user's items by row."""
    if stop - start > _MANY:
        order = np.argsort(rows[start:stop])
        rows[start:stop] = rows[start:stop][order]
        quantities[start:stop] = quantities[start:stop][order]
        return
    for place in range(start + 1, stop):
        row, quantity = rows[place], quantities[place]
        hole = place
        while hole > start and rows[hole - 1] > row:
            rows[hole], quantities[hole] = rows[hole - 1], quantities[hole - 1]
            hole -= 1
        rows[hole], quantities[hole] = row, quantity


@compiled()
def read_owned(
    text: Bytes,
    bounds: Bounds,
    ids: Bytes,
    id_bounds: Bounds,
    table: Table,
    sizes: NDArray[np.int32],
    rows: NDArray[np.int32],
    quantities: NDArray[np.float64],
) -> None:
    """Find what each user owns of what a model knows.

    Parameters
    ----------
    text, bounds : uint8; int64, (n_users + 1,)
        Texts of histories, see `recsys.history.History`.
    ids, id_bounds, table
        Of the model's items, see `recsys.vocabulary.Vocabulary`.
    sizes : int32, (n_users,)
        How many items of each user are in the following, one user behind the other; written.
    rows, quantities : int32, float64; as many as there are entries, or more
        Rows of owned items, ascending for each user, and their net quantities; written.
    """
    count = 0
    for user in range(len(bounds) - 1):
        at, stop = bounds[user], bounds[user + 1]
        first = count
        while at < stop:
            id_end = _line_end(text, at, stop)
            value_end = _line_end(text, id_end + 1, stop)
            units = _units(text, id_end + 1, value_end)
            if units > 0:
                row = find(text, at, id_end, ids, id_bounds, table)
                if row >= 0:
                    rows[count], quantities[count] = row, units / _MILLIONTHS
                    count += 1
            at = value_end + 1
        _sort(rows, quantities, first, count)
        sizes[user] = count - first
