"""Fitting item factors by alternating least squares, through `implicit`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from implicit.cpu.als import AlternatingLeastSquares
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits


def fit(
    confidences: csr_matrix,
    *,
    factors: int,
    regularization: float,
    iterations: int,
    seed: int,
    on_iteration: Callable[[], None] = lambda: None,
) -> NDArray[np.float32]:
    """Factorize the confidences and return the item factors.

    Minimizes Σ_ui c_ui (p_ui − x_u·y_i)² + λ(‖X‖² + ‖Y‖²): Hu, Koren & Volinsky (2008), eq. 3. User factors are
    not returned: `implicit` leaves them half a step behind, and they are derived by fold-in whenever needed.

    Parameters
    ----------
    confidences : csr_matrix, float32, (n_users, n_items)
        c_ui of the owned items.
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
    # implicit parallelizes over users itself; more BLAS threads would only compete for the cores.
    with threadpool_limits(1, "blas"):
        model = AlternatingLeastSquares(
            factors=max(1, min(factors, *confidences.shape)),
            regularization=regularization,
            alpha=1.0,  # implicit's confidence is alpha·r, and r is already c here
            iterations=iterations,
            random_state=seed,
        )
        model.fit(confidences, show_progress=False, callback=lambda *_: on_iteration())
    return np.ascontiguousarray(model.item_factors, dtype=np.float32)
