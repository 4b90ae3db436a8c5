"""Learning the weights of recent demand and habits beside x_u·y_i.

Two logistic regressions learn from what users bought in the last weeks, with a model fitted on the purchases
before. For items that a user did not own, the log-odds of buying one are a_0 + a·(x_u·y_i) + Σ_k a_k·d_ik, with its
recent demand d_i. For owned items they are b_0 + b·(x_u·y_i) + Σ_k b_k·d_ik + Σ_k c_k·h_uik, with the user's habits
h_ui as well (`recsys.model.boosts`). Log-odds of both kinds are comparable, so both kinds of items fit in one list.
All are divided by a, so that x_u·y_i has weight 1: the first are then b_i, and g_ui is the difference of the second
to them.

Each user counts a second time with a few items only, as the newcomer that the user once was: b_i must fit both. One
regression for both kinds of items serves neither well: docs/decisions/0009-learned-ranking.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.data.owned_items import Owned
from recsys.evaluation.split import RelevantItems, Split
from recsys.model.boosts import (
    DEMAND,
    DEMAND_HALF_LIVES_DAYS,
    NO_WEIGHTS,
    BoostWeights,
    demand_features,
    habit_features,
)
from recsys.model.factor_model import FactorModel
from recsys.model.influence import BOUNDED, Bounds, Buyers, share
from recsys.recommend.user_lists import user_factors

_MOST_USERS = 5_000
_NEGATIVES = 100
_SHORT = 5
_SHORT_SHARE = 0.08
"""Weight of the examples of users as newcomers, with one to five items. Their x_u·y_i is small, so they need the full
weight of demand; for others x_u·y_i includes much of it already. Measured: a higher weight makes lists of others worse,
a lower one those of newcomers."""
_LEAST_PURCHASES = 100
_LEAST_DEVIATION = 0.01
"""Demand and habits (all logarithms) that differ by less than 1 % carry no information and could get any weight."""
_LEAST_EFFECT = 0.03
"""Minimum rise of the log-odds of a purchase per standard deviation of x_u·y_i; real data has some tenths."""


def item_demand(buyers: Buyers, model: FactorModel) -> NDArray[np.float64]:
    """Return the demand for a model's items, from purchases up to its reference: float64, (n_items, 3)."""
    return demand_features(
        buyers.demand(model.items, reference_s=model.reference_s, half_lives_days=DEMAND_HALF_LIVES_DAYS)
    )


def learn(
    split: Split, model: FactorModel, demand: NDArray[np.float64], *, seed: int = 0, bounds: Bounds = BOUNDED
) -> BoostWeights:
    """Learn weights from what users bought after the cut.

    Parameters
    ----------
    split : Split
    model : FactorModel
        Fitted on the purchases before the cut, with the cut as its reference.
    demand : float64, (n_items, 3)
        Demand of its items at the cut.
    seed : int
        Random seed of the users and items that are drawn.
    bounds : Bounds
        Of what one user can move.

    Returns
    -------
    BoostWeights
        All zero if there are too few purchases to learn from, or if x_u·y_i itself predicts nothing.
    """
    rng = np.random.default_rng(seed)
    users = np.flatnonzero(~split.newcomers & (split.everything.sizes > 0))
    if len(users) > _MOST_USERS:
        users = np.sort(rng.choice(users, _MOST_USERS, replace=False))
    owned, bought = split.owned.of(users), split.everything.of(users)
    shares = share(owned.sizes + bought.sizes, bounds)  # nobody's examples outweigh those of all others
    whole = _not_owned(owned, bought, model, demand, rng)
    short = _not_owned(_shortened(owned, rng), bought, model, demand, rng)
    features = np.concatenate((whole.features, short.features))
    of_new = _regression(
        features,
        np.concatenate((whole.bought, short.bought)),
        np.concatenate((whole.weights * shares[whole.users], _SHORT_SHARE * short.weights * shares[short.users])),
    )
    # All weights are divided by that of x_u·y_i, and have no bound if that is nearly zero.
    if of_new is None or not of_new[1] * features[:, 0].std() >= _LEAST_EFFECT:
        return NO_WEIGHTS
    unit, n_demand, new_demand = of_new[1], len(DEMAND), of_new[2:]
    owner = owned.owners()
    pairs = owner * len(model.items) + owned.rows
    habits = habit_features(owned, reference_s=model.reference_s)[:, 1:]
    of_owned = _regression(
        np.column_stack((_features(owned, owner, owned.rows, model, demand), habits)),
        np.isin(pairs, bought.keys),
        shares[owner],
    )
    if of_owned is None:
        return BoostWeights(demand=_floats(new_demand / unit))
    constant, weights = (of_owned[0] - of_new[0]) / unit, of_owned[1:] / unit
    return BoostWeights(
        demand=_floats(new_demand / unit),
        affinity=float(weights[0] - 1.0),
        repeat_demand=_floats(weights[1 : 1 + n_demand] - new_demand / unit),
        habit=_floats(np.concatenate(([constant], weights[1 + n_demand :]))),
    )


@dataclass(frozen=True, eq=False)
class _Examples:
    """Pairs of a user and an item: features, whether the item was bought, and how many pairs each stands for."""

    users: NDArray[np.int64]
    features: NDArray[np.float64]
    bought: NDArray[np.bool_]
    weights: NDArray[np.float64]


def _not_owned(
    owned: Owned, everything: RelevantItems, model: FactorModel, demand: NDArray[np.float64], rng: np.random.Generator
) -> _Examples:
    """Return what users bought and did not own, and some of what they neither owned nor bought."""
    n_users, n_items = len(owned), max(1, len(model.items))
    bought = everything.without(owned).keys
    drawn, weights = _drawn(np.union1d(owned.owners() * n_items + owned.rows, bought), n_users, n_items, rng)
    of, rows = np.divmod(np.concatenate((bought, drawn)), n_items)
    return _Examples(
        of,
        _features(owned, of, rows, model, demand),
        np.arange(len(of)) < len(bought),
        np.concatenate((np.ones(len(bought)), weights)),
    )


def _features(
    owned: Owned,
    of: NDArray[np.integer],
    rows: NDArray[np.integer],
    model: FactorModel,
    demand: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return x_u·y_i and the demand of items, for pairs of a user and an item."""
    factors = user_factors(owned, model)
    affinities = np.einsum("nk,nk->n", factors[of], model.item_factors[rows], dtype=np.float64)
    return np.column_stack((affinities, demand[rows]))


def _shortened(owned: Owned, rng: np.random.Generator) -> Owned:
    """Return users as they could have been when they were new: one to five of their items, drawn at random."""
    owner = owned.owners()
    order = np.lexsort((rng.random(len(owner)), owner))
    place = np.empty(len(owner), np.int64)
    place[order] = np.arange(len(owner)) - owned.starts[owner]
    kept = place < rng.integers(1, _SHORT, len(owned), endpoint=True)[owner]
    sizes = np.bincount(owner[kept], minlength=len(owned))
    starts = np.concatenate(([0], np.cumsum(sizes))).astype(np.int32)
    return Owned(starts, owned.rows[kept], owned.entries[kept])


def _drawn(
    taken: NDArray[np.int64], n_users: int, n_items: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Draw pairs that are not taken, as user · n_items + row; with weights, so that they stand for all such pairs.

    ``taken`` ascends.
    """
    keys = np.repeat(np.arange(n_users), _NEGATIVES) * n_items + rng.integers(0, n_items, n_users * _NEGATIVES)
    keys = np.setdiff1d(keys, taken)
    of = keys // n_items
    left = n_items - np.bincount(taken // n_items, minlength=n_users)
    return keys, (left / np.maximum(1, np.bincount(of, minlength=n_users)))[of]


def _regression(
    features: NDArray[np.float64], bought: NDArray[np.bool_], weights: NDArray[np.float64]
) -> NDArray[np.float64] | None:
    """Return the intercept and the weights of log-odds, or None if there is too little to learn them from."""
    if bought.sum() < _LEAST_PURCHASES or (~bought).sum() < _LEAST_PURCHASES:
        return None
    from sklearn.linear_model import LogisticRegression  # takes a second to import

    means, deviations = features.mean(axis=0), features.std(axis=0)
    tells = deviations > np.where(np.arange(len(deviations)) == 0, 0.0, _LEAST_DEVIATION)  # x_u·y_i comes first
    scaled = (features[:, tells] - means[tells]) / deviations[tells]
    # Newton steps: few are needed where there are a million rows and a dozen columns.
    regression = LogisticRegression(C=1.0, solver="newton-cholesky", max_iter=200)
    regression.fit(scaled, bought, sample_weight=weights / weights.mean())
    coefficients = np.zeros(features.shape[1])
    coefficients[tells] = regression.coef_[0] / deviations[tells]
    return np.concatenate((regression.intercept_ - coefficients @ means, coefficients))


def _floats(values: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(values.tolist())
