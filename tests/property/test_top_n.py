from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from recsys.model.top_n import ItemIndex, full_sort, top_n
from tests.builders import best_rows

SMALL_COUNTS = st.integers(1, 12)
ALL_COUNTS = st.sampled_from(
    [
        31,
        32,
        33,
        63,
        64,
        65,
        1599,
        1600,
        1601,
        511,
        512,
        513,
        1023,
        1024,
        1025,
        1535,
        1536,
        1537,
        2047,
        2048,
        2049,
        3583,
        3584,
        3585,
        5000,
    ]
)
ITEM_COUNTS = SMALL_COUNTS | st.integers(13, 5000) | ALL_COUNTS


@dataclass(frozen=True)
class Problem:
    """Factors of small whole numbers: every score is exact in float32, and ties abound."""

    user_factors: NDArray[np.float32]
    item_factors: NDArray[np.float32]
    excluded: list[NDArray[np.int64]]
    n: int


@st.composite
def problems(draw: st.DrawFn, item_counts: st.SearchStrategy[int]) -> Problem:
    n_items, n_users, factors = draw(item_counts), draw(st.integers(1, 4)), draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    largest = draw(st.sampled_from([0, 1, 3, 1000]))
    share = draw(st.sampled_from([0.0, 0.02, 0.5, 1.0]))
    excluded = [rng.permutation(np.repeat(np.flatnonzero(rng.random(n_items) < share), 2)) for _ in range(n_users)]
    return Problem(
        rng.integers(-largest, largest, (n_users, factors), endpoint=True).astype(np.float32),
        rng.integers(-largest, largest, (n_items, factors), endpoint=True).astype(np.float32),
        excluded,
        draw(st.sampled_from([1, 2, 10, 50, n_items, n_items + 1, max(1, n_items - 1)])),
    )


def check(problem: Problem) -> None:
    found = top_n(problem.user_factors, ItemIndex.build(problem.item_factors), excluded=problem.excluded, n=problem.n)
    assert len(found) == len(problem.user_factors)
    for (rows, scores), user, excluded in zip(found, problem.user_factors, problem.excluded, strict=True):
        true_scores = (problem.item_factors.astype(np.int64) @ user.astype(np.int64)).tolist()
        expected = best_rows(true_scores, set(excluded.tolist()), problem.n)
        assert rows.tolist() == expected
        assert scores.tolist() == [true_scores[row] for row in expected]
        assert rows.dtype == np.int64
        assert scores.dtype == np.float32


@given(problems(SMALL_COUNTS))
@settings(max_examples=200, deadline=None)
def test_top_n_of_a_few_items_is_a_full_sort(problem: Problem) -> None:
    check(problem)


@given(problems(ITEM_COUNTS))
@settings(max_examples=120, deadline=None)
def test_top_n_of_many_items_is_a_full_sort(problem: Problem) -> None:
    check(problem)


@pytest.mark.parametrize("n_items", [1, 2, 50, 2000, 5000])
@pytest.mark.parametrize("n", [1, 7, 50, 6000])
def test_equal_scores_come_in_order_of_row(n_items: int, n: int) -> None:
    ones, nothing = np.ones((1, 2), dtype=np.float32), np.zeros((1, 2), dtype=np.float32)
    items = np.ones((n_items, 2), dtype=np.float32)
    none = np.array([], dtype=np.int64)
    for user, score in ((ones, 2.0), (nothing, 0.0), (-ones, -2.0)):
        ((rows, scores),) = top_n(user, ItemIndex.build(items), excluded=[none], n=n)
        assert rows.tolist() == list(range(min(n, n_items)))
        assert set(scores.tolist()) == {score}


@pytest.mark.parametrize("n_items", [1, 50, 5000])
def test_no_item_is_left_when_all_are_excluded(n_items: int) -> None:
    rng = np.random.default_rng(1)
    users, items = rng.random((2, 3), dtype=np.float32), rng.random((n_items, 3), dtype=np.float32)
    everything = np.concatenate((np.arange(n_items), np.arange(n_items)))
    for rows, scores in top_n(users, ItemIndex.build(items), excluded=[everything, everything], n=10):
        assert rows.tolist() == []
        assert scores.tolist() == []


@pytest.mark.parametrize("n_items", [10, 3000])
def test_a_list_is_shorter_only_when_fewer_items_are_left(n_items: int) -> None:
    items = -np.arange(1, n_items + 1, dtype=np.float32)[:, None]
    user = np.ones((1, 1), dtype=np.float32)
    ((rows, scores),) = top_n(user, ItemIndex.build(items), excluded=[np.arange(3, n_items)], n=5)
    assert rows.tolist() == [0, 1, 2]
    assert scores.tolist() == [-1.0, -2.0, -3.0]


@pytest.mark.parametrize("place", [0, 1, 2047, 2048, 4095, 4096, 4998, 4999])
def test_one_planted_best_item_is_found_anywhere(place: int) -> None:
    items = np.zeros((5000, 2), dtype=np.float32)
    items[place] = [3.0, 4.0]
    user = np.array([[1.0, 1.0]], dtype=np.float32)
    ((rows, scores),) = top_n(user, ItemIndex.build(items), excluded=[np.array([], dtype=np.int64)], n=2)
    assert rows.tolist() == [place, 0 if place else 1]
    assert scores.tolist() == [7.0, 0.0]


def test_a_batch_larger_than_a_block_of_scores_is_ranked_whole() -> None:
    rng = np.random.default_rng(2)
    users = rng.integers(-3, 3, (1900, 3), endpoint=True).astype(np.float32)
    items = rng.integers(-3, 3, (5000, 3), endpoint=True).astype(np.float32)
    excluded = [rng.integers(0, 5000, rng.integers(0, 9)) for _ in users]
    found = top_n(users, ItemIndex.build(items), excluded=excluded, n=5)
    assert len(found) == len(users)
    scores = users.astype(np.int64) @ items.astype(np.int64).T
    for user, rows in enumerate(excluded):
        scores[user, rows] = -1000
    for user, (rows, listed) in enumerate(found):
        expected = np.argsort(-scores[user], kind="stable")[:5]
        assert rows.tolist() == expected.tolist()
        assert listed.tolist() == scores[user, expected].tolist()


@st.composite
def real_problems(draw: st.DrawFn) -> Problem:
    """Factors as models have them: uneven norms, items that are equal to others or zero, perhaps an item bias."""
    n_items, n_users, factors = draw(st.integers(1, 3000)), draw(st.integers(1, 80)), draw(st.integers(1, 70))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    users = rng.normal(0, 1, (n_users, factors))
    items = rng.normal(0, 1, (n_items, factors)) * rng.pareto(draw(st.sampled_from([0.5, 2.0, 50.0])), (n_items, 1))
    share = draw(st.sampled_from([0.0, 0.3, 1.0]))
    copies = np.flatnonzero(rng.random(n_items) < share)
    items[copies] = items[rng.integers(0, n_items, len(copies))]
    items[rng.random(n_items) < draw(st.sampled_from([0.0, 0.5]))] = 0
    if draw(st.booleans()):
        users[:, 0], items[:, 0] = 1, rng.normal(0, draw(st.sampled_from([0.01, 1, 100])), n_items)
    owned = [rng.integers(0, n_items, rng.choice([0, 1, 30, 500, 5 * n_items])) for _ in range(n_users)]
    n = draw(st.sampled_from([1, 10, 50, 1000, n_items]))
    return Problem(users.astype(np.float32), items.astype(np.float32), owned, n)


@given(real_problems())
@settings(max_examples=60, deadline=None)
def test_top_n_of_real_factors_is_a_full_sort(problem: Problem) -> None:
    index = ItemIndex.build(problem.item_factors)
    found = top_n(problem.user_factors, index, excluded=problem.excluded, n=problem.n)
    expected = full_sort(problem.user_factors, problem.item_factors, excluded=problem.excluded, n=problem.n)
    for (rows, scores), (true_rows, true_scores) in zip(found, expected, strict=True):
        assert rows.tolist() == true_rows.tolist()
        assert scores.tolist() == true_scores.tolist()


@given(real_problems(), st.sampled_from([0.0, 0.01, 1.0, 100.0]), st.sampled_from([0.01, 1.0, 50.0]))
@settings(max_examples=60, deadline=None)
def test_a_bias_counts_like_one_more_dimension(problem: Problem, spread: float, user_norm: float) -> None:
    n_users, n_items = len(problem.user_factors), len(problem.item_factors)
    bias = np.random.default_rng(n_items).normal(0, spread, n_items).astype(np.float32)
    index = ItemIndex.build(problem.item_factors, bias, user_norm=user_norm)
    found = top_n(problem.user_factors, index, excluded=problem.excluded, n=problem.n)
    expected = full_sort(
        np.column_stack((problem.user_factors, np.ones(n_users, np.float32))),
        np.column_stack((problem.item_factors, bias)),
        excluded=problem.excluded,
        n=problem.n,
    )
    for (rows, scores), (true_rows, true_scores) in zip(found, expected, strict=True):
        assert rows.tolist() == true_rows.tolist()
        assert scores.tolist() == true_scores.tolist()


def test_few_blocks_are_looked_at_where_the_bias_decides() -> None:
    rng = np.random.default_rng(6)
    items = (rng.normal(size=(20_000, 8)) * 0.01).astype(np.float32)
    bias = -np.arange(20_000, dtype=np.float32)[rng.permutation(20_000)]
    index = ItemIndex.build(items, bias)
    norms = np.array([0.0, 1.0, 40.0, 1e6])
    for place in (0, 64, 1000, 19_999):
        left = index.rows[place:]
        most = [(norm * np.linalg.norm(items[left], axis=1) + bias[left]).max() for norm in norms]
        bounds = index.reach(norms, place)
        assert (bounds >= np.array(most) - 1e-6 * np.abs(most)).all()
        assert bounds[1] < most[1] + 65  # near enough to stop there: the bias falls by 1 from place to place


def test_hidden_items_are_in_no_list() -> None:
    rng = np.random.default_rng(4)
    users = rng.normal(size=(70, 8)).astype(np.float32)
    items = rng.normal(size=(6000, 8)).astype(np.float32)
    owned = [rng.integers(0, 6000, 20) for _ in users]
    hidden = rng.permutation(6000)[:4000]
    found = top_n(users, ItemIndex.build(items), excluded=owned, hidden=hidden, n=30)
    expected = full_sort(users, items, excluded=[np.concatenate((rows, hidden)) for rows in owned], n=30)
    assert [rows.tolist() for rows, _ in found] == [rows.tolist() for rows, _ in expected]


@pytest.mark.parametrize("left", [1, 5, 29])
def test_few_candidates_among_the_longest_items_keep_no_better_one_out(left: int) -> None:
    rng = np.random.default_rng(left)
    items = np.abs(rng.normal(size=(3000, 4))).astype(np.float32)
    index = ItemIndex.build(items)
    items[index.rows[:512]] *= np.array([1, -1, -1, -1], np.float32)  # long, but badly placed for this user
    index = ItemIndex.build(items)
    user, owned = np.ones((1, 4), np.float32), index.rows[left:512]
    ((rows, _),) = top_n(user, index, excluded=[owned], n=30)
    ((expected, _),) = full_sort(user, items, excluded=[owned], n=30)
    assert rows.tolist() == expected.tolist()


def test_a_list_does_not_depend_on_who_is_in_the_batch() -> None:
    rng = np.random.default_rng(5)
    users = rng.normal(size=(200, 64)).astype(np.float32)
    index = ItemIndex.build(rng.normal(size=(6000, 64)).astype(np.float32))
    none = np.array([], dtype=np.int64)
    together = top_n(users, index, excluded=[none] * 200, n=50)
    for user, (rows, scores) in zip(users, together, strict=True):
        ((alone, own_scores),) = top_n(user[None], index, excluded=[none], n=50)
        assert rows.tolist() == alone.tolist()
        assert scores.tolist() == own_scores.tolist()


def test_no_users_give_no_lists() -> None:
    nobody = np.zeros((0, 2), np.float32)
    assert list(top_n(nobody, ItemIndex.build(np.zeros((5, 2), np.float32)), excluded=[], n=3)) == []


def test_what_was_given_is_not_changed() -> None:
    rng = np.random.default_rng(3)
    users, items = rng.random((2, 3), dtype=np.float32), rng.random((3000, 3), dtype=np.float32)
    excluded = [np.array([5, 5, 1]), np.array([2])]
    copies = users.copy(), items.copy(), [rows.copy() for rows in excluded]
    top_n(users, ItemIndex.build(items), excluded=excluded, n=4)
    np.testing.assert_array_equal(users, copies[0])
    np.testing.assert_array_equal(items, copies[1])
    for rows, copy in zip(excluded, copies[2], strict=True):
        np.testing.assert_array_equal(rows, copy)
