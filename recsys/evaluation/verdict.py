"""What a comparison of recommenders says, in sentences for whoever sells the items."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from string import ascii_lowercase
from typing import Final

from recsys.evaluation.compare import ALL, ITEM_KNN, NEW, OWN_FREQUENCY, POPULAR, RECENTLY_POPULAR, Score
from recsys.evaluation.gate_record import CANDIDATE, LIVE, GateRecord
from recsys.evaluation.metrics import Interval
from recsys.evaluation.split import EVERYBODY, NEWCOMERS

LEAST_USERS: Final = 50
"""With fewer users nothing is said of them: the numbers of so few are mostly chance."""
TOO_FEW: Final = "too few users to tell"
IN_WORDS: Final[Mapping[str, str]] = {
    POPULAR: "the popular list",
    RECENTLY_POPULAR: "the recently popular list",
    OWN_FREQUENCY: "each customer's own habits",
    ITEM_KNN: "item-kNN",
}
"""Baselines as sentences name them."""
_FRACTIONS: Final = {
    1 / 5: "a fifth", 1 / 4: "a quarter", 1 / 3: "a third", 1 / 2: "a half", 2 / 3: "two thirds",
    3 / 4: "three quarters",
}  # fmt: skip
_NEARLY: Final = 0.015
"""A share this close to a fraction is told as the fraction."""
_TIMES_FROM: Final = 0.9
"""From this lead on it is told how many times as good the judged one is."""
_MOST_TIMES: Final = 10.0
GLOSSARY: Final[Mapping[str, str]] = {
    "better, worse": "compares the mean NDCG of two kinds of lists, for the same customers and purchases.",
    "certain": "the 95 % interval of the difference, taken customer by customer, does not contain zero, so it is "
    "hardly chance.",
    "not proven": "the interval contains zero, so the difference may be chance; more customers would make it narrower.",
    "interval": "where the mean would be in 95 of 100 cases if other customers of the same kind had come by.",
    "hold-out": "the purchases that lists are judged by; they came after all that the judged model has seen. Numbers "
    "of different hold-outs cannot be compared, for some weeks are easier to foresee than others.",
    "NDCG@N": "from 0 to 1: how much of what a customer bought stands in the first N places of the list, where higher "
    "places count more.",
    "recall@N": "which share of what a customer bought, or could find in N places, is in the first N places.",
    "hit rate@N": "which share of the customers bought at least one item of the first N places.",
    "coverage": "which share of all items is in any customer's list.",
    "novelty": "how surprising the listed items are, in bits: 1 more means that half as many customers own them.",
    "new": "lists without items that the customer has bought already, judged by items that are new to the customer.",
    "with repeats, all": "lists that may hold items that the customer has bought already, judged by all purchases.",
    "popular list": "the items with the most buyers, the same for everybody.",
    "recently popular list": "the same, but newer purchases count more.",
    "own habits": "the items that a customer has bought most often and most recently (own frequency).",
    "item-kNN": "items that were bought by the same customers as those that a customer owns.",
    "live model": "the model that makes the lists now.",
    "candidate": "the new model, fitted on what precedes the hold-out.",
    "new users": "customers whose first purchase came after what the model has seen.",
}
"""What the words of verdicts and tables mean."""
GATE_WORDS: Final = (
    "better, worse", "certain", "not proven", "hold-out", "NDCG@N", "hit rate@N", "popular list", "live model",
    "candidate",
)  # fmt: skip
"""Those of them that a comparison by the gate needs."""


class Finding(StrEnum):
    """What a comparison with one other recommender has shown."""

    BETTER = "better"
    WORSE = "worse"
    EQUAL = "equal"
    """Every list was worth the same for every user."""
    NOT_PROVEN = "not proven"
    """The interval of the difference holds zero, or the difference was not measured user by user."""
    TOO_FEW = "too few"


def finding(lead: Interval | None, *, users: int) -> Finding:
    """Tell what an interval of a difference shows: only one without zero shows which of two is better.

    Parameters
    ----------
    lead : Interval or None
        NDCG of the judged recommender minus that of another one, for the same users; None = not measured.
    users : int
        Those who were judged by.
    """
    if users < LEAST_USERS:
        return Finding.TOO_FEW
    if lead is None:
        return Finding.NOT_PROVEN
    if lead.low == lead.mean == lead.high == 0:
        return Finding.EQUAL
    if lead.low > 0:
        return Finding.BETTER
    return Finding.WORSE if lead.high < 0 else Finding.NOT_PROVEN


def is_telling(users: int) -> bool:
    """Whether there are enough users to tell anything by."""
    return users >= LEAST_USERS


def evaluation_verdict(scores: Sequence[Score], *, judged: str, n: int, cut: str, end: str) -> list[str]:
    """Say how a model compares with what needs no model, one sentence or two to an entry.

    Parameters
    ----------
    scores : sequence of Score
        Of `recsys.evaluation.compare.compare`.
    judged : str
        Name of the model among them.
    n : int
        Length of the lists.
    cut, end : str
        The first and the last moment of the hold-out.
    """
    told = [_sentences(scores, judged, "this model", EVERYBODY, column, n, IN_WORDS) for column in (NEW, ALL)]
    if any(score.segment == NEWCOMERS and score.ndcg.users for score in scores):
        told.append(_sentences(scores, judged, "this model", NEWCOMERS, NEW, n, IN_WORDS))
    told.append(
        f"All of this is about purchases from {cut} to {end}: numbers from other purchases cannot be put beside it."
    )
    return told


def gate_verdict(gate: GateRecord, *, subject: str = "the new model", live: str = "the live model") -> list[str]:
    """Say how a candidate compared with the live model and the popular list, what decides first.

    Parameters
    ----------
    gate : GateRecord
    subject, live : str
        What to call the candidate, and the model that was live then.
    """
    if not gate.scores:
        return [f"{_capital(subject)} was not compared with anything, so nobody can say yet how good it is."]
    scores = [
        replace(score, lead=gate.difference)
        if score.lead is None and (score.recommender, score.column) == (LIVE, gate.column)
        else score
        for score in gate.scores
    ]
    names = {**IN_WORDS, LIVE: live}
    columns = sorted((NEW, ALL), key=lambda column: column != gate.column)
    told = [_sentences(scores, CANDIDATE, subject, EVERYBODY, column, scores[0].n, names) for column in columns]
    if gate.live and all(score.recommender != LIVE for score in scores):
        told.append(
            f"{_capital(live)} was not judged by these purchases: its numbers are from another hold-out, and cannot be "
            f"put beside these."
        )
    return told


def holdout_marks(gates: Iterable[GateRecord | None]) -> tuple[list[str], list[str]]:
    """Tell whose numbers may be put beside one another: only those of the same hold-out.

    Parameters
    ----------
    gates : iterable of GateRecord or None
        Of models; None = it is not known how it was judged.

    Returns
    -------
    marks : list of str
        For each of them, such as ``a``; the same for models that were judged by the same purchases. All are empty
        if there is only one hold-out.
    meanings : list of str
        What each mark stands for, and a warning; empty if there is only one hold-out.
    """
    mark_of: dict[object, str] = {}
    meanings: list[str] = []
    marks: list[str] = []
    for gate in gates:
        key = object() if gate is None else gate.holdout()  # two that are not known may differ
        if key not in mark_of:
            mark_of[key] = _letter(len(mark_of))
            said = "purchases that are not known" if gate is None or not gate.cut else _holdout_in_words(gate)
            meanings.append(f"{mark_of[key]}: {said}")
        marks.append(mark_of[key])
    if len(mark_of) < 2:
        return [""] * len(marks), []
    return marks, ["Judged by different purchases: do not compare numbers with different letters.", *meanings]


def _letter(place: int) -> str:
    """Return a letter: a, b, …, z, then a2, b2 and so on."""
    again, letter = divmod(place, len(ascii_lowercase))
    return ascii_lowercase[letter] + (str(again + 1) if again else "")


def _holdout_in_words(gate: GateRecord) -> str:
    users = max((score.ndcg.users for score in gate.scores), default=0)
    return f"purchases since {gate.cut[:16].replace('T', ' ')} UTC of {users:,} users"


def _sentences(
    scores: Sequence[Score], judged: str, subject: str, segment: str, column: str, n: int, names: Mapping[str, str]
) -> str:
    """Return what is said of the users of a segment and one kind of lists, given what to call recommenders."""
    found = [score for score in scores if (score.segment, score.column, score.n) == (segment, column, n)]
    own = next((score for score in found if score.recommender == judged), None)
    others = [score for score in found if score.recommender != judged]
    about = _about(segment, column)
    if own is None or not own.ndcg.users:
        return f"{about} nothing can be said: nobody bought such items in this time."
    if not is_telling(own.ndcg.users):
        return f"{about} there are {TOO_FEW}: {own.ndcg.users:,}, and {LEAST_USERS} are needed."
    if not others:
        return f"{about} there is nothing to compare {subject} with."
    order = {Finding.BETTER: 0, Finding.WORSE: 1, Finding.EQUAL: 2, Finding.NOT_PROVEN: 3, Finding.TOO_FEW: 4}
    others.sort(key=lambda score: order[finding(score.lead, users=score.ndcg.users)])
    clauses = [_clause(own, score, names.get(score.recommender, score.recommender)) for score in others]
    return f"{about} {subject} is {_joined(clauses)}. {_hits(own, others)}"


def _about(segment: str, column: str) -> str:
    if segment == NEWCOMERS:
        return "For customers whom no model has seen yet"
    return "For items new to a customer" if column == NEW else "With repeats, where items may be bought again,"


def _clause(own: Score, other: Score, name: str) -> str:
    """Return how the judged recommender compares with another one, such as "better than item-kNN by a third"."""
    found = finding(other.lead, users=min(own.ndcg.users, other.ndcg.users))
    lead = own.ndcg.mean - other.ndcg.mean if other.lead is None else other.lead.mean
    if found is Finding.BETTER:
        return f"{_better(lead, other.ndcg.mean, name)} (certain)"
    if found is Finding.WORSE:
        return f"worse than {name} {by_how_much(-lead / other.ndcg.mean)} (certain)"
    if found is Finding.EQUAL:
        return f"just as good as {name} (no difference)"
    if found is Finding.TOO_FEW:
        return f"not to be compared with {name} ({TOO_FEW})"
    if other.lead is None and lead > 0:  # in a record of an earlier release
        return f"{_better(lead, other.ndcg.mean, name)} on average (not proven)"
    return f"no better than {name} (not proven)"


def _better(lead: float, other: float, name: str) -> str:
    if other <= 0:
        return f"better than {name}, which finds nothing"
    share = lead / other
    if share < _TIMES_FROM:
        return f"better than {name} {by_how_much(share)}"
    if share + 1 >= _MOST_TIMES:
        return f"more than ten times as good as {name}"
    times = f"{share + 1:.1f}".removesuffix(".0")
    return f"{'twice' if times == '2' else f'{times} times'} as good as {name}"


def by_how_much(share: float) -> str:
    """Return a share, above 0, in words: by a third, by 8 %."""
    for value, words in _FRACTIONS.items():
        if abs(share - value) <= _NEARLY:
            return f"by {words}"
    percent = round(100 * share)
    if percent < 1:
        return "by less than 1 %"
    return f"by {percent} %" if percent < 100 else "by nearly everything"


def _hits(own: Score, others: Iterable[Score]) -> str:
    """Return for how many customers a list held something that they bought."""
    popular = next((score for score in others if score.recommender == POPULAR and score.hit_rate.users), None)
    beside = "" if popular is None else f", and {_of_100(popular)} in the popular list"
    return f"Of 100 customers who bought such items, {_of_100(own)} had one of them in their list of {own.n}{beside}."


def _of_100(score: Score) -> str:
    count = round(100 * score.hit_rate.mean)
    return "fewer than 1" if not count and score.hit_rate.mean > 0 else str(count)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _joined(clauses: Sequence[str]) -> str:
    *first, last = clauses
    return f"{', '.join(first)} and {last}" if first else last


def glossary(words: Iterable[str] = GLOSSARY) -> Iterator[str]:
    """Yield what words mean, a line for each."""
    return (f"{word}: {GLOSSARY[word]}" for word in words)
