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


def compare(
    split: Split,
    recommenders: Mapping[str, Recommender],
    *,
    lengths: Sequence[int] = (10, 20),
    segments: Sequence[str] = (*SEGMENTS, NEWCOMERS),
    on_recommender: Callable[[], None] = lambda: None,
) -> list[Score]:
    """Measure recommenders on the same users, columns, lengths and resamples.

    Parameters
    ----------
    split : Split
    recommenders : mapping
        Name → recommender, whose lists have max(lengths) places or more.
    on_recommender : callable
        Called after each recommender.
    """
    buyers, n_items, n_users = split.buyers, len(split.items), split.n_known_users
    members = {name: split.segment(name) for name in segments}
    places: list[tuple[str, str, str, int, float, float]] = []
    values: list[NDArray[np.float64]] = []
    counted: list[NDArray[np.bool_]] = []
    for name, recommender in recommenders.items():
        for column, wanted in ((NEW, split.new), (ALL, split.everything)):
            lists = recommender(column == ALL)
            if lists is None:
                continue
            judged = wanted.sizes > 0
            for n in lengths:
                metrics = user_metrics(lists, wanted, n=n)
                per_user = np.zeros((split.n_users, 3))
                per_user[metrics.users] = np.column_stack((metrics.ndcg, metrics.recall, metrics.hit))
                for segment, member in members.items():
                    chosen = lists[member & judged]
                    beyond = coverage(chosen, n=n, n_items=n_items), novelty(chosen, buyers, n=n, n_users=n_users)
                    places.append((name, segment, column, n, *beyond))
                    values.append(per_user)
                    counted.append(np.repeat((member & judged)[:, None], 3, axis=1))
        on_recommender()
    if not places:
        return []
    found = intervals(np.concatenate(values, axis=1), np.concatenate(counted, axis=1))
    scores = []
    for at, (name, segment, column, n, covered, surprise) in enumerate(places):
        ndcg, recall, hit_rate = found[3 * at : 3 * at + 3]
        scores.append(Score(name, segment, column, n, ndcg, recall, hit_rate, covered, surprise))
    return scores
