"""Compiled code of `recsys.training.als`: some steps of conjugate gradients for one row after the other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsys.runtime.jit import compiled

Floats = NDArray[np.float32]
_SOLVED = np.float32(1e-20)


@compiled(fastmath={"reassoc", "contract", "nsz"})
def _dot(one: Floats, other: Floats) -> np.float32:
    total = np.float32(0)
    for at in range(len(one)):
        total += one[at] * other[at]
    return total


@compiled(fastmath={"reassoc", "contract", "nsz"})
def _times_base(base: Floats, vector: Floats, product: Floats) -> None:
    """Compute the product of the symmetric matrix and a vector."""
    product[:] = 0
    for row in range(len(vector)):
        factor = vector[row]
        for at in range(len(vector)):
            product[at] += factor * base[row, at]


@compiled(fastmath={"reassoc", "contract", "nsz"})
def half_step(
    bounds: NDArray[np.int32],
    columns: NDArray[np.int32],
    confidences: Floats,
    weights: Floats,
    others: Floats,
    base: Floats,
    solved: Floats,
    steps: int,
) -> None:
    """Improve the solutions of (base + Σ w (c − 1) y yᵀ) x = Σ w c y, over the entries of each row.

    Takács, Pilászy & Tikk (2011), Applications of the conjugate gradient method for implicit feedback collaborative
    filtering. Each row starts from what it was; a row without entries becomes zeros.

    Parameters
    ----------
    bounds : int32, (n_rows + 1,)
        Where each row's entries begin in ``columns`` and ``confidences``.
    columns : int32; confidences : float32, (n,)
    weights : float32, (n_others,); w
    others : float32, (n_others, factors); y
    base : float32, (factors, factors); Σ w y yᵀ + λI over all others
    solved : float32, (n_rows, factors); x, written
    steps : int
    """
    factors = len(base)
    residual, direction, product = (
        np.empty(factors, np.float32),
        np.empty(factors, np.float32),
        np.empty(factors, np.float32),
    )
    for row in range(len(bounds) - 1):
        x = solved[row]
        if bounds[row] == bounds[row + 1]:
            x[:] = 0
            continue
        _times_base(base, x, product)
        for at in range(factors):
            residual[at] = -product[at]
        for entry in range(bounds[row], bounds[row + 1]):
            y, confidence = others[columns[entry]], confidences[entry]
            factor = weights[columns[entry]] * (confidence - (confidence - np.float32(1)) * _dot(y, x))
            for at in range(factors):
                residual[at] += factor * y[at]
        direction[:] = residual
        size = _dot(residual, residual)
        for _ in range(steps):
            if size < _SOLVED:
                break
            _times_base(base, direction, product)
            for entry in range(bounds[row], bounds[row + 1]):
                y = others[columns[entry]]
                factor = weights[columns[entry]] * (confidences[entry] - np.float32(1)) * _dot(y, direction)
                for at in range(factors):
                    product[at] += factor * y[at]
            length = size / _dot(direction, product)
            for at in range(factors):
                x[at] += length * direction[at]
                residual[at] -= length * product[at]
            before, size = size, _dot(residual, residual)
            share = size / before
            for at in range(factors):
                direction[at] = residual[at] + share * direction[at]
