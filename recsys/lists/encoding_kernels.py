"""The compiled part of `recsys.lists.encoding`: rows and scores to bytes, without Python in between."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsys.runtime.jit import compiled

Bytes = NDArray[np.uint8]
Places = NDArray[np.int64]
LARGEST_SCORE = 1e12
"""What an int64 holds in units of the fifth decimal, and then some."""
_DECIMALS, _DIVISOR = 5, 100_000
_ID, _SCORE, _END = (np.frombuffer(part, np.uint8).copy() for part in (b'{"item_id":', b',"score":', b"},"))
_LONGEST_NUMBER = 1 + 13 + 1 + _DECIMALS
_FRAME = len(_ID) + len(_SCORE) + len(_END) + _LONGEST_NUMBER
_OPEN, _CLOSE, _MINUS, _POINT, _ZERO = 91, 93, 45, 46, 48


@compiled()
def most_bytes(rows: Places, sizes: Places, id_bounds: Places) -> int:
    """Return a number of bytes that the lists do not exceed."""
    total = 0
    for user in range(len(sizes)):
        total += 2 + sizes[user] * _FRAME
        for place in range(sizes[user]):
            row = rows[user, place]
            total += id_bounds[row + 1] - id_bounds[row]
    return int(total)


@compiled()
def _copied(source: Bytes, start: int, stop: int, data: Bytes, at: int) -> int:
    for i in range(start, stop):
        data[at + i - start] = source[i]
    return at + stop - start


@compiled()
def _number(score: float, data: Bytes, at: int) -> int:
    """Write a score, rounded to five decimals, halves to even; as many decimals as it has, at least one."""
    scaled = int(np.rint(score * _DIVISOR))
    if scaled < 0:
        data[at] = _MINUS
        at += 1
        scaled = -scaled
    whole, fraction = scaled // _DIVISOR, scaled % _DIVISOR
    digits = 1
    rest = whole // 10
    while rest > 0:
        digits += 1
        rest //= 10
    for place in range(at + digits - 1, at - 1, -1):
        data[place] = _ZERO + whole % 10
        whole //= 10
    at += digits
    data[at] = _POINT
    at += 1
    divisor = _DIVISOR // 10
    while True:
        data[at] = _ZERO + fraction // divisor
        at += 1
        fraction %= divisor
        if fraction == 0:
            return at
        divisor //= 10


@compiled()
def write_items(
    rows: Places,
    scores: NDArray[np.float32],
    sizes: Places,
    quoted: Bytes,
    id_bounds: Places,
    data: Bytes,
    ends: Places,
) -> None:
    """Write the lists of many users as JSON, one behind the other.

    Parameters
    ----------
    rows, scores, sizes : see `recsys.model.top_n.Ranking`; scores within ±`LARGEST_SCORE`
    quoted, id_bounds : the items' ids as JSON strings, see `recsys.data.vocabulary.Texts`
    data : uint8, as long as `most_bytes` says; written
    ends : int64, (n_users,)
        Where each user's list ends; written.
    """
    at = 0
    for user in range(len(sizes)):
        data[at] = _OPEN
        at += 1
        for place in range(sizes[user]):
            row = rows[user, place]
            at = _copied(_ID, 0, len(_ID), data, at)
            at = _copied(quoted, id_bounds[row], id_bounds[row + 1], data, at)
            at = _copied(_SCORE, 0, len(_SCORE), data, at)
            at = _number(np.float64(scores[user, place]), data, at)
            at = _copied(_END, 0, len(_END), data, at)
        if sizes[user] > 0:
            at -= 1  # the comma behind the last one
        data[at] = _CLOSE
        at += 1
        ends[user] = at
