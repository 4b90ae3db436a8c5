"""Compiled code of `recsys.model.fold_in`: it solves the equations of one user after the other.

Only the upper triangle of each symmetric matrix is used. The width of rows is a multiple of `_LANES`, and work on a
row starts at such a multiple, at or before the diagonal: the values that this leaves before the diagonal are never
read. Four items, or four rows of the factor, are processed at a time, so each sum is loaded and stored a quarter as
often. Indices are unsigned: for signed ones numba checks whether they count from the end, and then does not
vectorize.
"""

from __future__ import annotations

import numpy as np
from numba import uint64 as place
from numpy.typing import NDArray

from recsys.runtime.jit import compiled

Floats = NDArray[np.float32]
_FAST = {"reassoc", "contract", "nsz"}
_LANES, _AT_ONCE = 8, 4
_0, _1, _2, _3 = (np.uint64(number) for number in range(_AT_ONCE))


@compiled(fastmath=_FAST)
def _add_products(weights: Floats, items: Floats, equations: Floats) -> None:
    """Add Σ w y yᵀ of four items."""
    width = len(equations)
    for i in range(width):
        row = place(i)
        first, second = weights[_0] * items[_0, row], weights[_1] * items[_1, row]
        third, fourth = weights[_2] * items[_2, row], weights[_3] * items[_3, row]
        for j in range(place(i - i % _LANES), place(width)):
            equations[row, j] += (
                first * items[_0, j] + second * items[_1, j] + third * items[_2, j] + fourth * items[_3, j]
            )


@compiled(fastmath=_FAST)
def _factorize(equations: Floats) -> None:
    """Replace a positive definite matrix by its Cholesky factor U, A = UᵀU."""
    width = len(equations)
    for start in range(0, width, _AT_ONCE):
        a, b, c, d = place(start), place(start + 1), place(start + 2), place(start + 3)
        left = place(start - start % _LANES)
        for pivot in range(start, start + _AT_ONCE):
            row = place(pivot)
            inverse = np.float32(1) / np.sqrt(equations[row, row])
            for j in range(left, place(width)):
                equations[row, j] *= inverse
            for i in range(pivot + 1, start + _AT_ONCE):
                other = place(i)
                share = equations[row, other]
                for j in range(left, place(width)):
                    equations[other, j] -= share * equations[row, j]
        for i in range(start + _AT_ONCE, width):
            row = place(i)
            first, second, third, fourth = equations[a, row], equations[b, row], equations[c, row], equations[d, row]
            for j in range(place(i - i % _LANES), place(width)):
                equations[row, j] -= (
                    first * equations[a, j]
                    + second * equations[b, j]
                    + third * equations[c, j]
                    + fourth * equations[d, j]
                )


@compiled(fastmath=_FAST)
def _substitute(upper: Floats, solution: Floats) -> None:
    """Solve UᵀU x = b in place."""
    width = len(solution)
    for i in range(width):
        row = place(i)
        solution[row] /= upper[row, row]
        known = solution[row]
        for j in range(place(i + 1), place(width)):
            solution[j] -= upper[row, j] * known
    for i in range(width - 1, -1, -1):
        row = place(i)
        known = np.float32(0)
        for j in range(place(i + 1), place(width)):
            known += upper[row, j] * solution[j]
        solution[row] = (solution[row] - known) / upper[row, row]


@compiled()
def _padded(base: Floats) -> Floats:
    """Pad a matrix with ones on the diagonal to a multiple of `_LANES`."""
    factors = len(base)
    width = (factors + _LANES - 1) // _LANES * _LANES
    padded = np.zeros((width, width), np.float32)
    padded[:factors, :factors] = base
    for i in range(factors, width):
        padded[i, i] = 1
    return padded


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
    padded = _padded(base)
    equations, solution = np.empty_like(padded), np.empty(len(padded), np.float32)
    items, weights = np.zeros((_AT_ONCE, len(padded)), np.float32), np.empty(_AT_ONCE, np.float32)
    for user in range(len(bounds) - 1):
        if bounds[user] == bounds[user + 1]:
            user_factors[user] = 0
            continue
        equations[:] = padded
        solution[:] = 0
        for first in range(bounds[user], bounds[user + 1], _AT_ONCE):
            weights[:] = 0  # of those that are missing when fewer than four are left
            for i in range(min(_AT_ONCE, bounds[user + 1] - first)):
                item, confidence = item_factors[rows[first + i]], confidences[first + i]
                weights[i] = confidence - np.float32(1)
                for j in range(factors):
                    items[i, j] = item[j]
                    solution[j] += confidence * item[j]
            _add_products(weights, items, equations)
        _factorize(equations)
        _substitute(equations, solution)
        user_factors[user] = solution[:factors]
