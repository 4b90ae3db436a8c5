"""What a buyer weighs: how far one user can move what everybody sees.

In popularity, in demand and in the fit, user u counts w_u(n) = min(1, d_u / D) · min(1, N / n) times.

- d_u is the number of different days on which u has bought something, and D what is usual: half of all that is bought
  belongs to users with so many days, but it is never more than `Bounds.days`. A user of one day weighs a fifth where
  others have bought on five days or more; in a shop that opened today everyone weighs the same. Of what a user has
  bought 50 items a day count here: else one account that buys more than all others would make everyone weigh the same.
- n is how many items u adds to, and N is `Bounds.items`: what one user adds in all has a bound.

What u adds to an item saturates as well. Popularity and demand with half-life h are Σ_u w_u(n_u) · s_ui, where
s_ui = min(`Bounds.purchases`, Σ_k 2^(−age_k/h)) over the days on which u has bought the item, and n_u = Σ_i s_ui. In
the fit, n_u is how many items u owns, and u's row counts w_u(n_u) times in the half-step of the items
(`recsys.training.als`). That of the users does not change: every list is exact as it was.

An item is in the model when there is enough support for it. That is more than demand: young accounts alone shall not
say what may be in lists at all. u supports each of its n items t_u · min(1, t_u · N / n) times, t_u = min(1, d_u / D).
So five accounts of one day are as good as one regular customer, and each brings in forty items at most.

A day is one on which a purchase is known to have been made (`recsys.data.event_log.EventLog.days`), so purchases with
times that are made up do not make a user look older.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from recsys.data.event_log import EventLog
from recsys.data.vocabulary import Vocabulary

_DAY_S = 24 * 3600
_COUNTED_A_DAY = 50
_LEAST_TRUST = 1e-9


@dataclass(frozen=True, slots=True)
class Bounds:
    """The bounds of one user's influence.

    Attributes
    ----------
    days : int
        A user who has bought on so many different days counts fully; 0 = everybody does.
    items : float
        A user adds no more to all items together.
    purchases : float
        So many of a user's decayed purchases of an item count, those of one day being one; infinite = all of them.
    """

    days: int = 5
    items: float = 1_000.0
    purchases: float = 5.0


BOUNDED: Final = Bounds()
UNBOUNDED: Final = Bounds(days=0, items=np.inf, purchases=np.inf)
"""Every purchase counts: only to show what the bounds are good for (`python -m benchmarks.poisoning`)."""


@dataclass(frozen=True, eq=False)
class Buyers:
    """What the users of some events weigh.

    Attributes
    ----------
    events : EventLog
    trust : float64, (n_user_ids,); min(1, d_u / D) of each user, as in ``events.user_ids``
    bounds : Bounds
    """

    events: EventLog
    trust: NDArray[np.float64]
    bounds: Bounds

    @classmethod
    def of(cls, events: EventLog, bounds: Bounds = BOUNDED) -> Buyers:
        """Weigh the users of these events."""
        bought = np.flatnonzero(events.units > 0)
        if not bounds.days or not len(bought):
            return cls(events, np.ones(len(events.user_ids)), bounds)
        users = events.user_codes[bought]
        days = _distinct(users, events.known_days[bought], len(events.user_ids))
        items = _distinct(users, events.item_codes[bought], len(events.user_ids))
        items = np.minimum(items, _COUNTED_A_DAY * days)
        order = np.argsort(days)
        middle = np.searchsorted(np.cumsum(items[order]), items.sum() / 2)
        usual = min(bounds.days, int(days[order][middle]))
        return cls(events, np.minimum(1.0, days / usual), bounds)

    def weights(self, users: Vocabulary, n_items: NDArray[np.integer]) -> NDArray[np.float64]:
        """Return w_u(n) of users who add to so many items: float64, (n_users,)."""
        return self._trust_of(users) * share(n_items, self.bounds)

    def support(self, users: Vocabulary, n_items: NDArray[np.integer]) -> NDArray[np.float64]:
        """Return how far users who own so many items support each of them: float64, (n_users,)."""
        trust = self._trust_of(users)
        return trust * share(n_items / np.maximum(trust, _LEAST_TRUST), self.bounds)

    def _trust_of(self, users: Vocabulary) -> NDArray[np.float64]:
        trust = np.zeros(len(users))
        rows = users.find(self.events.user_ids)
        trust[rows[rows >= 0]] = self.trust[rows >= 0]
        return trust

    def demand(self, items: Vocabulary, *, reference_s: int, half_lives_days: Sequence[float]) -> NDArray[np.float64]:
        """Return how much items are in demand, for each half-life: Σ_u w_u(n_u) · s_ui.

        Parameters
        ----------
        items : Vocabulary
        reference_s : int
            The moment that ages are measured against, in epoch seconds; later purchases do not count: they are in the
            future.
        half_lives_days : sequence of float
            Each above 0.

        Returns
        -------
        float64, (n_items, len(half_lives_days))
        """
        events, stride = self.events, max(1, len(items))
        rows = items.find(events.item_ids)[events.item_codes]
        counted = np.flatnonzero((rows >= 0) & (events.units > 0) & (events.seconds <= reference_s))
        pairs, days = events.user_codes[counted].astype(np.int64) * stride + rows[counted], events.known_days[counted]
        order = np.lexsort((days, pairs))
        if np.isfinite(self.bounds.purchases):  # those of a day are one
            order = order[np.flatnonzero(np.diff(pairs[order], prepend=-1) | np.diff(days[order], prepend=-1))]
        pairs, ages_days = pairs[order], (reference_s - events.seconds[counted[order]]) / _DAY_S
        starts = np.flatnonzero(np.diff(pairs, prepend=-1))
        users, of_items = np.divmod(pairs[starts], stride)
        found = np.zeros((len(items), len(half_lives_days)))
        for column, half_life in enumerate(half_lives_days):
            if not len(starts):
                break
            added = np.minimum(self.bounds.purchases, np.add.reduceat(np.exp2(-ages_days / half_life), starts))
            weights = self.trust * share(np.bincount(users, added, len(self.trust)), self.bounds)
            found[:, column] = np.bincount(of_items, weights[users] * added, len(items))
        return found


def share(n_items: NDArray[np.integer] | NDArray[np.floating], bounds: Bounds) -> NDArray[np.float64]:
    """Return min(1, N / n) of users who add to n items: float64, as ``n_items``."""
    shares: NDArray[np.float64] = np.minimum(1.0, bounds.items / np.maximum(1.0, n_items))
    return shares


def _distinct(users: NDArray[np.integer], values: NDArray[np.integer], n_users: int) -> NDArray[np.int64]:
    """Return how many different values each user has: int64, (n_users,)."""
    least = int(values.min())
    stride = int(values.max()) - least + 1
    keys = users.astype(np.int64) * stride + (values.astype(np.int64) - least)
    keys.sort()
    firsts = np.flatnonzero(np.diff(keys, prepend=-1))
    return np.bincount(keys[firsts] // stride, minlength=n_users).astype(np.int64)
