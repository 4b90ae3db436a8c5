"""Compiled code of `recsys.model.top_n`: it processes each score of a block.

A heap holds the best items of a user so far, the worst of them on top. "Before" means further up in a list.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsys.runtime.jit import compiled

_SCORES_AT_ONCE = 32
_GROUP = 4

Scores = NDArray[np.float32]
Places = NDArray[np.int64]


@compiled(fastmath={"reassoc", "contract", "nsz"})
def _exact_score(user: Scores, item: Scores) -> np.float32:
    """Return x·y summed in float64 and rounded once: equal vectors have equal scores, in any place."""
    total = 0.0
    for i in range(len(user)):
        total += np.float64(user[i]) * np.float64(item[i])
    return np.float32(total)


@compiled(fastmath={"reassoc", "contract", "nsz"})
def _boosted_score(user: Scores, item: Scores, weight: float, boost: np.float64) -> np.float32:
    """Return weight · x·y + boost, as `_exact_score` does."""
    total = 0.0
    for i in range(len(user)):
        total += np.float64(user[i]) * np.float64(item[i])
    return np.float32(weight * total + boost)


@compiled(fastmath={"nnan", "nsz"})
def _largest(scores: Scores, start: int, stop: int) -> np.float32:
    largest: np.float32 = scores[start]
    for i in range(start, stop):
        largest = max(largest, scores[i])
    return largest


@compiled()
def _before(score: np.float32, row: int, other_score: np.float32, other_row: int) -> bool:
    return bool(score > other_score or (score == other_score and row < other_row))


@compiled()
def _sift_down(scores: Scores, rows: Places, size: int) -> None:
    """Restore the heap after its top has changed."""
    score, row = scores[0], rows[0]
    hole = 0
    while True:
        child = 2 * hole + 1
        if child >= size:
            break
        if child + 1 < size and _before(scores[child], rows[child], scores[child + 1], rows[child + 1]):
            child += 1
        if not _before(score, row, scores[child], rows[child]):
            break
        scores[hole], rows[hole] = scores[child], rows[child]
        hole = child
    scores[hole], rows[hole] = score, row


@compiled()
def _sift_up(scores: Scores, rows: Places, hole: int) -> None:
    """Restore the heap after an item was put at its end."""
    score, row = scores[hole], rows[hole]
    while hole > 0:
        parent = (hole - 1) // 2
        if not _before(scores[parent], rows[parent], score, row):
            break
        scores[hole], rows[hole] = scores[parent], rows[parent]
        hole = parent
    scores[hole], rows[hole] = score, row


@compiled()
def _reached_by(scores: Scores, n: int, maxima: Scores) -> np.float32:
    """Return a number that at least ``n`` of the scores reach, −∞ if they are too few.

    The n-th best of the maxima of disjoint groups is such a number, and cheaper to find than the n-th best score.
    """
    groups = len(scores) // _GROUP
    if groups < n:
        return np.float32(-np.inf)
    for i in range(groups):
        low = max(scores[i], scores[i + groups])
        maxima[i] = max(low, max(scores[i + 2 * groups], scores[i + 3 * groups]))
    bound: np.float32 = np.partition(maxima[:groups], groups - n)[groups - n]
    return bound


@compiled()
def scan(
    block: Scores,
    start: int,
    users: Places,
    user_factors: Scores,
    item_factors: Scores,
    item_rows: NDArray[np.int32],
    excluded: NDArray[np.int32],
    excluded_next: Places,
    excluded_end: Places,
    heap_scores: Scores,
    heap_rows: Places,
    heap_sizes: Places,
    limits: Scores,
    slack: Scores,
) -> None:
    """Put the items of one block that are good enough into the heaps of their users.

    Parameters
    ----------
    block : float32, (len(users), n_block)
        Scores from the matrix product, with an error of at most half of ``slack``; overwritten for excluded items.
    start : int
        Place of the block's first item in the index.
    users : int64
        Which users the rows of ``block`` belong to.
    user_factors, item_factors : float32, (n_users, factors), (n_items, factors)
    item_rows : int32, (n_items,)
    excluded : int32; each user's excluded places, ascending
    excluded_next, excluded_end : int64, (n_users,)
        Position of the user's next excluded place, and the end of the user's places; the former is advanced.
    heap_scores, heap_rows, heap_sizes : (n_users, n), (n_users, n), (n_users,)
        The heaps, with exact scores; changed.
    limits : float32, (n_users,)
        Scores below this are skipped: −∞ until a heap is full, then its worst score minus ``slack``; changed.
    slack : float32, (n_users,)
    """
    width, n = block.shape[1], heap_scores.shape[1]
    maxima = np.empty(width // _GROUP + 1, np.float32)
    for i in range(len(users)):
        user, scores = users[i], block[i]
        own_scores, own_rows = heap_scores[user], heap_rows[user]
        at = excluded_next[user]
        while at < excluded_end[user] and excluded[at] < start + width:
            scores[excluded[at] - start] = -np.inf
            at += 1
        excluded_next[user] = at
        size = heap_sizes[user]
        limit = limits[user]
        if size < n:
            limit = _reached_by(scores, n, maxima) - slack[user]  # n of them: those in the heap may be worse
        for first in range(0, width, _SCORES_AT_ONCE):
            last = min(first + _SCORES_AT_ONCE, width)
            if _largest(scores, first, last) < limit:
                continue
            for place in range(first, last):
                if scores[place] < limit or scores[place] == -np.inf:
                    continue
                score = _exact_score(user_factors[user], item_factors[start + place])
                row = item_rows[start + place]
                if size < n:
                    own_scores[size], own_rows[size] = score, row
                    _sift_up(own_scores, own_rows, size)
                    size += 1
                elif _before(score, row, own_scores[0], own_rows[0]):
                    own_scores[0], own_rows[0] = score, row
                    _sift_down(own_scores, own_rows, n)
                else:
                    continue
                if size == n:
                    limit = max(limit, own_scores[0] - slack[user])
        heap_sizes[user] = size
        limits[user] = limit if size == n else -np.inf


@compiled()
def sort_each(places: NDArray[np.int32], bounds: Places) -> None:
    """Sort each user's places, from ``bounds[user]`` to ``bounds[user + 1]``, in place."""
    for user in range(len(bounds) - 1):
        places[bounds[user] : bounds[user + 1]].sort()


@compiled()
def sort_heaps(heap_scores: Scores, heap_rows: Places, heap_sizes: Places) -> None:
    """Turn each heap into a list, best first, in place."""
    for user in range(len(heap_sizes)):
        scores, rows = heap_scores[user], heap_rows[user]
        for size in range(heap_sizes[user] - 1, 0, -1):
            scores[0], scores[size] = scores[size], scores[0]
            rows[0], rows[size] = rows[size], rows[0]
            _sift_down(scores, rows, size)


@compiled()
def enter(
    starts: NDArray[np.int32],
    rows: NDArray[np.int32],
    boosts: NDArray[np.float64],
    weight: float,
    user_factors: Scores,
    item_factors: Scores,
    listed: Places,
    scores: Scores,
    sizes: Places,
) -> None:
    """Insert other items into lists, each at its place, best first; see `recsys.model.top_n.Ranking.with_others`."""
    n = listed.shape[1]
    for user in range(len(sizes)):
        own_rows, own_scores = listed[user], scores[user]
        for at in range(starts[user], starts[user + 1]):
            if boosts[at] == -np.inf:
                continue
            score = _boosted_score(user_factors[user], item_factors[rows[at]], weight, boosts[at])
            row = int(rows[at])
            size = sizes[user]
            if size == n and not _before(score, row, own_scores[n - 1], own_rows[n - 1]):
                continue
            place = size if size < n else n - 1
            sizes[user] = min(size + 1, n)
            while place > 0 and _before(score, row, own_scores[place - 1], own_rows[place - 1]):
                own_scores[place], own_rows[place] = own_scores[place - 1], own_rows[place - 1]
                place -= 1
            own_scores[place], own_rows[place] = score, row
