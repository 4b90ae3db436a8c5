"""The compiled part of `recsys.fold_in`: one user's equations after the other, without Python in between."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsys.compiled import compiled

Floats = NDArray[np.float32]
_FAST = {"reassoc", "contract", "nsz"}


@compiled(fastmath=_FAST)
def _substitute(upper: Floats, right: Floats, solution: Floats) -> None:
    """Solve UᵀU x = b; ``right`` is overwritten."""
    n = len(right)
    for i in range(n):
        right[i] /= upper[i, i]
        for j in range(i + 1, n):
            right[j] -= upper[i, j] * right[i]
    for i in range(n - 1, -1, -1):
        known = np.float32(0)
        for j in range(i + 1, n):
            known += upper[i, j] * solution[j]
        solution[i] = (right[i] - known) / upper[i, i]


@compiled(fastmath=_FAST)
def solve(
    bounds: NDArray[np.int32],
    rows: NDArray[np.int32],
    confidences: Floats,
    item_factors: Floats,
    base: Floats,
    user_factors: Floats,
) -> None:
    """Solve (base + Σ (c − 1) y yᵀ) x = Σ c y over each user's items; zeros for a user without items.

    Parameters
    ----------
    bounds : int32, (n_users + 1,)
        Where each user's items begin in ``rows`` and ``confidences``.
    rows : int32; confidences : float32
    item_factors : float32, (n_items, factors)
    base : float32, (factors, factors)
        YᵀY + λI, positive definite.
    user_factors : float32, (n_users, factors)
        The solutions; written.
    """
    factors = len(base)
    for user in range(len(bounds) - 1):
        first, last = bounds[user], bounds[user + 1]
        owned = np.empty((last - first, factors), np.float32)
        weighted = np.empty((last - first, factors), np.float32)
        right = np.zeros(factors, np.float32)
        for i in range(last - first):
            item = item_factors[rows[first + i]]
            confidence = confidences[first + i]
            for j in range(factors):
                owned[i, j] = item[j]
                weighted[i, j] = (confidence - np.float32(1)) * item[j]
                right[j] += confidence * item[j]
        if last == first:
            user_factors[user] = 0
        else:
            lower = np.linalg.cholesky(base + np.dot(weighted.T, owned))
            _substitute(lower.T, right, user_factors[user])
