from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from recsys.data.interactions import Interactions
from recsys.evaluation.baselines import of_habit, of_neighbours, of_scores
from recsys.evaluation.split import Lists, Split, split_by_time
from tests.builders import NOON_S
from tests.shops import DAY_S, habitual_shop

CUT_S = NOON_S - 20 * DAY_S


@pytest.fixture(scope="module")
def split() -> Split:
    return split_by_time(habitual_shop(seed=0, n_users=60), cut_s=CUT_S)


@pytest.fixture(scope="module")
def train() -> Interactions:
    shop = habitual_shop(seed=0, n_users=60)
    return shop.where(shop.seconds < CUT_S).interactions()


def rows_of(split: Split, user: int) -> NDArray[np.int32]:
    return split.owned.rows[split.owned.starts[user] : split.owned.starts[user + 1]]


def listed(lists: Lists, user: int) -> list[int]:
    return [row for row in lists[user].tolist() if row >= 0]


@pytest.mark.parametrize("n", [1, 10, 500])
@pytest.mark.parametrize("include_purchased", [False, True])
def test_the_same_scores_for_everyone(split: Split, n: int, include_purchased: bool) -> None:
    scores = np.random.default_rng(0).integers(0, 30, len(split.items)).astype(np.float64)  # ties abound
    lists = of_scores(scores, split.owned, n=n, include_purchased=include_purchased)
    assert lists.shape == (split.n_users, n)
    for user in range(split.n_users):
        owned = set() if include_purchased else set(rows_of(split, user).tolist())
        best = sorted((-score, row) for row, score in enumerate(scores.tolist()) if row not in owned)
        assert listed(lists, user) == [row for _, row in best][:n]


@pytest.mark.parametrize("n", [1, 5, 300])
def test_a_habit_lists_what_was_bought_often_and_lately(split: Split, n: int) -> None:
    lists = of_habit(split.owned, reference_s=CUT_S, n=n, half_life_days=30.0)
    for user in range(split.n_users):
        found = listed(lists, user)
        assert len(found) == min(n, len(rows_of(split, user)))
        assert set(found) <= set(rows_of(split, user).tolist())
    first = split.owned.of(np.array([0]))
    entries = first.entries
    # Twice as much as anything else, and today:
    entries[3, 1:] = CUT_S, CUT_S - DAY_S, 500
    assert of_habit(first, reference_s=CUT_S, n=1, half_life_days=30.0).tolist() == [[int(first.rows[3])]]


@pytest.mark.parametrize("include_purchased", [False, True])
def test_neighbours_are_scored_by_their_cosines(split: Split, train: Interactions, include_purchased: bool) -> None:
    n_items = len(split.items)
    lists = of_neighbours(train, split.owned, n=10, neighbours=n_items, include_purchased=include_purchased)
    bought = np.zeros((len(train.users), n_items))
    bought[train.owned.owners(), train.owned.rows] = 1
    norms = np.linalg.norm(bought, axis=0)
    cosines = bought.T @ bought / np.outer(norms, norms)
    np.fill_diagonal(cosines, 0)
    for user in range(split.n_users):
        owned = rows_of(split, user)
        scores = cosines[owned].sum(axis=0)
        found = listed(lists, user)
        left = n_items - (0 if include_purchased else len(owned))
        assert len(found) == min(10, left)
        if not include_purchased:
            scores[owned] = -1
        np.testing.assert_allclose(scores[found], np.sort(scores)[::-1][: len(found)], rtol=1e-5)


def test_only_the_nearest_items_count(split: Split, train: Interactions) -> None:
    everyone, few = (
        of_neighbours(train, split.owned, n=10, neighbours=count, include_purchased=False) for count in (500, 2)
    )
    assert everyone.tolist() != few.tolist()


def test_nobody_gets_no_lists(split: Split, train: Interactions) -> None:
    nobody = split.owned.of(np.empty(0, np.int64))
    assert of_scores(np.ones(3), nobody, n=5, include_purchased=False).shape == (0, 5)
    assert of_habit(nobody, reference_s=0, n=5, half_life_days=1).shape == (0, 5)
    assert of_neighbours(train, nobody, n=5, neighbours=5, include_purchased=True).shape == (0, 5)
