"""Compiled code of `recsys.model.boosts`: scores of habits, without arrays in between."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.data.owned_items import FIRST, NEWEST, PURCHASES
from recsys.runtime.jit import compiled

_DAY_S = 86_400.0


@compiled()
def _frequency(age: float, interval: float, purchases: int, half_life: float) -> Any:
    """See `recsys.model.boosts.decayed_frequency`."""
    newest = 2.0 ** (-age / half_life)
    if purchases <= 1:
        return newest
    decay = 2.0 ** (-interval / half_life)
    if decay > 1 - 1e-9:
        return newest * purchases
    return newest * (1 - decay**purchases) / (1 - decay)


@compiled()
def weigh_habits(
    entries: NDArray[np.int64],
    reference_s: int,
    half_lives: NDArray[np.float64],
    weights: NDArray[np.float64],
    scores: NDArray[np.float64],
) -> None:
    """Compute the weighted sum of `recsys.model.boosts.habit_features` for each entry.

    Parameters
    ----------
    entries : int64, (n, 4)
        See `recsys.data.owned_items.Owned`.
    half_lives : float64, (2,)
        Half-lives of the frequencies, in days.
    weights : float64, (8,)
    scores : float64, (n,)
        Written.
    """
    for at in range(len(scores)):
        purchases = entries[at, PURCHASES]
        age = max(0, reference_s - entries[at, NEWEST]) / _DAY_S
        interval = (entries[at, NEWEST] - entries[at, FIRST]) / _DAY_S / max(1, purchases - 1)
        log_age = np.log1p(age)
        score = weights[0]
        score += weights[1] * np.log1p(_frequency(age, interval, purchases, half_lives[0]))
        score += weights[2] * np.log1p(_frequency(age, interval, purchases, half_lives[1]))
        score += weights[3] * np.log1p(purchases)
        score += weights[4] * log_age
        if purchases > 1:
            log_interval = np.log1p(interval)
            score += weights[5] + weights[6] * log_interval + weights[7] * abs(log_age - log_interval)
        scores[at] = score
