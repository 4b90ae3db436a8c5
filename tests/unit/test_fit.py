from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from recsys.data.event_log import EventLog
from recsys.data.history import Entry, History
from recsys.errors import NotEnoughData
from recsys.evaluation.baselines import of_model
from recsys.evaluation.metrics import user_metrics
from recsys.evaluation.split import Split, split_by_time
from recsys.model.boosts import HABIT, BoostWeights
from recsys.model.factor_model import FactorModel
from recsys.recommend.user_lists import refresh
from recsys.training import fit
from recsys.training.fit import Fitted, fit_model
from recsys.training.parameters import Parameters
from tests.builders import NOON_S
from tests.shops import DAY_S, habitual_shop

PLAIN = Parameters(
    factors=8, alpha=2.0, regularization=5.0, half_life_days=0, repeat_weight=0, iterations=8, seed=0,
    boost_window_days=0,
)  # fmt: skip
LINEAR = replace(PLAIN, boost_window_days=20.0)
CUT_S = NOON_S - 20 * DAY_S


def fitted_before_the_cut(shop: EventLog, parameters: Parameters) -> Fitted:
    return fit_model(shop.where(shop.seconds < CUT_S), parameters, reference_s=CUT_S)


def quality(shop: EventLog, fitted: Fitted, *, include_purchased: bool) -> float:
    split = split_by_time(shop, cut_s=CUT_S)
    lists = of_model(fitted.model, split.owned, n=10, include_purchased=include_purchased)
    return float(user_metrics(lists, split.everything if include_purchased else split.new, n=10).ndcg.mean())


def test_fashions_and_habits_are_learned() -> None:
    new, everything = np.zeros((3, 2)), np.zeros((3, 2))
    for seed in range(3):
        shop = habitual_shop(seed=seed)
        plain, linear = fitted_before_the_cut(shop, PLAIN), fitted_before_the_cut(shop, LINEAR)
        assert not linear.weights.are_zero
        np.testing.assert_array_equal(plain.model.item_factors, linear.model.item_factors)
        new[seed] = [quality(shop, fitted, include_purchased=False) for fitted in (plain, linear)]
        everything[seed] = [quality(shop, fitted, include_purchased=True) for fitted in (plain, linear)]
    assert new.mean(axis=0)[1] > 1.03 * new.mean(axis=0)[0]
    assert (everything[:, 1] > 2 * everything[:, 0]).all()


def test_learned_weights_are_applied_to_the_model_of_everything() -> None:
    shop = habitual_shop(seed=1)
    earlier = fitted_before_the_cut(shop, LINEAR)
    later = fit_model(shop, LINEAR, reference_s=NOON_S, weights=earlier.weights)
    assert later.weights is earlier.weights
    assert later.counts["events"] == len(shop) > earlier.counts["events"]
    assert later.model.boosts is not None
    assert earlier.model.boosts is not None
    assert later.model.boosts.habit.tolist() == earlier.model.boosts.habit.tolist()
    assert later.model.boosts.item_bias.tolist() != earlier.model.boosts.item_bias.tolist()  # demand moves on


def test_what_is_bought_in_the_window_does_not_reach_the_model_that_weights_are_learned_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shop = habitual_shop(seed=2, n_users=120)
    in_window = shop.seconds >= NOON_S - round(LINEAR.boost_window_days * DAY_S)
    moved = replace(shop, item_codes=np.where(in_window, (shop.item_codes + 7) % len(shop.item_ids), shop.item_codes))
    given: list[tuple[FactorModel, NDArray[np.float64]]] = []

    def learn(_: Split, model: FactorModel, demand: NDArray[np.float64], **_others: Any) -> BoostWeights:
        given.append((model, demand))
        return BoostWeights()

    monkeypatch.setattr(fit, "learn", learn)
    for events in (shop, moved):
        fit_model(events, LINEAR, reference_s=NOON_S)
    (model, demand), (of_moved, demand_of_moved) = given
    np.testing.assert_allclose(of_moved.item_factors, model.item_factors, atol=1e-5)
    np.testing.assert_array_equal(demand_of_moved, demand)
    assert in_window.any()


@pytest.mark.parametrize("parameters", [PLAIN, LINEAR])
def test_too_little_to_learn_from_is_plain_als(parameters: Parameters) -> None:
    shop = habitual_shop(seed=0, n_users=5)
    fitted = fit_model(shop, parameters, reference_s=NOON_S)
    assert fitted.weights == BoostWeights()
    assert fitted.model.boosts is None


def test_one_user_with_one_item_makes_a_model() -> None:
    log = EventLog(["u"], np.zeros(1, np.int32), ["a"], np.zeros(1, np.int32), np.array([10**6]), np.array([NOON_S]))
    fitted = fit_model(log, LINEAR, reference_s=NOON_S)
    assert list(fitted.model.items.ids) == ["a"]
    assert fitted.model.boosts is None


def test_nothing_owned_is_not_enough() -> None:
    log = EventLog(["u"], np.zeros(1, np.int32), ["a"], np.zeros(1, np.int32), np.array([-(10**6)]), np.array([NOON_S]))
    for events in (log, log.where(np.zeros(1, np.bool_))):
        with pytest.raises(NotEnoughData):
            fit_model(events, LINEAR, reference_s=NOON_S)


def test_progress_is_told_of_every_iteration() -> None:
    calls: list[None] = []
    fit_model(habitual_shop(seed=0), LINEAR, reference_s=NOON_S, on_iteration=lambda: calls.append(None))
    assert len(calls) == 2 * LINEAR.iterations


def test_a_list_follows_from_history_and_model_alone_whatever_the_time() -> None:
    parameters = replace(LINEAR, half_life_days=30.0)
    model = fitted_before_the_cut(habitual_shop(seed=3), parameters).model
    assert model.reference_s == CUT_S
    now, later = (
        refresh([History.of({"item-001": Entry.of_event(10**6, second)})], model, n=10, include_purchased=True)
        for second in (CUT_S, CUT_S + 400 * DAY_S)
    )
    assert list(now) == list(later)  # what is newer than the model has age 0
    (earlier,) = refresh([History.of({"item-001": Entry.of_event(10**6, CUT_S - 90 * DAY_S)})], model, n=10)
    assert earlier != now[0]


def test_a_repeat_weight_moves_owned_items_up() -> None:
    shop = habitual_shop(seed=4)
    plain, lifted = (fitted_before_the_cut(shop, replace(PLAIN, repeat_weight=weight)) for weight in (0.0, 5.0))
    split = split_by_time(shop, cut_s=CUT_S)
    owned = [
        set(split.owned.rows[first:last].tolist())
        for first, last in zip(split.owned.starts[:-1].tolist(), split.owned.starts[1:].tolist(), strict=True)
    ]

    def listed(fitted: Fitted) -> int:
        lists = of_model(fitted.model, split.owned, n=10, include_purchased=True)
        return sum(len(rows & set(found)) for rows, found in zip(owned, lists.tolist(), strict=True))

    assert listed(lifted) > listed(plain)
    assert lifted.model.boosts is not None
    assert lifted.model.boosts.habit[HABIT.index("frequency_120d")] == 5.0


@pytest.mark.parametrize("include_purchased", [False, True])
def test_lists_for_evaluation_are_those_that_are_published(include_purchased: bool) -> None:
    shop = habitual_shop(seed=5, n_users=200)
    fitted = fitted_before_the_cut(shop, LINEAR)
    assert fitted.model.boosts is not None
    owned = shop.where(shop.seconds < CUT_S).interactions().owned
    lists = of_model(fitted.model, owned, n=10, include_purchased=include_purchased, batch=64)
    ids = fitted.model.items.ids
    for user, row_ids in enumerate(lists.tolist()):
        places = range(owned.starts[user], owned.starts[user + 1])
        history = History.of({ids[owned.rows[at]]: Entry(*owned.entries[at].tolist()) for at in places})
        (published,) = refresh([history], fitted.model, n=10, include_purchased=include_purchased)
        assert [ids[row] for row in row_ids] == list(published.item_ids)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("within_s", [600, 20 * DAY_S])
def test_weights_stay_bounded_where_purchases_tell_nothing(seed: int, within_s: int) -> None:
    shop, rng = habitual_shop(seed=6), np.random.default_rng(seed)
    earlier, later = (at - rng.integers(1, within_s, len(shop)) for at in (CUT_S - 25 * DAY_S, CUT_S))
    aimless = replace(
        shop,
        item_codes=rng.integers(0, 40, len(shop)).astype(np.int32),
        seconds=np.where(rng.random(len(shop)) < 0.5, earlier, later),
    )
    weights = fitted_before_the_cut(aimless, LINEAR).weights
    # Of scores up to here float32 still tells differences of 1e-4.
    assert max(map(abs, (*weights.demand, weights.affinity, *weights.repeat_demand, *weights.habit))) < 1000
