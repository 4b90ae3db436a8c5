from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.data.event_log import EventLog
from recsys.data.owned_items import Owned
from recsys.data.vocabulary import Vocabulary
from recsys.model.boosts import (
    DEMAND,
    DEMAND_HALF_LIVES_DAYS,
    HABIT,
    BoostWeights,
    decayed_frequency,
    demand_features,
    habit_features,
    habits,
)
from recsys.model.influence import Buyers
from tests.builders import NOON_S

DAY_S = 86_400


def owned_by_one(*entries: tuple[int, int, int, int]) -> Owned:
    return Owned(
        np.array([0, len(entries)], np.int32),
        np.arange(len(entries), dtype=np.int32),
        np.array(entries, np.int64).reshape(-1, 4),
    )


@given(st.integers(1, 400), st.integers(0, 5000), st.integers(0, 3000), st.floats(0.5, 400))
def test_frequency_is_the_sum_over_purchases_equally_far_apart(
    purchases: int, age_days: int, span_days: int, half_life: float
) -> None:
    newest = NOON_S - age_days * DAY_S
    owned = owned_by_one((10**6, newest, newest - span_days * DAY_S, purchases))
    interval = span_days / max(1, purchases - 1)
    expected = math.fsum(0.5 ** ((age_days + place * interval) / half_life) for place in range(purchases))
    found = decayed_frequency(owned, reference_s=NOON_S, half_life_days=half_life)
    np.testing.assert_allclose(found, [expected], rtol=1e-6, atol=1e-300)


def test_what_came_after_the_reference_is_as_new_as_can_be() -> None:
    later, now = ((10**6, NOON_S + shift, NOON_S + shift, 1) for shift in (5 * DAY_S, 0))
    features = habit_features(owned_by_one(later, now), reference_s=NOON_S)
    assert features.shape == (2, len(HABIT))
    assert features[0].tolist() == features[1].tolist()


def test_habits_tell_a_regular_purchase_that_is_due_from_one_that_is_not() -> None:
    weekly = (10**6, NOON_S - 7 * DAY_S, NOON_S - 70 * DAY_S, 10)
    just_bought = (10**6, NOON_S, NOON_S - 63 * DAY_S, 10)
    once = (10**6, NOON_S - 7 * DAY_S, NOON_S - 7 * DAY_S, 1)
    features = habit_features(owned_by_one(weekly, just_bought, once), reference_s=NOON_S)
    lateness, interval, again = (features[:, HABIT.index(name)] for name in ("lateness", "interval", "again"))
    assert lateness[0] == pytest.approx(0)
    assert lateness[1] == pytest.approx(math.log(8))
    assert interval[0] == pytest.approx(math.log(8))
    assert again.tolist() == [1, 1, 0]
    assert (lateness[2], interval[2]) == (0, 0)


def test_demand_is_the_logarithm_of_the_decayed_number_of_buyers() -> None:
    items = Vocabulary(["a", "b", "c", "d"])
    events = EventLog(
        ["u", "v", "w"],
        np.array([0, 1, 2], np.int32),
        ["a", "c"],
        np.array([0, 0, 1], np.int32),
        np.full(3, 10**6),
        np.array([NOON_S, NOON_S - 30 * DAY_S, NOON_S + DAY_S]),
    )
    demand = Buyers.of(events).demand(items, reference_s=NOON_S, half_lives_days=DEMAND_HALF_LIVES_DAYS)
    found = demand_features(demand)
    assert found.shape == (4, len(DEMAND))
    for column, half_life in enumerate((7, 30, 90)):
        assert found[:, column] == pytest.approx([math.log(2 + 0.5 ** (30 / half_life)), 0, 0, 0])


def test_no_weights_make_no_boosts_and_a_repeat_weight_lifts_frequency_alone() -> None:
    demand = np.ones((5, len(DEMAND)))
    assert BoostWeights().boosts(demand) is None
    lifted = BoostWeights().boosts(demand, repeat_weight=0.5)
    assert lifted is not None
    assert not lifted.item_bias.any()
    assert dict(zip(HABIT, lifted.habit.tolist(), strict=True)) == dict.fromkeys(HABIT, 0.0) | {"frequency_120d": 0.5}
    learned = BoostWeights(demand=(1.0, 2.0, -0.5), repeat_demand=(0.0, -1.0, 0.0), affinity=-0.3).boosts(demand)
    assert learned is not None
    assert learned.item_bias.tolist() == [2.5] * 5
    assert learned.repeat_bias.tolist() == [-1.0] * 5
    assert learned.affinity == -0.3


@given(
    st.lists(
        st.tuples(st.integers(1, 10**9), st.integers(-100, 3000), st.integers(0, 3000), st.integers(0, 500)),
        max_size=60,
    ),
    st.integers(0, 2**32),
)
@settings(deadline=None)  # the first call loads compiled code
def test_habits_weigh_the_features(entries: list[tuple[int, int, int, int]], seed: int) -> None:
    times = [
        (units, NOON_S - age * 43_200, NOON_S - (age + span) * 43_200, purchases)
        for units, age, span, purchases in entries
    ]
    owned = owned_by_one(*times)
    weights = np.random.default_rng(seed).normal(size=len(HABIT))
    found = habits(owned, reference_s=NOON_S, weights=weights)
    np.testing.assert_allclose(found, habit_features(owned, reference_s=NOON_S) @ weights, atol=1e-9)
