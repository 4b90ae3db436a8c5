"""How good lists are: a split by time, ranking metrics per user, and intervals from the bootstrap.

All arrays hold one row per user of a split; a list is a row of item rows, best first, −1 where it is shorter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from recsys.data.event_log import EventLog
from recsys.data.interactions import Interactions
from recsys.data.owned_items import Owned
from recsys.data.vocabulary import Vocabulary

SEGMENTS: Final = {"all users": (1, None), "1–5 items": (1, 5), "6–20 items": (6, 20), "21+ items": (21, None)}
"""By the number of items that a user owned at the cut: least and most; and `NEWCOMERS`."""
NEWCOMERS: Final = "new users"
EVERYBODY: Final = "all users"
NEW: Final = "new"
ALL: Final = "all"
"""Columns of a comparison, see `Score`."""
_FIRST_VISIT_S = 3600
_RESAMPLES, _USERS_AT_ONCE = 1_000, 4_096

Lists = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Wanted:
    """What users bought after the cut, among the items that were known before.

    Attributes
    ----------
    keys : int64, ascending; user · n_items + row
    sizes : int64, (n_users,); how many of each user
    n_items : int
    """

    keys: NDArray[np.int64]
    sizes: NDArray[np.int64]
    n_items: int

    @classmethod
    def of_pairs(cls, users: NDArray[np.integer], rows: NDArray[np.integer], n_users: int, n_items: int) -> Wanted:
        """Build from pairs, which may come more than once."""
        keys = np.unique(users.astype(np.int64) * n_items + rows)
        return cls(keys, np.bincount(keys // max(1, n_items), minlength=n_users), n_items)

    def of(self, users: NDArray[np.integer]) -> Wanted:
        """Return what the users in these places, ascending, bought."""
        place = np.full(len(self.sizes), -1)
        place[users] = np.arange(len(users))
        owners, rows = np.divmod(self.keys, max(1, self.n_items))
        kept = place[owners] >= 0
        return Wanted(place[owners[kept]] * self.n_items + rows[kept], self.sizes[users], self.n_items)

    def without(self, owned: Owned) -> Wanted:
        """Return what of it was not owned."""
        owners = owned.owners()
        keys = np.setdiff1d(self.keys, owners * self.n_items + owned.rows, assume_unique=True)
        return Wanted(keys, np.bincount(keys // max(1, self.n_items), minlength=len(owned)), self.n_items)

    def hits(self, lists: Lists) -> NDArray[np.bool_]:
        """Say of each listed item whether it was bought: bool, as ``lists``."""
        keys = np.arange(len(lists))[:, None] * self.n_items + lists
        if not len(self.keys):
            return np.zeros(lists.shape, np.bool_)
        places = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        found: NDArray[np.bool_] = (self.keys[places] == keys) & (lists >= 0)
        return found


@dataclass(frozen=True, eq=False)
class Split:
    """Purchases before and after a moment.

    Attributes
    ----------
    train : Interactions
        What was known at the cut.
    cut_s : int
        Epoch seconds.
    owned : Owned
        What each user who is judged owned at the cut, or for those who are new, bought in their first hour.
    newcomers : bool, (n_users,)
        Whose first purchase came after the cut: no model has seen them, they are only folded in.
    everything, new : Wanted
        What they bought afterwards: all of it, and only what they did not own.
    """

    train: Interactions
    cut_s: int
    owned: Owned
    newcomers: NDArray[np.bool_]
    everything: Wanted
    new: Wanted

    @property
    def n_users(self) -> int:
        """How many users are judged."""
        return len(self.owned)

    def segment(self, name: str) -> NDArray[np.bool_]:
        """Say who belongs to a segment: bool, (n_users,)."""
        if name == NEWCOMERS:
            return self.newcomers
        least, most = SEGMENTS[name]
        sizes = self.owned.sizes
        return ~self.newcomers & (sizes >= least) & (sizes <= (most or sizes.max(initial=0)))


def split_by_time(events: EventLog, *, cut_s: int, end_s: int | None = None) -> Split:
    """Split events at a moment that is the same for everyone, so that nothing is judged by what came before it.

    Returns
    -------
    Split
        Judged are users who bought something known both before the cut (or in their first hour) and afterwards.
    """
    before = events.seconds < cut_s
    train = events.where(before).interactions()
    after = (events.seconds >= cut_s) & (events.units > 0)
    if end_s is not None:
        after &= events.seconds < end_s

    new_to_us = np.ones(len(events.user_ids), np.bool_)
    new_to_us[events.user_codes[before]] = False
    first_s = np.full(len(events.user_ids), np.iinfo(np.int64).max)
    np.minimum.at(first_s, events.user_codes[after], events.seconds[after])
    first_hour = after & new_to_us[events.user_codes]
    first_hour &= events.seconds < first_s[events.user_codes] + _FIRST_VISIT_S
    history = events.where(before | first_hour).interactions()
    owned = history.owned.translated(train.items.find(history.items.ids))

    later = events.where(after & ~first_hour)
    users = history.users.find(events.user_ids)[later.user_codes]
    rows = train.items.find(events.item_ids)[later.item_codes]
    known = (users >= 0) & (rows >= 0)
    n_users, n_items = len(history.users), len(train.items)
    everything = Wanted.of_pairs(users[known], rows[known], n_users, n_items)
    judged = np.flatnonzero((owned.sizes > 0) & (everything.sizes > 0))
    owned, everything = owned.of(judged), everything.of(judged)
    newcomers = new_to_us[_codes(events.user_ids, history.users)][judged]
    return Split(train, cut_s, owned, newcomers, everything, everything.without(owned))


def _codes(ids: Sequence[str], users: Vocabulary) -> NDArray[np.int64]:
    """Return the place of each user in ``ids``."""
    rows = users.find(ids)
    codes = np.empty(len(users), np.int64)
    codes[rows[rows >= 0]] = np.flatnonzero(rows >= 0)
    return codes


# metrics ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class UserMetrics:
    """Metrics of the first N places, per user; users who bought nothing wanted are not judged.

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


def user_metrics(lists: Lists, wanted: Wanted, *, n: int) -> UserMetrics:
    """Judge the first ``n`` places of each user's list."""
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
    """Return the share of items that are in somebody's first ``n`` places."""
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
    """A mean over users and the interval that holds it in 95 % of resamples; without users the numbers mean nothing."""

    mean: float
    low: float
    high: float
    users: int


def intervals(
    values: NDArray[np.float64], counted: NDArray[np.bool_] | None = None, *, seed: int = 0
) -> list[Interval]:
    """Return the mean over users and its 95 % percentile interval from 1,000 bootstrap resamples, for each column.

    Efron & Tibshirani (1993), An introduction to the bootstrap, chapter 13. Users are drawn by Poisson weights, which
    for many users is the same as drawing with replacement; each resample is the same for all columns.

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
    # A resample of very few users may be empty; it then tells nothing.
    resampled = np.where(weights > 0, sums / np.maximum(weights, 1), means)
    low, high = np.quantile(resampled, (0.025, 0.975), axis=0)
    columns = zip(means.tolist(), low.tolist(), high.tolist(), users.tolist(), strict=True)
    return [Interval(*column) if column[-1] else NOBODY for column in columns]


NOBODY: Final = Interval(0.0, 0.0, 0.0, 0)

# comparison -------------------------------------------------------------------------------------------------------

Recommender = Callable[[bool], "Lists | None"]
"""Whether owned items may be in them → lists of a split's users, or None if it makes no lists of this kind."""


@dataclass(frozen=True, slots=True)
class Score:
    """How good one recommender's lists are for the users of one segment.

    Attributes
    ----------
    recommender, segment : str
    column : str
        ``new``: lists without owned items, judged by what users bought and did not own; ``all``: lists in which owned
        items compete, judged by all that users bought.
    n : int
        Places that are looked at.
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
    """Judge recommenders by the same users, columns, lengths and resamples.

    Parameters
    ----------
    split : Split
    recommenders : mapping
        Name → what makes its lists, of at least max(lengths) places.
    on_recommender : callable
        Called after each.
    """
    buyers, n_items, n_users = split.train.buyers(), len(split.train.items), len(split.train.users)
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
