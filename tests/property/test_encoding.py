from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.data.vocabulary import Vocabulary
from recsys.lists.encoding import items_json
from recsys.lists.encoding_kernels import LARGEST_SCORE
from recsys.model.top_n import Ranking
from recsys.recommend.user_lists import RankedList, RankedLists

ids = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=20) | st.text(
    '",{}[]:\\', min_size=1
)
any_score = st.floats(width=32, allow_nan=False, allow_infinity=False)
usual_score = st.floats(-2, 2, width=32) | st.sampled_from(
    [0.0, -0.0, 0.5, 1.0, 0.1, 1e-5, 5e-6, 1.5e-5, -0.99999, 12.5]
)
lists = st.lists(st.tuples(ids, any_score | usual_score), max_size=8).map(
    lambda pairs: RankedList(tuple(item for item, _ in pairs), tuple(score for _, score in pairs))
)


@st.composite
def many_lists(draw: st.DrawFn, scores: st.SearchStrategy[float]) -> RankedLists:
    """Lists as `refresh` returns them."""
    items = Vocabulary.of(draw(st.sets(ids, min_size=1, max_size=6)))
    n_users, n = draw(st.integers(0, 4)), draw(st.integers(1, 5))
    found = draw(st.lists(scores, min_size=n_users * n, max_size=n_users * n))
    sizes = draw(st.lists(st.integers(0, n), min_size=n_users, max_size=n_users))
    rows = np.random.default_rng(draw(st.integers(0, 99))).integers(0, len(items), (n_users, n))
    return RankedLists(items, Ranking(rows, np.array(found, np.float32).reshape(n_users, n), np.array(sizes, np.int64)))


def read_back(found: Sequence[RankedList]) -> list[object]:
    return [json.loads(text) for text in items_json(found)]


def as_in_the_contract(found: Sequence[RankedList]) -> list[object]:
    return [
        [
            {"item_id": item, "score": float(np.round(score, 5))}
            for item, score in zip(items.item_ids, items.scores, strict=True)
        ]
        for items in found
    ]


@given(st.lists(lists, max_size=5))
def test_a_list_in_redis_is_the_json_of_its_items_with_scores_of_five_decimals(found: list[RankedList]) -> None:
    assert read_back(found) == as_in_the_contract(found)


@settings(deadline=None)  # the first call compiles
@given(many_lists(usual_score) | many_lists(any_score))
def test_lists_of_a_batch_are_written_as_one_by_one(found: RankedLists) -> None:
    assert read_back(found) == as_in_the_contract(found) == read_back(list(found))


@pytest.mark.parametrize("score", [LARGEST_SCORE, 1.1 * LARGEST_SCORE, 3.4e38])
def test_scores_of_a_broken_scale_are_written_all_the_same(score: float) -> None:
    ranking = Ranking(np.zeros((1, 2), np.int64), np.array([[score, -score]], np.float32), np.array([2]))
    found = RankedLists(Vocabulary(["a"]), ranking)
    assert read_back(found) == as_in_the_contract(found)
    assert json.loads(next(iter(items_json(found))))[0]["score"] == np.float32(score)
