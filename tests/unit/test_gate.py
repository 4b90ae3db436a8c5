from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from recsys.data.event_log import EventLog
from recsys.evaluation.gate_record import CANDIDATE, LIVE, Decision, GateRecord
from recsys.evaluation.split import Split, split_by_time
from recsys.model.factor_model import FactorModel, gram
from recsys.model.influence import Buyers
from recsys.training.boost_weights import item_demand
from recsys.training.fit import fit_model
from recsys.training.parameters import Parameters
from tests.builders import NOON_S
from tests.shops import DAY_S, habitual_shop
from trainer.gate import LEAST_USERS, LiveComparison, judge, reason_not_evaluable, unjudged

PARAMETERS = Parameters(
    factors=8, alpha=2.0, regularization=5.0, half_life_days=0, repeat_weight=0, iterations=8, seed=0,
    boost_window_days=20,
)  # fmt: skip
HOLDOUT_DAYS = 14
CUT_S = NOON_S - HOLDOUT_DAYS * DAY_S


@cache
def shop(seed: int, n_users: int = 300) -> tuple[EventLog, Split]:
    events = habitual_shop(seed=seed, n_users=n_users)
    return events, split_by_time(events, cut_s=CUT_S)


def fitted(events: EventLog, **changes: Any) -> FactorModel:
    before = events.where(events.seconds < CUT_S)
    return fit_model(before, replace(PARAMETERS, **changes), reference_s=CUT_S).model


@cache
def sound(seed: int) -> FactorModel:
    return fitted(shop(seed)[0])


def judged(seed: int, candidate: FactorModel, *, include_purchased: bool = False, **changes: Any) -> GateRecord:
    events, split = shop(seed)
    live = LiveComparison("v1", len(events), sound(seed))
    return judge(
        split, len(events), candidate, replace(live, **changes), include_purchased=include_purchased, tolerance=0.02
    )


def shuffled(model: FactorModel) -> FactorModel:
    order, boosts = np.random.default_rng(0).permutation(len(model.item_factors)), model.boosts
    assert boosts is not None
    factors = model.item_factors[order]
    moved = replace(boosts, item_bias=boosts.item_bias[order], repeat_bias=boosts.repeat_bias[order])
    return replace(model, item_factors=factors, item_gram=gram(factors), boosts=moved)


def unpopular(model: FactorModel) -> FactorModel:
    """Return a model that lists what is in least demand first."""
    assert model.boosts is not None
    demand = item_demand(Buyers.of(shop(0)[0]), model)[:, -1]
    return replace(model, boosts=replace(model.boosts, item_bias=(-100 * demand).astype(np.float32)))


@pytest.mark.parametrize("include_purchased", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_an_equal_model_passes(seed: int, include_purchased: bool) -> None:
    record = judged(seed, fitted(shop(seed)[0], seed=99), include_purchased=include_purchased)
    assert record.decision is Decision.PUBLISHED
    assert record.reasons == []
    assert record.live == "v1"
    assert record.cut == "2026-11-08T12:00:00+00:00"
    assert record.column == ("all" if include_purchased else "new")
    assert {score.recommender for score in record.scores} == {CANDIDATE, LIVE, "popular"}
    assert record.difference is not None
    live = record.score(LIVE, record.column)
    assert live is not None
    assert live.lead == record.difference
    assert record.difference.users >= LEAST_USERS
    assert 0 < record.metrics()["ndcg@20_new"] < record.metrics()["ndcg@20_all"] < 1


@pytest.mark.parametrize("include_purchased", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_shuffled_items_are_rejected(seed: int, include_purchased: bool) -> None:
    record = judged(seed, shuffled(sound(seed)), include_purchased=include_purchased)
    assert record.decision is Decision.REJECTED
    assert any("worse than the live model v1" in reason for reason in record.reasons)


@pytest.mark.parametrize("seed", range(3))
def test_parameters_that_are_far_off_are_rejected(seed: int) -> None:
    record = judged(seed, fitted(shop(seed)[0], factors=1, regularization=5000.0))
    assert record.decision is Decision.REJECTED


def test_a_candidate_below_popularity_is_rejected_even_without_a_rival() -> None:
    record = judged(0, unpopular(sound(0)), model=None)
    assert record.decision is Decision.REJECTED
    assert "it does not beat popularity: NDCG@20 0." in record.reasons[0]


def test_the_first_model_is_published_with_what_was_found() -> None:
    events, split = shop(0)
    good = judge(split, len(events), sound(0), None, include_purchased=False, tolerance=0.02)
    assert (good.decision, good.reasons, good.live, good.difference) == (Decision.PUBLISHED, [], "", None)
    bad = judge(split, len(events), unpopular(sound(0)), None, include_purchased=False, tolerance=0.02)
    assert bad.decision is Decision.PUBLISHED
    assert "does not beat popularity" in bad.reasons[0]


def test_an_archive_that_has_lost_events_is_noticed() -> None:
    events, _ = shop(0)
    record = judged(0, sound(0), events=2 * len(events))
    assert record.decision is Decision.REJECTED
    assert "are segments missing?" in record.reasons[0]
    live = LiveComparison("v1", 2 * len(events), None)
    assert unjudged("it is what it is", len(events), live).decision is Decision.REJECTED
    assert unjudged("it is what it is", len(events), replace(live, events=len(events))).decision is Decision.UNJUDGED


def test_a_live_model_that_cannot_be_compared_gives_way_unless_it_was_chosen() -> None:
    gives_way = judged(0, sound(0), model=None)
    assert gives_way.decision is Decision.PUBLISHED
    assert "has no holdout model that can be compared" in gives_way.reasons[0]
    stays = judged(0, sound(0), model=None, chosen=True)
    assert stays.decision is Decision.REJECTED
    assert "--force" in stays.reasons[0]


def test_a_chosen_model_gives_way_to_one_that_passes() -> None:
    assert judged(0, fitted(shop(0)[0], seed=5), chosen=True).decision is Decision.PUBLISHED


def test_what_cannot_be_judged_is_published_but_not_against_a_choice() -> None:
    events, _ = shop(0)
    live = LiveComparison("v1", len(events), sound(0))
    assert unjudged("too little", len(events), None).decision is Decision.UNJUDGED
    assert unjudged("too little", len(events), live).reasons == ["too little"]
    chosen = unjudged("too little", len(events), replace(live, chosen=True))
    assert chosen.decision is Decision.REJECTED
    assert chosen.reasons[0].startswith("too little, and an operator has chosen the live model")


def test_too_few_users_an_empty_hold_out_and_none_at_all_are_told_apart() -> None:
    _, few = shop(0, LEAST_USERS - 1)
    assert f"{LEAST_USERS} are needed" in reason_not_evaluable(few, include_purchased=True)
    events, enough = shop(0)
    assert (
        reason_not_evaluable(enough, include_purchased=True)
        == reason_not_evaluable(enough, include_purchased=False)
        == ""
    )
    empty = split_by_time(events, cut_s=NOON_S + DAY_S)
    assert reason_not_evaluable(empty, include_purchased=True).startswith("0 users bought an item in the hold-out")
    nothing_before = split_by_time(events, cut_s=0)
    assert reason_not_evaluable(nothing_before, include_purchased=True).startswith("0 users")
    assert "HOLDOUT_DAYS is 0" in reason_not_evaluable(None, include_purchased=True)


def test_one_user_with_one_item_cannot_be_judged() -> None:
    log = EventLog(
        ["u"], np.zeros(2, np.int32), ["a"], np.zeros(2, np.int32), np.full(2, 10**6), np.array([CUT_S - 1, CUT_S + 1])
    )
    assert reason_not_evaluable(split_by_time(log, cut_s=CUT_S), include_purchased=True).startswith("1 user bought")
    assert reason_not_evaluable(split_by_time(log, cut_s=CUT_S), include_purchased=False).startswith("0 users bought")


def test_a_record_survives_being_written() -> None:
    record = judged(0, sound(0))
    assert GateRecord.model_validate_json(record.model_dump_json()) == record
