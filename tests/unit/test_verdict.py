"""What is said of a comparison: nothing is called certain that chance could have done."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.evaluation.compare import ALL, ITEM_KNN, NEW, OWN_FREQUENCY, POPULAR, RECENTLY_POPULAR, Score
from recsys.evaluation.gate_record import CANDIDATE, LIVE, Decision, GateRecord
from recsys.evaluation.metrics import NOBODY, Interval
from recsys.evaluation.split import EVERYBODY, NEWCOMERS
from recsys.evaluation.verdict import (
    GATE_WORDS,
    GLOSSARY,
    IN_WORDS,
    LEAST_USERS,
    Finding,
    by_how_much,
    evaluation_verdict,
    finding,
    gate_verdict,
    glossary,
    holdout_marks,
)

OURS = "ours"


def score(
    name: str,
    ndcg: float,
    lead: tuple[float, float] | None = None,
    *,
    of: float = 0.0,
    users: int = 900,
    column: str = NEW,
    segment: str = EVERYBODY,
    hits: float = 0.15,
) -> Score:
    """Return a score; ``lead`` is the interval of the lead of whoever has the NDCG ``of``."""
    mean = Interval(ndcg, ndcg, ndcg, users) if users else NOBODY
    rate = Interval(hits, hits, hits, users) if users else NOBODY
    ahead = None if lead is None else Interval(of - ndcg, *lead, users)
    return Score(name, segment, column, 20, mean, mean, rate, 0.5, 9.0, ahead)


def said(*scores: Score) -> str:
    """Return the first sentence, that of items new to a customer."""
    return evaluation_verdict(scores, judged=OURS, n=20, cut="A", end="B")[0]


@given(
    st.floats(0.0, 1.0), st.floats(0.01, 1.0), st.floats(0.0, 0.5), st.floats(0.0, 0.5), st.integers(0, 200)
)  # fmt: skip
@settings(deadline=None)
def test_only_what_excludes_zero_with_enough_users_is_certain(
    own: float, other: float, below: float, above: float, users: int
) -> None:
    lead = (own - other - below, own - other + above)
    text = said(score(OURS, own, users=users), score("popular", other, lead, of=own, users=users))
    holds_zero = lead[0] <= 0 <= lead[1]
    assert ("certain" in text) == (users >= LEAST_USERS and not holds_zero)
    assert ("not proven" in text) == (users >= LEAST_USERS and holds_zero and (own - other, *lead) != (0, 0, 0))
    if 0 < users < LEAST_USERS:
        assert "too few users to tell" in text
    if "(certain)" in text:
        assert ("worse than" in text) == (lead[1] < 0)


def test_an_interval_that_ends_at_zero_proves_nothing() -> None:
    assert finding(Interval(0.1, 0.0, 0.2, 900), users=900) is Finding.NOT_PROVEN
    assert finding(Interval(-0.1, -0.2, 0.0, 900), users=900) is Finding.NOT_PROVEN
    assert finding(Interval(0.1, 0.05, 0.2, 900), users=LEAST_USERS - 1) is Finding.TOO_FEW
    assert finding(None, users=900) is Finding.NOT_PROVEN


def test_the_sentence_of_a_merchandiser() -> None:
    assert said(
        score(OURS, 0.08, hits=0.21),
        score("popular", 0.06, (0.01, 0.03), of=0.08),
        score("item-kNN", 0.079, (-0.01, 0.012), of=0.08),
    ) == (
        "For items new to a customer this model is better than the popular list by a third (certain) and no better "
        "than item-kNN (not proven). Of 100 customers who bought such items, 21 had one of them in their list of 20, "
        "and 15 in the popular list."
    )


@pytest.mark.parametrize(
    ("own", "other", "lead", "words"),
    [
        (0.12, 0.06, (0.05, 0.07), "is twice as good as the popular list (certain)"),
        (0.15, 0.06, (0.05, 0.10), "is 2.5 times as good as the popular list (certain)"),
        (0.9, 0.06, (0.8, 0.9), "is more than ten times as good as the popular list (certain)"),
        (0.0648, 0.06, (0.002, 0.006), "is better than the popular list by 8 % (certain)"),
        (0.06001, 0.06, (0.000001, 0.00002), "is better than the popular list by less than 1 % (certain)"),
        (0.03, 0.06, (-0.04, -0.02), "is worse than the popular list by a half (certain)"),
        (0.0, 0.06, (-0.07, -0.05), "is worse than the popular list by nearly everything (certain)"),
        (0.05, 0.06, (-0.04, 0.02), "is no better than the popular list (not proven)"),
        (0.06, 0.06, (0.0, 0.0), "is just as good as the popular list (no difference)"),
        (0.06, 0.0, (0.05, 0.07), "is better than the popular list, which finds nothing (certain)"),
    ],
)
def test_better_worse_and_equal(own: float, other: float, lead: tuple[float, float], words: str) -> None:
    assert words in said(score(OURS, own), score("popular", other, lead, of=own))


@given(st.floats(0.001, 0.999))
def test_amounts_in_words_are_near_the_numbers(share: float) -> None:
    words = by_how_much(share)
    known = {"a fifth": 20, "a quarter": 25, "a third": 33.33, "a half": 50, "two thirds": 66.67, "three quarters": 75}
    value = known.get(words.removeprefix("by "))
    if value is None and (percent := re.fullmatch(r"by (\d+) %", words)):
        value = float(percent[1])
    if value is None:
        assert (words == "by less than 1 %" and share < 0.01) or (words == "by nearly everything" and share >= 0.99)
    else:
        assert abs(100 * share - value) <= 1.51


def test_without_users_or_baselines_nothing_is_claimed() -> None:
    nobody = said(score(OURS, 0.0, users=0), score("popular", 0.0, (0.0, 0.0), users=0))
    assert nobody == "For items new to a customer nothing can be said: nobody bought such items in this time."
    few = said(score(OURS, 0.9, users=49), score("popular", 0.1, (0.7, 0.9), of=0.9, users=49))
    assert few == "For items new to a customer there are too few users to tell: 49, and 50 are needed."
    assert said(score(OURS, 0.9)) == "For items new to a customer there is nothing to compare this model with."
    assert "nothing can be said" in said()


def test_certain_findings_come_first_and_others_may_lack() -> None:
    text = said(
        score("item-kNN", 0.079, (-0.01, 0.012), of=0.08),
        score("recently popular", 0.1, (-0.03, -0.01), of=0.08),
        score("popular", 0.06, (0.01, 0.03), of=0.08),
        score(OURS, 0.08),
    )
    places = [
        text.index(word) for word in ("better than the popular", "worse than the recently", "no better than item")
    ]
    assert places == sorted(places)
    assert ", and 15 in the popular list" in text
    assert "popular list" not in said(score(OURS, 0.08), score("item-kNN", 0.06, (0.01, 0.03), of=0.08))


def test_repeats_new_customers_and_the_purchases_are_told_apart() -> None:
    found = [
        replace(one, column=column, segment=segment)
        for column, segment in ((NEW, EVERYBODY), (ALL, EVERYBODY), (NEW, NEWCOMERS))
        for one in (score(OURS, 0.08), score("popular", 0.06, (0.01, 0.03), of=0.08))
    ]
    told = evaluation_verdict(found, judged=OURS, n=20, cut="A", end="B")
    starts = ("For items new", "With repeats,", "For customers whom no model has seen", "All of this is about")
    assert len(told) == len(starts)
    assert all(text.startswith(start) for text, start in zip(told, starts, strict=True))
    assert "from A to B: numbers from other purchases cannot be put beside it" in told[-1]


def gate(*, lead: tuple[float, float] | None = (-0.03, -0.01), **changes: object) -> GateRecord:
    scores = [
        one
        for column in (NEW, ALL)
        for one in (
            score(CANDIDATE, 0.06, column=column),
            score(LIVE, 0.08, lead, of=0.06, column=column),
            score("popular", 0.04, (0.01, 0.03), of=0.06, column=column),
        )
    ]
    record = GateRecord(
        decision=Decision.REJECTED, cut="2026-11-15T10:15:00+00:00", column=ALL, live="v1", scores=scores
    )
    return record.model_copy(update=changes)


def test_the_gate_says_first_what_decides_and_how_the_live_model_compares() -> None:
    decides, other = gate_verdict(gate())
    assert decides.startswith("With repeats, where items may be bought again, the new model is ")
    assert "worse than the live model by a quarter (certain)" in decides
    assert "better than the popular list by a half (certain)" in decides
    assert other.startswith("For items new to a customer the new model is ")
    assert "worse than model v1 by" in gate_verdict(gate(), subject="this model", live="model v1")[0]


def test_a_live_model_of_another_hold_out_is_not_put_beside() -> None:
    without = [one for one in gate().scores if one.recommender != LIVE]
    told = gate_verdict(gate(scores=without))
    assert told[-1].startswith("The live model was not judged by these purchases")
    assert "another hold-out" in told[-1]
    assert not any("than the live model" in text for text in told)
    assert len(gate_verdict(gate(scores=without, live=""))) == 2
    assert "was not compared with anything" in gate_verdict(gate(scores=[]))[0]


def test_records_of_earlier_releases_have_the_difference_that_decided() -> None:
    old = GateRecord.model_validate(
        {
            **gate(lead=None, difference=Interval(-0.02, -0.03, -0.01, 900)).model_dump(),
            "scores": [{k: v for k, v in one.items() if k != "lead"} for one in gate().model_dump()["scores"]],
        }
    )
    decides, other = gate_verdict(old)
    assert "worse than the live model by a quarter (certain)" in decides
    assert "better than the popular list by a half on average (not proven)" in decides
    assert "no better than the live model (not proven)" in other


def test_only_numbers_of_one_hold_out_go_without_marks() -> None:
    one, same, later = gate(), gate(column=NEW), gate(cut="2026-11-22T10:15:00+00:00")
    assert holdout_marks([one, same]) == (["", ""], [])
    marks, meanings = holdout_marks([one, later, same, None, None])
    assert marks == ["a", "b", "a", "c", "d"]
    assert "do not compare" in meanings[0]
    assert meanings[1] == "a: purchases since 2026-11-15 10:15 UTC of 900 users"
    assert meanings[3] == "c: purchases that are not known"
    other = [
        replace(row, ndcg=Interval(0.05, 0.05, 0.05, 900)) if row.recommender == "popular" else row
        for row in one.scores
    ]
    assert holdout_marks([one, gate(scores=other)])[0] == ["a", "b"]  # purchases that came late


def test_there_are_marks_for_any_number_of_hold_outs() -> None:
    marks, _ = holdout_marks([None] * 60)
    assert len(set(marks)) == 60
    assert (marks[25], marks[26], marks[52]) == ("z", "a2", "a3")


def test_the_glossary_has_a_sentence_for_each_word() -> None:
    assert set(GATE_WORDS) <= GLOSSARY.keys()
    assert all(text.endswith(".") for text in GLOSSARY.values())
    assert set(IN_WORDS) == {POPULAR, RECENTLY_POPULAR, OWN_FREQUENCY, ITEM_KNN}
    assert next(glossary(["coverage"])) == "coverage: which share of all items is in any customer's list."
    assert len(list(glossary())) == len(GLOSSARY)
