"""Comparison of recommenders on the same users, columns, lengths and resamples.

All arrays hold one row per user of a split. A list is a row of item rows, best first, filled up with −1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from recsys.evaluation.metrics import Interval, coverage, intervals, novelty, user_metrics
from recsys.evaluation.split import NEWCOMERS, SEGMENTS, Lists, Split

NEW: Final = "new"
ALL: Final = "all"
"""Columns of a comparison, see `Score`."""
POPULAR: Final = "popular"
RECENTLY_POPULAR: Final = "recently popular"
OWN_FREQUENCY: Final = "own frequency"
ITEM_KNN: Final = "item-kNN"
"""Names of `recsys.evaluation.baselines`, which needs libraries that those who only read scores do not have."""
Recommender = Callable[[bool], "Lists | None"]
"""Whether lists include already purchased items → lists of a split's users; None if it makes no such lists."""


@dataclass(frozen=True, slots=True)
class Score:
    """How good one recommender's lists are for the users of one segment.

    Attributes
    ----------
    recommender, segment : str
    column : str
        ``new``: lists without already purchased items, judged by what users bought and did not own; ``all``: lists with
        them, judged by everything that users bought.
    n : int
        Length of the lists.
    ndcg, recall, hit_rate : Interval
        See `user_metrics`.
    coverage, novelty : float
        See the functions of these names.
    lead : Interval or None
        NDCG of the judged recommender minus this one's, user by user. None for the judged one itself, and where it was
        not measured: see `compare`, and records of earlier releases.
    """

    recommender: str
    segment: str
    column: str
    n: int
    ndcg: Interval
    recall: Interval
    hit_rate: Interval
    coverage: float
    novelty: float
    lead: Interval | None = None


def compare(
    split: Split,
    recommenders: Mapping[str, Recommender],
    *,
    lengths: Sequence[int] = (10, 20),
    segments: Sequence[str] = (*SEGMENTS, NEWCOMERS),
    judged: str = "",
    on_recommender: Callable[[], None] = lambda: None,
) -> list[Score]:
    """Measure recommenders on the same users, columns, lengths and resamples.

    Parameters
    ----------
    split : Split
    recommenders : mapping
        Name → recommender, whose lists have max(lengths) places or more.
    judged : str
        The recommender whose lead over each of the others is measured; empty = none.
    on_recommender : callable
        Called after each recommender.
    """
    buyers, n_items, n_users = split.buyers, len(split.items), split.n_known_users
    members = {name: split.segment(name) for name in segments}
    places: list[tuple[str, str, str, int, float, float]] = []
    values: list[NDArray[np.float64]] = []
    counted: list[NDArray[np.bool_]] = []
    ndcgs: dict[tuple[str, str, int], NDArray[np.float64]] = {}
    for name, recommender in recommenders.items():
        for column, wanted in ((NEW, split.new), (ALL, split.everything)):
            lists = recommender(column == ALL)
            if lists is None:
                continue
            bought = wanted.sizes > 0
            for n in lengths:
                metrics = user_metrics(lists, wanted, n=n)
                per_user = np.zeros((split.n_users, 3))
                per_user[metrics.users] = np.column_stack((metrics.ndcg, metrics.recall, metrics.hit))
                ndcgs[name, column, n] = per_user[:, 0]
                for segment, member in members.items():
                    chosen = lists[member & bought]
                    beyond = coverage(chosen, n=n, n_items=n_items), novelty(chosen, buyers, n=n, n_users=n_users)
                    places.append((name, segment, column, n, *beyond))
                    values.append(per_user)
                    counted.append(np.repeat((member & bought)[:, None], 3, axis=1))
        on_recommender()
    if not places:
        return []
    compared = [
        at for at, (name, _, column, n, *_) in enumerate(places) if name != judged and (judged, column, n) in ndcgs
    ]
    for at in compared:
        name, _, column, n, *_ = places[at]
        values.append((ndcgs[judged, column, n] - ndcgs[name, column, n])[:, None])
        counted.append(counted[at][:, :1])
    found = intervals(np.concatenate(values, axis=1), np.concatenate(counted, axis=1))
    leads = dict(zip(compared, found[3 * len(places) :], strict=True))
    scores = []
    for at, (name, segment, column, n, covered, surprise) in enumerate(places):
        ndcg, recall, hit_rate = found[3 * at : 3 * at + 3]
        scores.append(Score(name, segment, column, n, ndcg, recall, hit_rate, covered, surprise, leads.get(at)))
    return scores
