from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from recsys.data.history import Entry, History
from recsys.model.boosts import HABIT, Boosts
from recsys.model.factor_model import FactorModel
from recsys.recommend.user_lists import RankedList, refresh
from tests.builders import NOON_S, best_rows, dense_user_factors, item_ids, make_history, make_model

IDS = item_ids(40)


def independent_scores(model: FactorModel, owned: Mapping[str, float]) -> list[float]:
    confidences = {
        model.items.ids.index(item): 1 + model.alpha * math.log2(1 + quantity) for item, quantity in owned.items()
    }
    user_factors = dense_user_factors(model.item_factors, confidences, model.regularization)
    return [float(score) for score in model.item_factors.astype(np.float64) @ user_factors]


def random_histories(count: int, *, seed: int) -> list[dict[str, float]]:
    rng = np.random.default_rng(seed)
    return [
        {
            str(item): float(rng.choice([0.5, 1, 2, 30]))
            for item in rng.choice(IDS, rng.integers(1, 9), replace=False).tolist()
        }
        for _ in range(count)
    ]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("n", [1, 5, 100])
def test_lists_equal_an_independent_solution_and_a_full_sort(seed: int, n: int) -> None:
    model = make_model(seed=seed)
    owned = random_histories(8, seed=seed)
    hidden = {"item-0003", "item-0017"}
    for quantities, found in zip(
        owned, refresh([make_history(q) for q in owned], model, n=n, hidden=hidden), strict=True
    ):
        scores = independent_scores(model, quantities)
        excluded = {IDS.index(item) for item in quantities.keys() | hidden}
        expected = best_rows(scores, excluded, n)
        assert found.item_ids == tuple(IDS[row] for row in expected)
        assert found.scores == pytest.approx([scores[row] for row in expected], abs=1e-5)


def test_what_is_bought_together_is_recommended_together() -> None:
    tea, coffee = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    base = make_model(4, 2)
    factors = np.array([tea, 0.9 * tea, 0.9 * coffee, coffee], dtype=np.float32)
    gram = (factors.T @ factors).astype(np.float32)
    model = FactorModel("v", base.items, factors, gram, alpha=1.0, regularization=1.0)
    tea_list, coffee_list = refresh([make_history({IDS[0]: 1.0}), make_history({IDS[3]: 1.0})], model, n=1)
    assert tea_list.item_ids == (IDS[1],)
    assert coffee_list.item_ids == (IDS[2],)


def test_owned_and_hidden_items_are_in_no_list() -> None:
    owned = random_histories(30, seed=9)
    hidden = frozenset(IDS[::3])
    for quantities, found in zip(
        owned, refresh([make_history(q) for q in owned], make_model(), n=40, hidden=hidden), strict=True
    ):
        assert set(found.item_ids) == set(IDS) - quantities.keys() - hidden


def test_items_unknown_to_the_model_change_nothing() -> None:
    model = make_model()
    known = {IDS[1]: 2.0, IDS[7]: 1.0}
    plain, mixed = refresh(
        [make_history(known), make_history({"item-9999": 5.0, **known, "": 1.0, "zzz": 7.0})], model, n=10
    )
    assert plain == mixed
    assert list(refresh([make_history(known)], model, n=10, hidden=["unknown", "zzz"])) == [plain]


@pytest.mark.parametrize("quantities", [{}, {"unknown": 3.0}, {IDS[0]: 0.0}, {IDS[0]: -2.0}, {IDS[0]: -1.0, "x": 1.0}])
def test_a_user_who_owns_nothing_that_the_model_knows_gets_an_empty_list(quantities: dict[str, float]) -> None:
    someone = make_history({IDS[3]: 1.0})
    lists = refresh([someone, make_history(quantities), someone], make_model(), n=5)
    assert lists[1] == RankedList()
    assert len(lists[1]) == 0
    assert lists[0] == lists[2]
    assert len(lists[0]) == 5


def test_a_returned_item_is_recommendable_again_and_no_longer_counts() -> None:
    model = make_model()
    kept, with_return = refresh(
        [make_history({IDS[3]: 1.0}), make_history({IDS[3]: 1.0, IDS[5]: 0.0, IDS[6]: -1.0})], model, n=40
    )
    assert kept == with_return
    assert {IDS[5], IDS[6]} <= set(with_return.item_ids)


def test_the_batch_around_a_user_does_not_change_the_list() -> None:
    model = make_model()
    histories = [make_history(quantities) for quantities in random_histories(40, seed=3)]
    together = refresh(histories, model, n=10)
    backwards = refresh(histories[::-1], model, n=10)[::-1]
    for history, in_batch, reversed_ in zip(histories, together, backwards, strict=True):
        (alone,) = refresh([history], model, n=10)
        for other in (in_batch, reversed_):
            assert other.item_ids == alone.item_ids
            assert other.scores == pytest.approx(alone.scores, abs=1e-5)


def test_the_order_of_a_history_does_not_change_the_list() -> None:
    quantities = random_histories(1, seed=4)[0] | {IDS[0]: 1.0, "unknown": 2.0}
    backwards = dict(reversed(quantities.items()))
    one, other = refresh([make_history(quantities), make_history(backwards)], make_model(), n=10)
    assert one == other


def test_no_item_is_left_when_all_are_owned_or_hidden() -> None:
    history = make_history(dict.fromkeys(IDS[:20], 1.0))
    assert list(refresh([history], make_model(), n=5, hidden=IDS[20:])) == [RankedList()]


def with_boosts(model: FactorModel, *, seed: int) -> FactorModel:
    rng = np.random.default_rng(seed)
    n_items = len(model.items)
    return replace(
        model,
        half_life_days=40.0,
        reference_s=NOON_S,
        boosts=Boosts(
            item_bias=rng.normal(0, 0.3, n_items).astype(np.float32),
            repeat_bias=rng.normal(0, 0.3, n_items).astype(np.float32),
            affinity=-0.4,
            habit=rng.normal(0, 0.2, len(HABIT)),
        ),
    )


def habit_by_hand(entry: Entry) -> list[float]:
    age = max(0, NOON_S - entry.newest_s) / 86_400
    interval = (entry.newest_s - entry.first_s) / 86_400 / (entry.purchases - 1) if entry.purchases > 1 else 0.0
    times = [age + place * interval for place in range(max(1, entry.purchases))]
    again = entry.purchases > 1
    return [
        1.0,
        math.log(1 + sum(0.5 ** (time / 30) for time in times)),
        math.log(1 + sum(0.5 ** (time / 120) for time in times)),
        math.log(1 + entry.purchases),
        math.log(1 + age),
        float(again),
        math.log(1 + interval) if again else 0.0,
        abs(math.log((age + 1) / (interval + 1))) if again else 0.0,
    ]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("n", [3, 20, 40])
@pytest.mark.parametrize("include_purchased", [False, True])
def test_boosted_lists_equal_an_independent_solution(seed: int, n: int, include_purchased: bool) -> None:
    model, rng = with_boosts(make_model(seed=seed), seed=seed), np.random.default_rng(seed)
    hidden = {"item-0003", "item-0017"}
    histories = [
        {
            str(item): Entry(
                int(rng.integers(1, 9)) * 500_000,
                newest := NOON_S - int(rng.integers(-9, 90)) * 86_400,
                newest - int(rng.integers(0, 99)) * 86_400,
                int(rng.integers(0, 6)),
            )
            for item in rng.choice(IDS, rng.integers(1, 15), replace=False).tolist()
        }
        for _ in range(8)
    ]
    found = refresh(
        [History.of(entries) for entries in histories], model, n=n, hidden=hidden, include_purchased=include_purchased
    )
    boosts = model.boosts
    assert boosts is not None
    for entries, listed in zip(histories, found, strict=True):
        strengths = {
            item: math.log2(1 + entry.units / 1e6) * 0.5 ** (max(0, NOON_S - entry.newest_s) / 86_400 / 40)
            for item, entry in entries.items()
        }
        confidences = {IDS.index(item): 1 + model.alpha * strength for item, strength in strengths.items()}
        user = dense_user_factors(model.item_factors, confidences, model.regularization)
        affinities = model.item_factors.astype(np.float64) @ user
        scores = affinities + boosts.item_bias
        for item, entry in entries.items():
            row = IDS.index(item)
            scores[row] += boosts.affinity * affinities[row] + boosts.repeat_bias[row]
            scores[row] += float(np.dot(boosts.habit, habit_by_hand(entry)))
        excluded = {IDS.index(item) for item in (hidden if include_purchased else hidden | entries.keys())}
        expected = best_rows(scores.tolist(), excluded, n)
        assert listed.item_ids == tuple(IDS[row] for row in expected)
        assert listed.scores == pytest.approx([scores[row] for row in expected], abs=1e-5)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("n", [1, 4, 30])
def test_what_to_buy_again_is_ranked_by_habits(seed: int, n: int) -> None:
    plain, rng = make_model(seed=seed), np.random.default_rng(seed)
    learned = with_boosts(plain, seed=seed)
    assert learned.boosts is not None
    histories = [
        {
            str(item): Entry(
                10**6, NOON_S - int(rng.integers(60)) * 86_400, NOON_S - 99 * 86_400, int(rng.integers(1, 6))
            )
            for item in rng.choice(IDS, rng.integers(0, 15), replace=False).tolist()
        }
        for _ in range(8)
    ]
    usual = [{"frequency_120d": 1.0, "lateness": -0.2}.get(name, 0.0) for name in HABIT]
    for model, weights in ((replace(plain, reference_s=NOON_S), usual), (learned, learned.boosts.habit.tolist())):
        lists = refresh([History.of(entries) for entries in histories], model, n=3, hidden={IDS[5]}, again_n=n)
        assert lists.again_lists is not None
        for entries, found in zip(histories, lists.again_lists, strict=True):
            scores = {item: float(np.dot(weights, habit_by_hand(entry))) for item, entry in entries.items()}
            expected = sorted(scores.keys() - {IDS[5]}, key=lambda item: (-scores[item], item))[:n]
            assert list(found.item_ids) == expected
            assert found.scores == pytest.approx([scores[item] for item in expected], abs=1e-5)


def test_no_lists_of_what_to_buy_again_are_made_unless_asked_for() -> None:
    assert refresh([make_history({IDS[0]: 1.0})], make_model(), n=3).again_lists is None


def test_owned_items_compete_by_their_affinity_where_nothing_was_learned() -> None:
    model = make_model()
    (listed,) = refresh([make_history({IDS[3]: 2.0})], model, n=40, include_purchased=True)
    scores = independent_scores(model, {IDS[3]: 2.0})
    assert listed.item_ids == tuple(IDS[row] for row in best_rows(scores, set(), 40))


def test_no_histories_give_no_lists() -> None:
    assert list(refresh([], make_model(), n=5)) == []


def test_a_list_holds_plain_strings_and_numbers() -> None:
    (found,) = refresh([make_history({IDS[0]: 1.0})], make_model(), n=3)
    assert [type(item) for item in found.item_ids] == [str] * 3
    assert [type(score) for score in found.scores] == [float] * 3
