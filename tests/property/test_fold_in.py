from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from implicit.cpu.als import AlternatingLeastSquares
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits

from recsys.errors import InvalidModel
from recsys.model.fold_in import UserSolver
from tests.builders import dense_gram, dense_user_factors


@dataclass(frozen=True)
class Problem:
    """Item factors, and users' confidences as a matrix and as dictionaries."""

    item_factors: NDArray[np.float32]
    confidences: csr_matrix
    users: list[dict[int, float]]
    regularization: float

    def solved(self) -> NDArray[np.float32]:
        gram = dense_gram(self.item_factors)
        return UserSolver(self.item_factors, gram, regularization=self.regularization).fold_in(self.confidences)


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    n_users, n_items, factors = draw(st.integers(1, 6)), draw(st.integers(1, 40)), draw(st.integers(1, 12))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    item_factors = rng.normal(0, 0.5, (n_items, factors)).astype(np.float32)
    owned = rng.random((n_users, n_items)) < draw(st.sampled_from([0.0, 0.1, 0.5, 1.0]))
    confidences = np.where(owned, 1 + rng.gamma(1.0, 4.0, owned.shape), 0).astype(np.float32)
    users = [{int(row): float(user[row]) for row in np.flatnonzero(user)} for user in confidences]
    return Problem(item_factors, csr_matrix(confidences), users, draw(st.sampled_from([0.5, 1.0, 20.0, 100.0])))


@given(problems())
@settings(max_examples=100, deadline=None)
def test_fold_in_is_the_dense_float64_solution_of_each_user(problem: Problem) -> None:
    found = problem.solved()
    assert found.dtype == np.float32
    assert found.shape == (len(problem.users), problem.item_factors.shape[1])
    for user, user_factors in zip(problem.users, found, strict=True):
        expected = dense_user_factors(problem.item_factors, user, problem.regularization)
        np.testing.assert_allclose(user_factors, expected, rtol=1e-3, atol=2e-5)


@given(problems())
@settings(max_examples=50, deadline=None)
def test_fold_in_is_what_implicit_recalculates(problem: Problem) -> None:
    with threadpool_limits(1, "blas"):
        reference = AlternatingLeastSquares(
            factors=problem.item_factors.shape[1], regularization=problem.regularization, alpha=1.0
        )
        reference.item_factors = problem.item_factors.copy()
        expected = reference.recalculate_user(np.arange(len(problem.users)), problem.confidences)
    np.testing.assert_allclose(problem.solved(), expected, rtol=1e-3, atol=2e-5)


@given(problems())
@settings(max_examples=50, deadline=None)
def test_users_without_items_have_zeros_whoever_is_beside_them(problem: Problem) -> None:
    nobody = np.zeros((1, len(problem.item_factors)), dtype=np.float32)
    confidences = csr_matrix(np.vstack([nobody, problem.confidences.toarray(), nobody]))
    found = replace(problem, confidences=confidences).solved()
    assert not found[0].any()
    assert not found[-1].any()
    np.testing.assert_allclose(found[1:-1], problem.solved(), rtol=1e-4, atol=1e-5)


def test_a_solver_can_be_asked_again_and_again() -> None:
    rng = np.random.default_rng(5)
    item_factors = rng.normal(0, 0.5, (20, 4)).astype(np.float32)
    solver = UserSolver(item_factors, dense_gram(item_factors), regularization=2.0)
    for size in (3, 1, 5):
        confidences = np.where(rng.random((size, 20)) < 0.3, 3.0, 0.0).astype(np.float32)
        for user, found in zip(confidences, solver.fold_in(csr_matrix(confidences)), strict=True):
            owned = {int(row): 3.0 for row in np.flatnonzero(user)}
            np.testing.assert_allclose(found, dense_user_factors(item_factors, owned, 2.0), rtol=1e-3, atol=1e-5)


def test_one_item_and_one_factor_give_the_textbook_number() -> None:
    item_factors = np.array([[2.0]], dtype=np.float32)
    solver = UserSolver(item_factors, np.array([[4.0]], dtype=np.float32), regularization=1.0)
    found = solver.fold_in(csr_matrix(np.array([[3.0]], dtype=np.float32)))
    np.testing.assert_allclose(found, [[3 * 2 / (3 * 4 + 1)]], rtol=1e-6)


def test_a_regularization_that_float32_cannot_see_is_refused() -> None:
    item_factors = np.full((3, 2), 1e3, dtype=np.float32)
    with pytest.raises(InvalidModel, match="regularization 1e-06 is too small"):
        UserSolver(item_factors, dense_gram(item_factors), regularization=1e-6)


@pytest.mark.parametrize("factors", [1, 7, 8, 9, 64, 65])
def test_any_number_of_factors_is_solved(factors: int) -> None:
    rng = np.random.default_rng(factors)
    item_factors = rng.normal(0, 0.5, (200, factors)).astype(np.float32)
    confidences = np.where(rng.random((20, 200)) < 0.2, 1 + rng.gamma(1.0, 4.0, (20, 200)), 0).astype(np.float32)
    found = UserSolver(item_factors, dense_gram(item_factors), regularization=5.0).fold_in(csr_matrix(confidences))
    for user, user_factors in zip(confidences, found, strict=True):
        owned = {int(row): float(user[row]) for row in np.flatnonzero(user)}
        np.testing.assert_allclose(user_factors, dense_user_factors(item_factors, owned, 5.0), rtol=1e-3, atol=2e-5)
