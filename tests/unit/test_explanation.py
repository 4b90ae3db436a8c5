from __future__ import annotations

import numpy as np
import pytest

from recsys.cli.explain import sentences
from recsys.data.history import Entry, History
from recsys.data.vocabulary import Vocabulary
from recsys.model.boosts import HABIT, Boosts
from recsys.model.factor_model import FactorModel, gram
from recsys.recommend.explain import Explanation, explain
from recsys.recommend.user_lists import refresh

N_ITEMS, DAY_S, NOON_S = 40, 86_400, 1_795_000_000


def model(*, boosted: bool) -> FactorModel:
    rng = np.random.default_rng(3)
    factors = rng.normal(size=(N_ITEMS, 6)).astype(np.float32)
    boosts = Boosts(
        rng.normal(size=N_ITEMS).astype(np.float32),
        rng.normal(size=N_ITEMS).astype(np.float32),
        0.7,
        rng.normal(size=len(HABIT)),
    )
    return FactorModel(
        "v", Vocabulary([f"item-{row:02d}" for row in range(N_ITEMS)]), factors, gram(factors), 2.0, 5.0, 30.0, NOON_S,
        boosts if boosted else None,
    )  # fmt: skip


def history(seed: int) -> History:
    rng = np.random.default_rng(seed)
    rows = rng.choice(N_ITEMS, rng.integers(1, 12), replace=False)
    entries = {
        f"item-{row:02d}": Entry(
            int(rng.integers(1, 5)) * 10**6, NOON_S - int(rng.integers(100)) * DAY_S, NOON_S - 200 * DAY_S, 3
        )
        for row in rows.tolist()
    }
    return History.of(
        {**entries, "not in the model": Entry.of_event(10**6, NOON_S), "given back": Entry.of_event(-1, 0)}
    )


@pytest.mark.parametrize("boosted", [False, True])
@pytest.mark.parametrize("include_purchased", [False, True])
def test_parts_sum_to_the_score_that_lists_have(boosted: bool, include_purchased: bool) -> None:
    fitted = model(boosted=boosted)
    explained = 0
    for seed in range(25):
        own = history(seed)
        (ranked,) = refresh([own], fitted, n=N_ITEMS, include_purchased=include_purchased)
        for item, score in zip(ranked.item_ids, ranked.scores, strict=True):
            why = explain(own, fitted, item, include_purchased=include_purchased)
            assert why.score == pytest.approx(score, abs=1e-4)
            assert sum(part for _, part in why.contributions) + why.demand + why.habit == pytest.approx(why.score)
            assert why.owned == (own.entries.get(item, Entry.of_event(0, 0)).units > 0)
            explained += 1
    assert explained > 500


def test_contributions_are_of_what_is_owned_and_known_most_first() -> None:
    own = history(1)
    why = explain(own, model(boosted=True), "item-00", include_purchased=False)
    owned = {item for item, entry in own.entries.items() if entry.units > 0} - {"not in the model"}
    assert {item for item, _ in why.contributions} == owned
    parts = [part for _, part in why.contributions]
    assert parts == sorted(parts, reverse=True)


def test_what_is_left_out_is_still_in_the_sum() -> None:
    why = explain(history(1), model(boosted=True), "item-00", include_purchased=False)
    n_parts = len(why.contributions)
    assert n_parts > 3
    for top in (1, 3, n_parts, 1000):
        fewer = why.largest(top)
        assert fewer.contributions == why.contributions[:top]
        assert fewer.other_items == max(0, n_parts - top)
        assert sum(part for _, part in fewer.contributions) + fewer.others == pytest.approx(
            sum(part for _, part in why.contributions)
        )
        assert (fewer.score, fewer.demand, fewer.habit, fewer.owned) == (why.score, why.demand, why.habit, why.owned)
    assert why.largest(n_parts) == why
    assert why.largest(3).largest(1).others == pytest.approx(why.largest(1).others)


def test_more_of_an_item_contributes_more() -> None:
    fitted = model(boosted=False)

    def contribution(quantity: int) -> float:
        entries = {"item-01": Entry.of_event(quantity * 10**6, NOON_S), "item-02": Entry.of_event(10**6, NOON_S)}
        return dict(explain(History.of(entries), fitted, "item-01", include_purchased=True).contributions)["item-01"]

    assert contribution(1) < contribution(5) < contribution(50)


def told(*parts: tuple[str, float], demand: float = 0.0, habit: float = 0.0) -> list[str]:
    score = sum(part for _, part in parts) + demand + habit
    return sentences(
        "42", "tea", Explanation(score, parts, demand, habit, owned=False), {"tea": "Green tea", "pot": "Pot"}
    )


def test_sentences_name_the_biggest_reasons_first_whatever_they_are() -> None:
    assert told(("pot", 0.2), ("mug", -0.1), demand=0.5) == [
        "Green tea (tea) scores 0.6000 for user 42: it is in demand now (+0.5000), and the user owns Pot (+0.2000).",
        "Against it: the user owns mug (-0.1000).",
    ]
    assert told(("tea", 0.2), habit=0.3) == [
        "Green tea (tea) scores 0.5000 for user 42: the user buys it again and again (+0.3000), and the user owns it "
        "already (+0.2000)."
    ]
    (many,) = told(*((f"item-{place}", 1.0 - place / 10) for place in range(5)))
    assert many.endswith("the user owns item-1 (+0.9000), the user owns item-2 (+0.8000), and 2 smaller reasons.")
    assert told(demand=-0.2, habit=-0.3) == [
        "Green tea (tea) scores -0.5000 for user 42: nothing speaks for it.",
        "Against it: the user is not due to buy it again (-0.3000), and it is in little demand now (-0.2000).",
    ]
    assert told() == ["Green tea (tea) scores 0.0000 for user 42: nothing speaks for it."]


def test_nothing_owned_leaves_what_demand_says() -> None:
    fitted = model(boosted=True)
    assert fitted.boosts is not None
    why = explain(History(), fitted, "item-05", include_purchased=True)
    assert (why.contributions, why.habit) == ((), 0.0)
    assert why.score == why.demand == pytest.approx(fitted.boosts.item_bias[5])


def test_an_item_that_the_model_does_not_know_has_no_score() -> None:
    with pytest.raises(KeyError):
        explain(History(), model(boosted=False), "item-99", include_purchased=False)
