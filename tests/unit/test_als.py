from __future__ import annotations

import numpy as np
import pytest
from implicit.cpu.als import AlternatingLeastSquares
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, random
from threadpoolctl import threadpool_limits

from recsys.model.fold_in import UserSolver
from recsys.training import als
from recsys.training.als_kernels import half_step


def confidences(n_users: int, n_items: int, *, seed: int) -> csr_matrix:
    found = csr_matrix(random(n_users, n_items, density=0.2, random_state=seed, dtype=np.float32))
    found.data += 1
    return found


@pytest.mark.parametrize("steps", [1, 40])
def test_a_half_step_counts_each_of_the_others_as_often_as_it_weighs(steps: int) -> None:
    rng = np.random.default_rng(steps)
    matrix = confidences(40, 30, seed=1)
    matrix.data[: matrix.indptr[1]] = 0
    matrix.eliminate_zeros()  # the first row has no entries
    others = rng.normal(size=(30, 6)).astype(np.float32)
    weights = rng.choice([0.0, 0.2, 1.0, 3.0], 30).astype(np.float32)
    base = ((others * weights[:, None]).T @ others + 2 * np.eye(6)).astype(np.float32)
    start = rng.normal(size=(40, 6)).astype(np.float32)
    solved = start.copy()
    half_step(matrix.indptr, matrix.indices, matrix.data, weights, others, base, solved, steps)
    assert not solved[0].any()
    wide = others.astype(np.float64)

    def loss(x: NDArray[np.float64], row: int) -> float:
        seen = matrix[row].toarray()[0]
        errors = (np.where(seen > 0, 1.0, 0.0) - wide @ x) ** 2
        return float(weights @ (np.where(seen > 0, seen, 1.0) * errors) + 2 * x @ x)

    for row in range(1, 40):
        seen = matrix[row].toarray()[0].astype(np.float64)
        left = np.where(seen > 0, seen, 1.0) * weights
        best = np.linalg.solve((wide.T * left) @ wide + 2 * np.eye(6), wide.T @ (left * (seen > 0)))
        if steps > 6:
            np.testing.assert_allclose(solved[row], best, atol=1e-3)
        else:
            assert loss(best, row) - 1e-6 <= loss(solved[row], row) < loss(start[row], row)


def test_without_weights_the_factors_are_those_of_implicit() -> None:
    matrix = confidences(200, 90, seed=2)
    with threadpool_limits(1, "blas"):  # as implicit wants it
        model = AlternatingLeastSquares(factors=8, regularization=3.0, alpha=1.0, iterations=6, random_state=5)
        model.fit(matrix, show_progress=False)
    for weights in (None, np.ones(200)):
        found = als.fit(matrix, weights, factors=8, regularization=3.0, iterations=6, seed=5)
        np.testing.assert_allclose(found, model.item_factors, atol=1e-3)
        assert found.flags.c_contiguous


def test_weights_do_not_move_the_half_step_of_the_users() -> None:
    """They cancel out of a user's own equations: fold-in, which knows no weights, finds the optimum."""
    matrix, rng = confidences(60, 25, seed=3), np.random.default_rng(4)
    weights = rng.uniform(0.1, 3.0, 60)
    items = als.fit(matrix, weights, factors=4, regularization=2.0, iterations=200, seed=0)
    users = UserSolver(items, items.T @ items, regularization=2.0).fold_in(matrix)
    dense = matrix.toarray()
    left = np.where(dense > 0, dense, 1.0) * weights[:, None]
    best = np.stack(
        [
            np.linalg.solve((users.T * left[:, item]) @ users + 2 * np.eye(4), users.T @ (left * (dense > 0))[:, item])
            for item in range(25)
        ]
    )
    np.testing.assert_allclose(items, best, atol=1e-4)  # a joint optimum: neither half-step would move it


def test_who_weighs_nothing_moves_nothing() -> None:
    matrix = confidences(80, 30, seed=5)
    weights = np.ones(80)
    weights[40:] = 0
    others = matrix.copy()
    others.data[matrix.indptr[40] :] *= 50
    first, second = (
        als.fit(one, weights, factors=5, regularization=2.0, iterations=5, seed=0) for one in (matrix, others)
    )
    np.testing.assert_allclose(first, second, atol=1e-5)
