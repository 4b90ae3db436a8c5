"""The user half-step of ALS: users' factors against fixed item factors."""

from __future__ import annotations

import numpy as np
from implicit.cpu.als import AlternatingLeastSquares
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from threadpoolctl import ThreadpoolController


class UserSolver:
    """Solves users' factors against fixed item factors; build one per model and keep it.

    Parameters
    ----------
    item_factors : float32, (n_items, factors)
    item_gram : float32, (factors, factors); YᵀY
    regularization : float; λ
    """

    def __init__(
        self, item_factors: NDArray[np.float32], item_gram: NDArray[np.float32], *, regularization: float
    ) -> None:
        # Entering a kept controller costs 0.05 ms; threadpool_limits() would scan all loaded libraries, 1.7 ms.
        self._threadpools = ThreadpoolController()
        with self._threadpools.limit(limits=1, user_api="blas"):
            self._implicit = AlternatingLeastSquares(
                factors=item_factors.shape[1], regularization=regularization, alpha=1.0
            )
        self._implicit.item_factors = item_factors
        # The artifact's YᵀY, summed in float64, instead of the one implicit would sum in float32 for itself.
        self._implicit._YtY = item_gram  # noqa: SLF001

    def fold_in(self, confidences: csr_matrix) -> NDArray[np.float32]:
        """Solve x_u = (YᵀY + Yᵀ(C_u − I)Y + λI)⁻¹ Yᵀ C_u p_u exactly, for a batch of users.

        Hu, Koren & Volinsky (2008), eq. 4.

        Parameters
        ----------
        confidences : csr_matrix, float32, (n_users, n_items)
            c_ui of each user's owned items.

        Returns
        -------
        float32, (n_users, factors); zeros for a user without items.
        """
        n_users = confidences.shape[0]
        with self._threadpools.limit(limits=1, user_api="blas"):
            factors: NDArray[np.float32] = self._implicit.recalculate_user(np.arange(n_users), confidences)
        return factors
