from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import pytest

from recsys.data.event_log import EventLog
from recsys.data.vocabulary import Vocabulary
from recsys.errors import NotEnoughData
from recsys.evaluation.baselines import lists_of
from recsys.model.influence import BOUNDED, UNBOUNDED, Bounds, Buyers
from recsys.recommend.item_lists import popular_items
from recsys.training.fit import fit_model, supported
from recsys.training.parameters import Parameters
from tests.builders import NOON_S
from tests.shops import DAY_S, N_ITEMS, habitual_shop

PARAMETERS = Parameters(
    factors=16, alpha=1.0, regularization=10.0, half_life_days=0, repeat_weight=0, iterations=8, seed=0,
    boost_window_days=20,
)  # fmt: skip
PUSHED = "pushed"
Row = tuple[str, str, float]
"""User, item, age in days."""


def log_of(rows: Sequence[Row], *, days: Sequence[int] | None = None) -> EventLog:
    users, items = list(dict.fromkeys(user for user, _, _ in rows)), list(dict.fromkeys(item for _, item, _ in rows))
    return EventLog(
        users,
        np.array([users.index(row[0]) for row in rows], np.int32),
        items,
        np.array([items.index(row[1]) for row in rows], np.int32),
        np.full(len(rows), 10**6),
        np.array([NOON_S - round(age * DAY_S) for _, _, age in rows]),
        None if days is None else np.array(days, np.int32),
    )


def regulars(n: int = 20, days: int = 8) -> list[Row]:
    return [(f"regular-{user}", f"item-{user % 3}", float(day)) for user in range(n) for day in range(days)]


def demand(events: EventLog, item: str, *, half_life: float = 30.0, bounds: Bounds = BOUNDED) -> float:
    found = Buyers.of(events, bounds).demand(
        Vocabulary(sorted(events.item_ids)), reference_s=NOON_S, half_lives_days=(half_life,)
    )
    return float(found[sorted(events.item_ids).index(item), 0])


def weights(events: EventLog) -> dict[str, float]:
    users = Vocabulary(sorted(events.user_ids))
    found = Buyers.of(events).weights(users, np.ones(len(users), np.int64))
    return dict(zip(users.ids, found.tolist(), strict=True))


def test_a_thousand_purchases_by_one_user_are_five() -> None:
    bot = [("bot", PUSHED, 0.001 * purchase + day) for purchase in range(100) for day in range(10)]
    events = log_of([*regulars(), *bot])
    assert demand(events, PUSHED) == BOUNDED.purchases == 5.0
    assert demand(events, PUSHED, bounds=UNBOUNDED) > 850


def test_the_purchases_of_a_day_are_one() -> None:
    bot = [("bot", PUSHED, 0.0001 * purchase) for purchase in range(100)]
    assert demand(log_of([*regulars(), *bot]), PUSHED) == pytest.approx(1 / 5)


def test_a_purchase_fades() -> None:
    assert demand(log_of([*regulars(), ("regular-1", PUSHED, 30.0)]), PUSHED) == pytest.approx(0.5)
    again = log_of([*regulars(), ("regular-1", PUSHED, 30.0), ("regular-1", PUSHED, 60.0)])
    assert demand(again, PUSHED) == pytest.approx(0.75)


def test_a_young_user_weighs_less_than_a_regular_one() -> None:
    found = weights(log_of([*regulars(), ("new", "item-0", 0), ("new", "item-1", 0.01), ("two", "item-0", 1.1)]))
    assert found["regular-3"] == 1.0
    assert found["new"] == pytest.approx(1 / 5)
    assert weights(log_of([*regulars(), *(("u", "item-0", float(day)) for day in range(3))]))["u"] == pytest.approx(0.6)


def test_in_a_new_shop_everyone_weighs_the_same() -> None:
    assert set(weights(log_of([(f"u{user}", "a", 0) for user in range(9)])).values()) == {1.0}


def test_a_flood_of_young_users_with_one_item_does_not_change_what_is_usual() -> None:
    baskets = [(f"r{user}", f"item-{item}", float(item % 8)) for user in range(20) for item in range(40)]
    bots = [(f"bot-{bot}", PUSHED, 0) for bot in range(500)]
    assert weights(log_of([*baskets, *bots]))["bot-7"] == pytest.approx(1 / 5)


def test_days_count_as_they_are_known_and_not_as_events_say() -> None:
    rows = [*regulars(), *(("bot", PUSHED, float(day)) for day in range(30))]
    today = NOON_S // DAY_S
    known = [today - int(age) for user, _, age in rows if user != "bot"] + [today] * 30
    assert weights(log_of(rows))["bot"] == 1.0
    assert weights(log_of(rows, days=known))["bot"] == pytest.approx(1 / 5)


def test_what_one_user_adds_in_all_has_a_bound() -> None:
    many = [("bot", f"invented-{item}", float(item % 10)) for item in range(5_000)]
    events = log_of([*regulars(), *many])
    items = Vocabulary(sorted(events.item_ids))
    invented = np.array([item.startswith("invented") for item in items.ids])
    bounded, unbounded = (
        Buyers.of(events, bounds).demand(items, reference_s=NOON_S, half_lives_days=(30.0,))[invented].sum()
        for bounds in (BOUNDED, UNBOUNDED)
    )
    assert bounded == pytest.approx(BOUNDED.items)
    assert unbounded > 4_000
    interactions = events.interactions()
    found = Buyers.of(events).weights(interactions.users, interactions.owned.sizes)
    assert found[interactions.users.rows["bot"]] == pytest.approx(BOUNDED.items / 5_000)


def test_purchases_in_the_future_are_in_no_demand() -> None:
    assert demand(log_of([*regulars(), *((f"u{user}", PUSHED, -2_900_000.0) for user in range(60))]), PUSHED) == 0


def test_an_empty_log_has_no_buyers() -> None:
    nothing = log_of(regulars()).where(np.zeros(160, np.bool_))
    found = Buyers.of(nothing).demand(Vocabulary(["a"]), reference_s=NOON_S, half_lives_days=(7.0, 30.0))
    assert found.tolist() == [[0.0, 0.0]]


SHOP: Final = habitual_shop(seed=0, n_users=600)
LEAST_BOUGHT: Final = SHOP.item_ids[int(np.argmin(np.bincount(SHOP.item_codes)))]


def shop_with(bots: int, purchases: int) -> EventLog:
    """Return a shop in which bots buy the item that is bought least, all on the last day."""
    rng, n = np.random.default_rng(0), bots * purchases
    pushed = EventLog(
        [f"bot-{bot}" for bot in range(bots)],
        np.repeat(np.arange(bots), purchases).astype(np.int32),
        [LEAST_BOUGHT],
        np.zeros(n, np.int32),
        np.full(n, 10**6),
        NOON_S - rng.integers(1, DAY_S, n),
    )
    return SHOP.joined(pushed)


def place_and_share(events: EventLog, bounds: Bounds) -> tuple[int, float]:
    """Return the item's place in the popular list, and the share of customers' lists with it in the first 10."""
    fitted = fit_model(events, PARAMETERS, reference_s=NOON_S, bounds=bounds)
    items = fitted.model.items
    place = popular_items(items, fitted.popularity, n=len(items)).item_ids.index(LEAST_BOUGHT) + 1
    interactions = events.interactions()
    customers = np.array([not user.startswith("bot") for user in interactions.users.ids])
    lists = lists_of(fitted.model, interactions.items, interactions.owned, n=10, include_purchased=False)[customers]
    return place, float((lists == items.rows[LEAST_BOUGHT]).any(axis=1).mean())


@pytest.mark.parametrize(("bots", "purchases", "most_reached"), [(1, 10_000, 0.0), (3, 100, 0.15)])
def test_bots_do_not_lift_an_item_into_the_lists_of_others(bots: int, purchases: int, most_reached: float) -> None:
    _, honest = place_and_share(SHOP, BOUNDED)
    place, reached = place_and_share(shop_with(bots, purchases), BOUNDED)
    place_unbounded, reached_unbounded = place_and_share(shop_with(bots, purchases), UNBOUNDED)
    assert place_unbounded == 1, "else there is nothing to bound"
    assert place > 50
    # All items of this shop are in about equal demand, so that little is news: a hundred bots among thousands of
    # customers reach nobody (`benchmarks.poisoning`).
    assert reached - honest <= most_reached
    assert reached_unbounded - honest > 0.5


def test_items_that_one_user_invents_stay_out_of_the_model() -> None:
    rng = np.random.default_rng(1)
    shop = habitual_shop(seed=0, n_users=1_000)
    n = 3_000
    invented = EventLog(
        [f"bot-{bot}" for bot in range(3)],
        rng.integers(0, 3, n).astype(np.int32),
        [f"invented-{item}" for item in range(n)],
        np.arange(n, dtype=np.int32),
        np.full(n, 10**6),
        NOON_S - rng.integers(1, DAY_S, n),
    )
    events = shop.joined(invented)
    buyers, interactions = Buyers.of(events), events.interactions()
    assert len(supported(interactions, buyers, 0.0).items) == N_ITEMS + n
    kept = supported(interactions, buyers, 1.0)
    assert len(kept.items) == N_ITEMS
    assert not any(user.startswith("bot") for user in kept.users.ids)
    fitted = fit_model(events, replace(PARAMETERS, iterations=2), reference_s=NOON_S)
    assert fitted.counts["items"] == len(fitted.model.items) == N_ITEMS
    assert fitted.buyers.sum() == fitted.counts["pairs"] == len(kept.owned.rows)


@pytest.mark.parametrize(
    ("accounts", "items_each", "alike", "entered"),
    [
        pytest.param(4, 40, 4, 0, id="too few for any"),
        pytest.param(5, 40, 5, 40, id="just enough"),
        pytest.param(100, 200, 5, 4_000, id="the most that a hundred can: forty each"),
        pytest.param(100, 1_000, 5, 0, id="not by buying more: what each supports is shared out"),
        pytest.param(24, 1_000, 24, 0, id="nor all the same ones"),
    ],
)
def test_what_young_accounts_bring_in_is_bounded_by_how_many_they_are(
    accounts: int, items_each: int, alike: int, entered: int
) -> None:
    """``alike`` accounts each invent the same items, the next ones others."""
    bots = np.repeat(np.arange(accounts), items_each)
    codes = bots // alike * items_each + np.tile(np.arange(items_each), accounts)
    invented = EventLog(
        [f"bot-{bot}" for bot in range(accounts)],
        bots.astype(np.int32),
        [f"invented-{item}" for item in range(int(codes.max()) + 1)],
        codes.astype(np.int32),
        np.full(len(bots), 10**6),
        np.full(len(bots), NOON_S - 60),
    )
    events = habitual_shop(seed=0, n_users=1_000).joined(invented)
    kept = supported(events.interactions(), Buyers.of(events), 1.0)
    assert len(kept.items) == N_ITEMS + entered


def test_a_new_item_enters_with_its_first_regular_buyer() -> None:
    events = habitual_shop(seed=0, n_users=1_000).joined(log_of([("user-7", "new", 0)]))
    assert "new" in supported(events.interactions(), Buyers.of(events), 1.0).items.rows


def test_an_account_that_buys_more_than_all_others_does_not_change_what_is_usual() -> None:
    baskets = [(f"r{user}", f"item-{item}", float(item % 8)) for user in range(30) for item in range(40)]
    bot = [("bot", f"invented-{item}", 0.0) for item in range(5_000)]
    assert weights(log_of([*baskets, *bot]))["bot"] == pytest.approx(1 / 5)


def test_in_a_small_shop_every_item_enters() -> None:
    events = log_of([("u", "a", 0), ("v", "b", 0), *regulars(5)])
    interactions = events.interactions()
    assert supported(interactions, Buyers.of(events), 1.0) is interactions


def test_that_no_item_has_enough_buyers_is_said() -> None:
    events = log_of([(f"u{user}", f"i{user}", 0) for user in range(1_200)])
    with pytest.raises(
        NotEnoughData, match=r"none of 1,200 items is bought by 2 regular customers, or more young ones; lower RECSYS_M"
    ):
        fit_model(events, replace(PARAMETERS, min_buyers=2.0), reference_s=NOON_S)
