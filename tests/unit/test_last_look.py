from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from recsys.data.event_log import EventLog
from recsys.model.boosts import Boosts
from recsys.training.engine import InMemoryEngine
from recsys.training.fit import fit_model
from recsys.training.parameters import Parameters
from tests.builders import NOON_S
from tests.shops import DAY_S, N_ITEMS, habitual_shop
from trainer.last_look import KNOWN_AS_POPULAR, LEAST_USERS, Shown, change, reasons_against

PARAMETERS = Parameters(
    factors=16, alpha=1.0, regularization=10.0, half_life_days=0, repeat_weight=0, iterations=8, seed=0,
    boost_window_days=20,
)  # fmt: skip


@cache
def shop(n_users: int = 300) -> EventLog:
    return habitual_shop(seed=0, n_users=n_users)


@cache
def shown_until(days_ago: int, n_users: int = 300, seed: int = 0) -> Shown:
    reference_s = NOON_S - days_ago * DAY_S
    events = shop(n_users)
    known = events.where(events.seconds <= reference_s)
    fitted = fit_model(known, replace(PARAMETERS, seed=seed), reference_s=reference_s)
    return Shown(fitted.model, fitted.popularity)


def reasons(
    before: Shown,
    after: Shown,
    *,
    n_users: int = 300,
    include_purchased: bool = False,
    hidden: Collection[str] = frozenset(),
) -> list[str]:
    sample = InMemoryEngine(shop(n_users)).sample(200, seed=0)
    found = change(before, after, sample, include_purchased=include_purchased, hidden=hidden)
    return reasons_against(found, before, after)


def lifted(shown: Shown, row: int) -> Shown:
    """Return a model that lists one item first, whoever asks."""
    boosts = shown.model.boosts
    assert boosts is not None
    bias = boosts.item_bias.copy()
    bias[row] += 100
    return replace(shown, model=replace(shown.model, boosts=replace(boosts, item_bias=bias), stored_index=None))


def unpopular_row(shown: Shown) -> int:
    return int(np.argsort(shown.popularity)[0])


@pytest.mark.parametrize("include_purchased", [False, True])
@pytest.mark.parametrize("days_ago", [1, 7, 30])
def test_honest_rounds_pass(days_ago: int, include_purchased: bool) -> None:
    assert reasons(shown_until(days_ago), shown_until(0), include_purchased=include_purchased) == []


def test_other_random_starts_pass() -> None:
    assert reasons(shown_until(0), shown_until(0, seed=9)) == []


@pytest.mark.parametrize("include_purchased", [False, True])
def test_an_item_that_fills_the_lists_is_refused_by_name(include_purchased: bool) -> None:
    before = shown_until(7)
    row = unpopular_row(before)
    (reason,) = reasons(before, lifted(shown_until(0), row), include_purchased=include_purchased)
    assert f"item {before.model.items.ids[row]} would newly be among the first 10 of " in reason
    assert reason.endswith("(70% is the most): who bought it?")


@pytest.mark.parametrize("include_purchased", [False, True])
def test_hidden_items_are_in_no_list_that_is_looked_at(include_purchased: bool) -> None:
    before = shown_until(7)
    row = unpopular_row(before)
    after = lifted(shown_until(0), row)
    assert reasons(before, after, include_purchased=include_purchased, hidden={before.model.items.ids[row]}) == []
    other = before.model.items.ids[int(np.argsort(before.popularity)[1])]
    assert len(reasons(before, after, include_purchased=include_purchased, hidden={other, "an item of no model"})) == 1


def test_hidden_items_are_not_newly_popular() -> None:
    before = shown_until(0)
    popularity, pushed = before.popularity.copy(), np.argsort(before.popularity)[:6]
    popularity[pushed] += 1_000
    after = replace(before, popularity=popularity)
    assert len(reasons(before, after)) == 1
    assert reasons(before, after, hidden={before.model.items.ids[row] for row in pushed.tolist()}) == []


def test_an_item_that_was_popular_before_may_fill_them() -> None:
    before = shown_until(7)
    row = int(np.argmax(before.popularity))
    assert reasons(before, lifted(shown_until(0), row)) == []


def test_lists_that_keep_nothing_are_refused() -> None:
    before = shown_until(0)
    bias = np.full(N_ITEMS, 0, np.float32)
    bias[np.argsort(before.popularity)[: N_ITEMS // 3]] = 50 + np.random.default_rng(0).random(N_ITEMS // 3)
    boosts = Boosts(bias, np.zeros(N_ITEMS, np.float32), 0.0, np.zeros(8))
    after = replace(before, model=replace(before.model, boosts=boosts, stored_index=None))
    found = reasons(before, after)
    assert any("of the first 10 of the lists would stay (5% must)" in reason for reason in found)


def test_popular_lists_of_things_that_nobody_knew_are_refused() -> None:
    before = shown_until(0)
    popularity = before.popularity.copy()
    popularity[np.argsort(popularity)[:6]] += 1_000
    (reason,) = reasons(before, replace(before, popularity=popularity))
    assert reason == (
        "6 of the 10 most popular items would be ones that were not among the "
        f"{KNOWN_AS_POPULAR} most popular before (5 may)"
    )


def test_a_few_users_or_items_tell_nothing() -> None:
    before = shown_until(7, n_users=LEAST_USERS - 1)
    after = shown_until(0, n_users=LEAST_USERS - 1)
    assert reasons(before, lifted(after, unpopular_row(before)), n_users=LEAST_USERS - 1) == []


def test_a_sample_is_what_some_users_own() -> None:
    engine = InMemoryEngine(shop())
    everything, some = engine.sample(10**6, seed=0), engine.sample(40, seed=3)
    assert everything.users.ids == shop().interactions().users.ids
    assert len(some.users) == 40
    rows = everything.users.find(some.users.ids)
    expected = everything.owned.of(rows)
    assert some.owned.entries.tolist() == expected.entries.tolist()
    assert engine.sample(40, seed=4).users.ids != some.users.ids
