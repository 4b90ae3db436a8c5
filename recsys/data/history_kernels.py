"""Compiled code that parses histories: from their text to rows of a model, without Python objects."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsys.data.epoch import LAST_MS
from recsys.data.owned_items import COLUMNS, FIRST, NEWEST, PURCHASES, UNITS
from recsys.data.vocabulary_kernels import Bounds, Bytes, Table, find
from recsys.runtime.jit import compiled

_LINE, _BAR, _MINUS, _POINT, _ZERO, _NINE = 10, 124, 45, 46, 48, 57
_MILLIONTHS = 1_000_000
_MANY = 64
_MOST_DIGITS, _MOST_DECIMALS = 12, 6
_LATER_FIELDS, _NEWEST_FIELD, _SPAN_FIELD = 3, 0, 2
_LAST_S = LAST_MS // 1000
"""The end of the year 9999."""


@compiled()
def _line_end(text: Bytes, start: int, stop: int) -> int:
    at = start
    while at < stop and text[at] != _LINE:
        at += 1
    return at


@compiled()
def _units(text: Bytes, start: int, stop: int) -> int:
    """Return the quantity at the start of a value, in millionths."""
    negative = start < stop and text[start] == _MINUS
    at = start + 1 if negative else start
    units, scale = 0, 0
    while at < stop:
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
def _bar(text: Bytes, start: int, stop: int) -> int:
    """Return where a field of a value ends."""
    at = start
    while at < stop and text[at] != _BAR:
        at += 1
    return at


@compiled()
def _whole(text: Bytes, start: int, stop: int, default: int) -> int:
    """Return a field that is a whole number, or the default if the field is missing."""
    if start >= stop:
        return default
    negative = text[start] == _MINUS
    number = 0
    for at in range(start + 1 if negative else start, stop):
        number = 10 * number + text[at] - _ZERO
    return -number if negative else number


@compiled()
def _read_value(text: Bytes, start: int, stop: int, entry: NDArray[np.int64]) -> None:
    """Parse the format of `recsys.data.history.Entry`."""
    quantity_end = _bar(text, start, stop)
    newest_end = _bar(text, quantity_end + 1, stop)
    purchases_end = _bar(text, newest_end + 1, stop)
    entry[UNITS] = _units(text, start, quantity_end)
    entry[NEWEST] = _whole(text, quantity_end + 1, newest_end, 0)
    entry[PURCHASES] = _whole(text, newest_end + 1, purchases_end, 1)
    entry[FIRST] = entry[NEWEST] - _whole(text, purchases_end + 1, stop, 0)


@compiled()
def _digits(text: Bytes, start: int, stop: int) -> int:
    """Return where the digits end that begin at a place."""
    at = start
    while at < stop and _ZERO <= text[at] <= _NINE:
        at += 1
    return at


@compiled()
def _is_value(text: Bytes, start: int, stop: int) -> bool:
    """Whether a value is one as `recsys.data.history.Entry` describes it, with numbers that an int64 holds."""
    at = start + 1 if start < stop and text[start] == _MINUS else start
    end = _digits(text, at, stop)
    if not 0 < end - at <= _MOST_DIGITS:
        return False
    if end < stop and text[end] == _POINT:
        at, end = end + 1, _digits(text, end + 1, stop)
        if end - at > _MOST_DECIMALS:
            return False
    newest_s, number = 0, 0
    for field in range(_LATER_FIELDS):
        if end == stop:
            return field > 0  # the newest event is always there
        if text[end] != _BAR:
            return False
        at = end + 1
        end = _digits(text, at, stop)
        if not 0 < end - at <= _MOST_DIGITS:
            return False
        number = _whole(text, at, end, 0)
        if field == _NEWEST_FIELD:
            newest_s = number
            if newest_s > _LAST_S:
                return False
        elif field == _SPAN_FIELD and number > newest_s:
            return False
    return end == stop


@compiled()
def find_damaged(text: Bytes, bounds: Bounds, damaged: NDArray[np.bool_]) -> None:
    """Find the histories that are not as `recsys.data.history.History` describes them.

    Parameters
    ----------
    text, bounds : uint8; int64, (n_users + 1,)
        Texts of histories.
    damaged : bool, (n_users,)
        Written.
    """
    for user in range(len(bounds) - 1):
        at, stop = bounds[user], bounds[user + 1]
        damaged[user] = False
        while at < stop:
            id_end = _line_end(text, at, stop)
            value_end = _line_end(text, id_end + 1, stop)
            if id_end == at or id_end >= stop or not _is_value(text, id_end + 1, value_end):
                damaged[user] = True
                break
            at = value_end + 1


@compiled()
def _sort(rows: NDArray[np.int32], entries: NDArray[np.int64], start: int, stop: int) -> None:
    """Sort a user's items by row."""
    if stop - start > _MANY:
        order = np.argsort(rows[start:stop])
        rows[start:stop] = rows[start:stop][order]
        entries[start:stop] = entries[start:stop][order]
        return
    entry = np.empty(COLUMNS, np.int64)
    for place in range(start + 1, stop):
        row = rows[place]
        entry[:] = entries[place]
        hole = place
        while hole > start and rows[hole - 1] > row:
            rows[hole] = rows[hole - 1]
            entries[hole] = entries[hole - 1]
            hole -= 1
        rows[hole] = row
        entries[hole] = entry


@compiled()
def read_owned(
    text: Bytes,
    bounds: Bounds,
    ids: Bytes,
    id_bounds: Bounds,
    table: Table,
    sizes: NDArray[np.int32],
    rows: NDArray[np.int32],
    entries: NDArray[np.int64],
) -> None:
    """Find the items that each user owns and the model knows.

    Parameters
    ----------
    text, bounds : uint8; int64, (n_users + 1,)
        Texts of histories, see `recsys.data.history.History`.
    ids, id_bounds, table
        Of the model's items, see `recsys.data.vocabulary.Vocabulary`.
    sizes : int32, (n_users,)
        Number of items of each user in the arrays below, one user after the other; written.
    rows, entries : int32, (n,); int64, (n, 4); as many as the texts have entries, or more
        See `recsys.data.owned_items.Owned`; written.
    """
    count = 0
    for user in range(len(bounds) - 1):
        at, stop = bounds[user], bounds[user + 1]
        first = count
        while at < stop:
            id_end = _line_end(text, at, stop)
            value_end = _line_end(text, id_end + 1, stop)
            _read_value(text, id_end + 1, value_end, entries[count])
            if entries[count, UNITS] > 0:
                row = find(text, at, id_end, ids, id_bounds, table)
                if row >= 0:
                    rows[count] = row
                    count += 1
            at = value_end + 1
        _sort(rows, entries, first, count)
        sizes[user] = count - first
