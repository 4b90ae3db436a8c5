"""Boosts of a score beside x_u·y_i: recent demand for an item, and the user's habit of buying it again.

score_ui = x_u·y_i + b_i + g_ui. b_i is a weighted sum of the item's recent demand. g_ui, for owned items only, is a
weighted sum of the user's habits, of x_u·y_i and of demand. This module computes the features; the weights are learned
(`recsys.training.boost_weights`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from recsys.data.owned_items import FIRST, NEWEST, PURCHASES, Owned
from recsys.model.boosts_kernels import weigh_habits
from recsys.runtime.threads import map_ranges

_DAY_S = 24 * 3600
DEMAND_HALF_LIVES_DAYS: Final = (7.0, 30.0, 90.0)
HABIT_HALF_LIVES_DAYS: Final = (30.0, 120.0)
DEMAND: Final = tuple(f"demand_{half_life:g}d" for half_life in DEMAND_HALF_LIVES_DAYS)
HABIT: Final = (
    "owned",
    *(f"frequency_{half_life:g}d" for half_life in HABIT_HALF_LIVES_DAYS),
    "purchases",
    "recency",
    "again",
    "interval",
    "lateness",
)
"""Names of the features, in the order of their columns."""
_HABIT_HALF_LIVES = np.array(HABIT_HALF_LIVES_DAYS)
USUAL_HABIT: Final = np.array([{"frequency_120d": 1.0, "lateness": -0.2}.get(name, 0.0) for name in HABIT])
"""Weights of habits if none were learned: close to those that real shops have."""
_NO_DEMAND, _NO_HABIT = (0.0,) * len(DEMAND), (0.0,) * len(HABIT)


@dataclass(frozen=True, eq=False)
class Boosts:
    """The boosts beside x_u·y_i: b_i for every item, and also g_ui for items that the user owns.

    g_ui = affinity · x_u·y_i + repeat_bias_i + habit · h_ui, with the features h_ui of `habit_features`.

    Attributes
    ----------
    item_bias : float32, (n_items,); b_i
    repeat_bias : float32, (n_items,)
    affinity : float
    habit : float64, (len(HABIT),)
    """

    item_bias: NDArray[np.float32]
    repeat_bias: NDArray[np.float32]
    affinity: float
    habit: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class BoostWeights:
    """Learned weights, in units of x_u·y_i; all zero = plain ALS.

    Attributes
    ----------
    demand : tuple of float, as `DEMAND`
        Weights in b_i.
    affinity : float
        Weight of x_u·y_i in g_ui, in addition to its weight 1 in every score.
    repeat_demand, habit : tuples of float, as `DEMAND` and `HABIT`
        Weights in g_ui.
    """

    demand: tuple[float, ...] = _NO_DEMAND
    affinity: float = 0.0
    repeat_demand: tuple[float, ...] = _NO_DEMAND
    habit: tuple[float, ...] = _NO_HABIT

    @property
    def are_zero(self) -> bool:
        """Whether nothing was learned."""
        return self == NO_WEIGHTS

    def boosts(self, demand: NDArray[np.float64], *, repeat_weight: float = 0.0) -> Boosts | None:
        """Return the boosts of items with this demand; None if all would be zero.

        Parameters
        ----------
        demand : float64, (n_items, 3)
            See `demand_features`.
        repeat_weight : float
            Added to the weight of log(1 + recent purchases of the item by the user).
        """
        if self.are_zero and not repeat_weight:
            return None
        habit = np.array(self.habit, np.float64)
        habit[HABIT.index("frequency_120d")] += repeat_weight
        return Boosts(
            item_bias=(demand @ np.array(self.demand)).astype(np.float32),
            repeat_bias=(demand @ np.array(self.repeat_demand)).astype(np.float32),
            affinity=self.affinity,
            habit=habit,
        )


NO_WEIGHTS: Final = BoostWeights()


def demand_features(demand: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the features of items with this demand, log(1 + decayed number of buyers): float64, as ``demand``.

    Parameters
    ----------
    demand : float64, (n_items, 3)
        For each half-life of `DEMAND_HALF_LIVES_DAYS`, see `recsys.model.influence.Buyers.demand`.
    """
    return np.log1p(demand)


def decayed_frequency(owned: Owned, *, reference_s: int, half_life_days: float) -> NDArray[np.float64]:
    """Return the decayed number of a user's purchases of each owned item: float64, (n,).

    A history holds the first event, the newest one and the number of purchases. These are assumed to be equally
    far apart, with interval τ = (newest − first) / (n − 1), so that Σ_k 2^(−(age + k·τ)/h) is a geometric series. The
    result does not depend on the order in which the events arrived.
    """
    decay = np.exp2(-_interval_days(owned) / half_life_days)
    purchases = np.maximum(1, owned.entries[:, PURCHASES])
    near_one = decay > 1 - 1e-9
    series = np.where(near_one, purchases, (1 - decay**purchases) / np.where(near_one, 1, 1 - decay))
    frequency: NDArray[np.float64] = np.exp2(-owned.ages_days(reference_s) / half_life_days) * series
    return frequency


def habit_features(owned: Owned, *, reference_s: int) -> NDArray[np.float64]:
    """Return the features of a user's habit of buying each owned item: float64, (n, len(HABIT))."""
    ages, intervals = owned.ages_days(reference_s), _interval_days(owned)
    again = owned.entries[:, PURCHASES] > 1
    frequencies = [
        np.log1p(decayed_frequency(owned, reference_s=reference_s, half_life_days=half_life))
        for half_life in HABIT_HALF_LIVES_DAYS
    ]
    return np.column_stack(
        [
            np.ones(len(ages)),
            *frequencies,
            np.log1p(owned.entries[:, PURCHASES]),
            np.log1p(ages),
            again,
            np.where(again, np.log1p(intervals), 0.0),
            np.where(again, np.abs(np.log((ages + 1) / (intervals + 1))), 0.0),
        ]
    )


def habits(owned: Owned, *, reference_s: int, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ``habit_features(owned) @ weights``, computed faster: float64, (n,)."""
    scores = np.empty(len(owned.rows))

    def part(start: int, stop: int) -> None:
        weigh_habits(owned.entries[start:stop], reference_s, _HABIT_HALF_LIVES, weights, scores[start:stop])

    map_ranges(len(scores), part)
    return scores


def _interval_days(owned: Owned) -> NDArray[np.float64]:
    """Return the mean time between purchases of each item, 0 for a single purchase: float64, (n,)."""
    entries = owned.entries
    return (entries[:, NEWEST] - entries[:, FIRST]) / _DAY_S / np.maximum(1, entries[:, PURCHASES] - 1)
