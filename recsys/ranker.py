"""Learning how much recent demand and habits weigh beside x_u·y_i.

Two logistic regressions on what users bought in the last weeks, from a model fitted on what precedes them. For items
that a user did not own, the log-odds of buying one are a_0 + a·(x_u·y_i) + Σ_k a_k·d_ik over its recent demand d_i;
for owned ones they are b_0 + b·(x_u·y_i) + Σ_k b_k·d_ik + Σ_k c_k·h_uik, with the user's habits h_ui as well
(`recsys.boosts`). Log-odds of both kinds compare, so the two meet in one list. Divided by a, in which x_u·y_i has
weight 1, the first are b_i, and what the second have beside them is g_ui. One regression for both kinds of items was
measured and serves neither well: docs/decisions/0009-learned-ranking.md.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from recsys.boosts import DEMAND, NO_WEIGHTS, RankerWeights, demand_features, habit_features
from recsys.evaluation import Split
from recsys.interactions import EventLog
from recsys.model import FactorModel
from recsys.refresh import user_factors

_MOST_USERS = 5_000
_NEGATIVES = 100
_LEAST_PURCHASES = 100
_LEAST_DEVIATION = 0.01
"""Demand and habits, all logarithms, that differ less than by 1 % tell nothing, and could get any weight."""
_LEAST_EFFECT = 0.03
"""Of x_u·y_i: how much the log-odds of a purchase rise with a standard deviation; on real data some tenths."""


def item_demand(events: EventLog, model: FactorModel) -> NDArray[np.float64]:
    """Return the demand for a model's items, from events up to its reference: float64, (n_items, 3)."""
    rows = model.items.find(events.item_ids)[events.item_codes]
    bought = (rows >= 0) & (events.units > 0)
    return demand_features(rows[bought], events.seconds[bought], len(model.items), reference_s=model.reference_s)


def learn(split: Split, model: FactorModel, demand: NDArray[np.float64], *, seed: int = 0) -> RankerWeights:
    """Learn weights from what users bought after the cut.

    Parameters
    ----------
    split : Split
    model : FactorModel
        Fitted on what precedes the cut, with the cut as its reference.
    demand : float64, (n_items, 3)
        For its items at the cut.
    seed : int
        Of the users and items that are drawn.

    Returns
    -------
    RankerWeights
        All zero where there is too little to learn from, or where x_u·y_i itself tells nothing.
    """
    rng = np.random.default_rng(seed)
    users = np.flatnonzero(~split.newcomers & (split.everything.sizes > 0))
    if len(users) > _MOST_USERS:
        users = np.sort(rng.choice(users, _MOST_USERS, replace=False))
    owned, everything = split.owned.of(users), split.everything.of(users)
    new, n_items = everything.without(owned), len(model.items)
    factors = user_factors(owned, model)

    def features(of: NDArray[np.integer], rows: NDArray[np.integer]) -> NDArray[np.float64]:
        affinities = np.einsum("nk,nk->n", factors[of], model.item_factors[rows], dtype=np.float64)
        return np.column_stack((affinities, demand[rows]))

    owner = owned.owners()
    pairs = owner * n_items + owned.rows
    drawn_of, drawn_rows, drawn_weights = _drawn(np.union1d(pairs, new.keys), len(users), n_items, rng)
    new_of, new_rows = np.divmod(new.keys, max(1, n_items))
    features_of_new = np.concatenate((features(new_of, new_rows), features(drawn_of, drawn_rows)))
    of_new = _regression(
        features_of_new,
        np.concatenate((np.ones(len(new_rows), np.bool_), np.zeros(len(drawn_rows), np.bool_))),
        np.concatenate((np.ones(len(new_rows)), drawn_weights)),
    )
    # All weights are in units of that of x_u·y_i, and without bound where that is nearly nothing.
    if of_new is None or not of_new[1] * features_of_new[:, 0].std() >= _LEAST_EFFECT:
        return NO_WEIGHTS
    unit, n_demand = of_new[1], len(DEMAND)
    new_demand = of_new[2:]
    habits = habit_features(owned, reference_s=model.reference_s)[:, 1:]
    of_owned = _regression(
        np.column_stack((features(owner, owned.rows), habits)), np.isin(pairs, everything.keys), np.ones(len(owner))
    )
    if of_owned is None:
        return RankerWeights(demand=_floats(new_demand / unit))
    constant, weights = (of_owned[0] - of_new[0]) / unit, of_owned[1:] / unit
    return RankerWeights(
        demand=_floats(new_demand / unit),
        affinity=float(weights[0] - 1.0),
        repeat_demand=_floats(weights[1 : 1 + n_demand] - new_demand / unit),
        habit=_floats(np.concatenate(([constant], weights[1 + n_demand :]))),
    )


def _drawn(
    taken: NDArray[np.int64], n_users: int, n_items: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Draw items that a user neither owned nor bought; with weights, so that they stand for all that there are.

    ``taken`` holds user · n_items + row of those that are not to be drawn, ascending.
    """
    keys = np.repeat(np.arange(n_users), _NEGATIVES) * n_items + rng.integers(0, max(1, n_items), n_users * _NEGATIVES)
    keys = np.setdiff1d(keys, taken)
    of, rows = np.divmod(keys, max(1, n_items))
    left = n_items - np.bincount(taken // max(1, n_items), minlength=n_users)
    return of, rows, (left / np.maximum(1, np.bincount(of, minlength=n_users)))[of]


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
