from __future__ import annotations

import numpy as np
import pytest

from recsys.data.event_log import EventLog
from recsys.data.vocabulary import Vocabulary
from recsys.model.influence import Buyers
from recsys.recommend.item_lists import by_popularity, popular_by_category, popular_items
from tests.builders import NOON_S

DAY_S = 86_400
ITEMS = Vocabulary(["a", "b", "c", "d"])


def test_popularity_fades() -> None:
    ages_days = [0, 30, 60, 0, -5]
    events = EventLog(
        ["u"],
        np.zeros(5, np.int32),
        ["c", "a", "unknown"],
        np.array([0, 1, 1, 2, 1], np.int32),
        np.array([10**6, 10**6, 5 * 10**6, 10**6, 10**6]),
        np.array([NOON_S - age * DAY_S for age in ages_days]),
    )
    found = Buyers.of(events).demand(ITEMS, reference_s=NOON_S, half_lives_days=(30,))[:, 0]
    assert found == pytest.approx([0.5 + 0.25, 0, 1, 0])  # neither how much was bought at once, nor what is to come
    returns = EventLog(["u"], np.zeros(1, np.int32), ["a"], np.zeros(1, np.int32), np.array([-1]), np.array([NOON_S]))
    assert not Buyers.of(returns).demand(ITEMS, reference_s=NOON_S, half_lives_days=(30,)).any()


def test_equally_popular_items_stay_in_order() -> None:
    assert by_popularity(np.array([1.0, 3.0, 3.0, 2.0])).tolist() == [1, 2, 3, 0]


def test_popular_items_are_the_most_popular_ones_that_are_not_hidden() -> None:
    best = popular_items(ITEMS, np.array([1.0, 3.0, 3.0, 2.0]), n=3, hidden={"b"})
    assert best.item_ids == ("c", "d", "a")
    assert best.scores == (3.0, 2.0, 1.0)


def test_each_category_has_a_list_of_its_own() -> None:
    categories = {"a": "x", "b": "x", "c": "y", "d": "", "other": "z"}
    found = popular_by_category(ITEMS, np.array([1.0, 2.0, 5.0, 9.0]), categories, n=1)
    assert {category: best.item_ids for category, best in found.items()} == {"x": ("b",), "y": ("c",)}
    assert popular_by_category(ITEMS, np.ones(4), categories, n=2, hidden={"c"}).keys() == {"x"}
    assert popular_by_category(ITEMS, np.ones(4), {}, n=2) == {}
