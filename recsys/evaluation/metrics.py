"""Metrics per user, and intervals of their means from the bootstrap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from recsys.evaluation.split import Lists, RelevantItems

_RESAMPLES, _USERS_AT_ONCE = 1_000, 4_096


@dataclass(frozen=True, eq=False)
class UserMetrics:
    """Metrics of the first N places, per user; users who bought no relevant item are left out.

    Attributes
    ----------
    users : int64, (n_judged,)
    recall, ndcg, hit : float64, (n_judged,)
        |hits| / min(N, |bought|); DCG over that of the best list, with binary relevance (Järvelin & Kekäläinen 2002,
        Cumulated gain-based evaluation of IR techniques, with log2(place + 1)); 1 if there was a hit.
    """

    users: NDArray[np.int64]
    recall: NDArray[np.float64]
    ndcg: NDArray[np.float64]
    hit: NDArray[np.float64]


def user_metrics(lists: Lists, wanted: RelevantItems, *, n: int) -> UserMetrics:
    """Measure the first ``n`` places of each user's list."""
    users = np.flatnonzero(wanted.sizes)
    hits = wanted.hits(lists)[users, :n]
    best = np.minimum(n, wanted.sizes[users])
    discounts = 1.0 / np.log2(np.arange(2, n + 2))
    ideal = np.cumsum(discounts)[best - 1]
    return UserMetrics(
        users,
        recall=hits.sum(axis=1) / best,
        ndcg=hits @ discounts[: hits.shape[1]] / ideal,
        hit=np.asarray(hits.any(axis=1), np.float64),
    )


def coverage(lists: Lists, *, n: int, n_items: int) -> float:
    """Return the share of items that are in the first ``n`` places of any list."""
    listed = lists[:, :n]
    return len(np.unique(listed[listed >= 0])) / n_items if n_items else 0.0


def novelty(lists: Lists, buyers: NDArray[np.int64], *, n: int, n_users: int) -> float:
    """Return the mean surprise of listed items in bits: −log2 of the share of users who own the item.

    Zhou et al. (2010), Solving the apparent diversity-accuracy dilemma of recommender systems.
    """
    listed = lists[:, :n]
    listed = listed[listed >= 0]
    return float(-np.log2(buyers[listed] / n_users).mean()) if len(listed) else 0.0


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over users and its 95 % bootstrap interval; without users the numbers are undefined."""

    mean: float
    low: float
    high: float
    users: int


def intervals(
    values: NDArray[np.float64], counted: NDArray[np.bool_] | None = None, *, seed: int = 0
) -> list[Interval]:
    """Return the mean over users and its 95 % percentile interval from 1,000 bootstrap resamples, for each column.

    Efron & Tibshirani (1993), An introduction to the bootstrap, chapter 13. Users get Poisson weights, which
    for many users equals drawing with replacement. All columns use the same resamples.

    Parameters
    ----------
    values : float64, (n_users, m)
    counted : bool, (n_users, m), or None
        Which values count; None = all.
    """
    counted = np.ones(values.shape, np.bool_) if counted is None else counted
    users = counted.sum(axis=0)
    sums, weights = np.zeros((2, _RESAMPLES, values.shape[1]))
    rng = np.random.default_rng(seed)
    for start in range(0, len(values), _USERS_AT_ONCE):
        part = slice(start, start + _USERS_AT_ONCE)
        drawn = rng.poisson(1.0, (_RESAMPLES, len(values[part]))).astype(np.float32)
        sums += drawn @ np.where(counted[part], values[part], 0).astype(np.float32)
        weights += drawn @ counted[part].astype(np.float32)
    means = np.where(counted, values, 0).sum(axis=0) / np.maximum(users, 1)
    # A resample of very few users may be empty, and is then left out.
    resampled = np.where(weights > 0, sums / np.maximum(weights, 1), means)
    low, high = np.quantile(resampled, (0.025, 0.975), axis=0)
    columns = zip(means.tolist(), low.tolist(), high.tolist(), users.tolist(), strict=True)
    return [Interval(*column) if column[-1] else NOBODY for column in columns]


NOBODY: Final = Interval(0.0, 0.0, 0.0, 0)
