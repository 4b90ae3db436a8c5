"""Fitting item factors by alternating least squares."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits

from recsys.runtime.threads import map_ranges
from recsys.training.als_kernels import half_step

_STEPS: Final = 3
"""Of conjugate gradients in each half-step: as many as `implicit` does."""
_FIRST: Final = np.float32(0.01)


def fit(
    confidences: csr_matrix,
    weights: NDArray[np.floating] | None = None,
    *,
    factors: int,
    regularization: float,
    iterations: int,
    seed: int,
    on_iteration: Callable[[], None] = lambda: None,
) -> NDArray[np.float32]:
    """Factorize the confidences and return the item factors.

    Minimizes Σ_u w_u (Σ_i c_ui (p_ui − x_u·y_i)² + λ‖x_u‖²) + λ‖Y‖²: Hu, Koren & Volinsky (2008), eq. 3, where user u
    counts w_u times. The w_u cancel out of the half-step of the users, which fold-in solves as well
    (`recsys.model.fold_in`): they are in that of the items alone. User factors are not returned: they are half a step
    behind, and are derived by fold-in whenever needed.

    With all w_u = 1 these are the factors that `implicit` finds from the same seed.

    Parameters
    ----------
    confidences : csr_matrix, float32, (n_users, n_items)
        c_ui of the owned items.
    weights : floats, (n_users,), or None
        w_u, see `recsys.model.influence`; None = all 1.
    factors : int
        Number of factors; at most the number of users and items.
    regularization : float
        λ.
    iterations : int
        Number of iterations.
    seed : int
        Random seed.
    on_iteration : callable
        Called after each iteration.

    Returns
    -------
    float32, (n_items, factors), C order.
    """
    n_users, n_items = confidences.shape
    factors = max(1, min(factors, n_users, n_items))
    of_users = np.ones(n_users, np.float32) if weights is None else np.asarray(weights, np.float32)
    of_items = np.ones(n_items, np.float32)
    by_item = confidences.T.tocsr()
    rng = np.random.default_rng(seed)
    users, items = (rng.random((rows, factors), np.float32) * _FIRST for rows in (n_users, n_items))
    for _ in range(iterations):
        _half_step(confidences, of_items, items, regularization, users)
        _half_step(by_item, of_users, users, regularization, items)
        on_iteration()
    return items


def _half_step(
    confidences: csr_matrix,
    weights: NDArray[np.float32],
    others: NDArray[np.float32],
    regularization: float,
    solved: NDArray[np.float32],
) -> None:
    """Solve rows against the factors of the others, each of which counts so many times."""
    with threadpool_limits(1, "blas"):
        base = ((others * weights[:, None]).T @ others).astype(np.float32)
    base[np.diag_indices_from(base)] += np.float32(regularization)

    def part(start: int, stop: int) -> None:
        half_step(
            confidences.indptr[start : stop + 1],
            confidences.indices,
            confidences.data,
            weights,
            others,
            base,
            solved[start:stop],
            _STEPS,
        )

    map_ranges(len(solved), part)
