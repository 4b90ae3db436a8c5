"""Fold-in: the user half-step of ALS, against fixed item factors."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recsys.errors import InvalidModel
from recsys.model.fold_in_kernels import solve
from recsys.runtime.threads import map_ranges


class UserSolver:
    """Solves users' factors against fixed item factors; build one per model and keep it.

    Parameters
    ----------
    item_factors : float32, (n_items, factors)
    item_gram : float32, (factors, factors); YᵀY
    regularization : float; λ

    Raises
    ------
    InvalidModel
        When λ is so small compared with the factors that the equations are singular in float32.
    """

    def __init__(
        self, item_factors: NDArray[np.float32], item_gram: NDArray[np.float32], *, regularization: float
    ) -> None:
        self._item_factors = item_factors
        self._base = item_gram + np.float32(regularization) * np.eye(len(item_gram), dtype=np.float32)
        try:
            np.linalg.cholesky(self._base)
        except np.linalg.LinAlgError:
            raise InvalidModel(
                f"regularization {regularization:g} is too small for item factors of this size: "
                f"the equations of users cannot be solved in float32"
            ) from None

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
        user_factors = np.empty((n_users, len(self._base)), np.float32)

        def part(start: int, stop: int) -> None:
            solve(
                confidences.indptr[start : stop + 1],
                confidences.indices,
                confidences.data,
                self._item_factors,
                self._base,
                user_factors[start:stop],
            )

        map_ranges(n_users, part)
        return user_factors
