"""Exact top-N: the best items by score, ties by row, excluded rows never."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_SCORES_PER_BLOCK = 1 << 22  # 16 MiB of float32 scores at a time
_ITEMS_PER_GROUP = 32


def top_n(
    user_factors: NDArray[np.float32],
    item_factors: NDArray[np.float32],
    *,
    excluded: Sequence[NDArray[np.integer]],
    n: int,
) -> list[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Return each user's ``n`` best items by x_u·y_i.

    Parameters
    ----------
    user_factors : float32, (n_users, factors)
    item_factors : float32, (n_items, factors)
    excluded : integers, one array per user
        Rows of items that must not be returned (owned or hidden).
    n : int
        Length of the lists, ≥ 1; a list is shorter only when fewer items are left.

    Returns
    -------
    list of (rows int64, scores float32), one per user
        Best first; equal scores in order of row, which is the order of item ids.
    """
    ranked: list[tuple[NDArray[np.int64], NDArray[np.float32]]] = []
    block = max(1, _SCORES_PER_BLOCK // max(1, len(item_factors)))
    for start in range(0, len(user_factors), block):
        scores = user_factors[start : start + block] @ item_factors.T
        for user_scores, rows in zip(scores, excluded[start : start + block], strict=True):
            user_scores[rows] = -np.inf
        thresholds = _lower_bounds(scores, n)
        ranked.extend(
            _best(user_scores, threshold, n) for user_scores, threshold in zip(scores, thresholds, strict=True)
        )
    return ranked


def _lower_bounds(scores: NDArray[np.float32], n: int) -> NDArray[np.float32]:
    """Return, for each row, a number that at least ``n`` of its scores reach: float32, (n_users,).

    The n-th best of the maxima of disjoint groups is one, and far cheaper to find than the n-th best score.
    """
    users, items = scores.shape
    groups = items // _ITEMS_PER_GROUP
    if groups < n:
        return np.partition(scores, -n)[:, -n] if n < items else np.full(users, -np.inf, np.float32)
    maxima = scores[:, : groups * _ITEMS_PER_GROUP].reshape(users, _ITEMS_PER_GROUP, groups).max(axis=1)
    return np.partition(maxima, -n)[:, -n]


def _best(scores: NDArray[np.float32], threshold: np.float32, n: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    # Everything that reaches the bound, so that among equal scores only the sort decides.
    rows = np.flatnonzero(scores >= threshold)
    candidates = scores[rows]
    best = np.lexsort((rows, -candidates))[:n]
    best = best[candidates[best] > -np.inf]
    return rows[best], candidates[best]
