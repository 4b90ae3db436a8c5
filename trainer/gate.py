"""The gate: whether a candidate may take the live model's place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from recsys.evaluation.baselines import model_lists, popular
from recsys.evaluation.compare import ALL, NEW, POPULAR, Recommender, compare
from recsys.evaluation.gate_record import CANDIDATE, LIVE, Decision, GateRecord
from recsys.evaluation.metrics import Interval
from recsys.evaluation.split import EVERYBODY, Split
from recsys.model.factor_model import FactorModel

_CHOSEN = ", and an operator has chosen the live model; retrain with --force to publish this one anyway"
N = 20
"""Places of a list that count."""
LEAST_USERS = 50
LEAST_SHARE_OF_EVENTS = 0.9
"""An archive with a smaller share of the live model's events has lost some: a few users forgotten are no such loss."""


@dataclass(frozen=True, slots=True)
class LiveComparison:
    """The live model, as far as it can be compared.

    Attributes
    ----------
    version : str
    events : int
        That it was fitted on.
    model : FactorModel or None
        The same model, fitted on what precedes its own hold-out; None if there is none, or it knows this one's.
    chosen : bool
        Whether an operator made it live, by a rollback or against the gate: it does not give way unjudged.
    """

    version: str
    events: int
    model: FactorModel | None
    chosen: bool = False


def judge(
    split: Split,
    n_events: int,
    candidate: FactorModel,
    live: LiveComparison | None,
    *,
    include_purchased: bool,
    tolerance: float,
    on_recommender: Callable[[], None] = lambda: None,
) -> GateRecord:
    """Compare a candidate with the live model and with popularity by NDCG@20 on the hold-out.

    The candidate is rejected if its mean is not above that of popularity; if it is below that of the live model by
    more than the tolerance, with all of the 95 % interval of the difference for the same users; or if much of
    what the live model was fitted on is gone from the archive. The first model is published whatever it is: without
    one there are no lists at all.

    Parameters
    ----------
    split : Split
        At the beginning of the hold-out.
    n_events : int
        All that the archive holds.
    candidate : FactorModel
        Fitted on what precedes the hold-out.
    live : LiveComparison or None
    include_purchased : bool
        Whether lists with owned items decide, because these are published.
    tolerance : float
        A share of the live model's NDCG.
    on_recommender : callable
        Called after each of three or fewer comparisons.
    """
    recommenders: dict[str, Recommender] = {CANDIDATE: _lists_of(candidate, split)}
    live_model = None if live is None else live.model
    if live_model is not None:
        recommenders[LIVE] = _lists_of(live_model, split)
    recommenders[POPULAR] = popular(split, n=N)
    scores = compare(
        split, recommenders, lengths=(N,), segments=(EVERYBODY,), judged=CANDIDATE, on_recommender=on_recommender
    )
    record = GateRecord(
        decision=Decision.PUBLISHED,
        cut=datetime.fromtimestamp(split.cut_s, UTC).isoformat(),
        column=ALL if include_purchased else NEW,
        live="" if live is None else live.version,
        scores=scores,
    )
    found = {score.recommender: score.ndcg for score in scores if score.column == record.column}
    reasons = _losses(n_events, live)
    if not found[CANDIDATE].mean > found[POPULAR].mean:
        reasons.append(
            f"it does not beat popularity: NDCG@{N} {found[CANDIDATE].mean:.4f} against {found[POPULAR].mean:.4f}"
        )
    if live is None:
        return record.model_copy(
            update={"reasons": [f"{reason}; published because it is the first model" for reason in reasons]}
        )
    if live_model is None:
        cannot = f"the live model {live.version} may know the hold-out, and has no holdout model that can be compared"
        reasons += [cannot + _CHOSEN] if live.chosen else []
        return record.model_copy(
            update={"decision": Decision.REJECTED if reasons else Decision.PUBLISHED, "reasons": reasons or [cannot]}
        )
    (difference,) = [
        score.lead for score in scores if (score.recommender, score.column) == (LIVE, record.column) and score.lead
    ]
    if difference.high < -tolerance * found[LIVE].mean:
        reasons.append(_worse(live.version, found[CANDIDATE], found[LIVE], difference, tolerance))
    return record.model_copy(
        update={
            "decision": Decision.REJECTED if reasons else Decision.PUBLISHED,
            "reasons": reasons,
            "difference": difference,
        }
    )


def reason_not_evaluable(split: Split | None, *, include_purchased: bool) -> str:
    """Say why a candidate cannot be judged on a hold-out; empty if it can."""
    if split is None:
        return "there is no hold-out (RECSYS_TRAINER__HOLDOUT_DAYS is 0)"
    wanted = split.everything if include_purchased else split.new
    users = int((split.segment(EVERYBODY) & (wanted.sizes > 0)).sum())
    if users >= LEAST_USERS:
        return ""
    those = "1 user" if users == 1 else f"{users:,} users"
    return f"{those} bought an item in the hold-out that a model can know; {LEAST_USERS} are needed to compare models"


def unless_forced(gate: GateRecord, *, force: bool) -> GateRecord:
    """Return the record as it is, or with ``force`` that an operator has overruled its rejection."""
    if not force or gate.decision is not Decision.REJECTED:
        return gate
    return gate.model_copy(update={"decision": Decision.FORCED})


def unjudged(reason: str, n_events: int, live: LiveComparison | None) -> GateRecord:
    """Return what becomes of a candidate that cannot be judged: published, but not against an operator's choice."""
    reasons = _losses(n_events, live)
    if live is not None and live.chosen:
        reasons.append(reason + _CHOSEN)
    decision = Decision.REJECTED if reasons else Decision.UNJUDGED
    return GateRecord(decision=decision, reasons=reasons or [reason], live="" if live is None else live.version)


def _losses(n_events: int, live: LiveComparison | None) -> list[str]:
    if live is None or n_events >= LEAST_SHARE_OF_EVENTS * live.events:
        return []
    return [
        f"the archive holds {n_events:,} events, but the live model {live.version} was fitted on {live.events:,}: "
        f"are segments missing?"
    ]


def _lists_of(model: FactorModel, split: Split) -> Recommender:
    return lambda include_purchased: model_lists(model, split, n=N, include_purchased=include_purchased)


def _worse(version: str, candidate: Interval, live: Interval, difference: Interval, tolerance: float) -> str:
    share, low, high = (value / live.mean for value in (difference.mean, difference.low, difference.high))
    return (
        f"it is worse than the live model {version}: NDCG@{N} {candidate.mean:.4f} against {live.mean:.4f}, "
        f"a difference of {share:+.1%} (95 % interval {low:+.1%} to {high:+.1%}; {tolerance:.1%} is the tolerance)"
    )
