"""Fitting a model in memory: interactions, item factors, learned boost weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from recsys.data.event_log import EventLog
from recsys.data.interactions import Interactions
from recsys.errors import InvalidModel, NotEnoughData
from recsys.evaluation.split import split_by_time
from recsys.model.boosts import DEMAND_HALF_LIVES_DAYS, NO_WEIGHTS, BoostWeights, demand_features
from recsys.model.confidence import confidences_of
from recsys.model.factor_model import FactorModel, gram
from recsys.model.influence import BOUNDED, Bounds, Buyers
from recsys.training import als
from recsys.training.boost_weights import item_demand, learn
from recsys.training.parameters import Parameters

_DAY_S = 24 * 3600
_ENOUGH_USERS = 1_000
"""With fewer, items need fewer buyers in proportion, so that everything enters the model of a small shop."""
_UNSAVED = "unsaved"
_ROUNDING = 1e-9
"""Buyers who count a fifth each are enough when there are five."""


@dataclass(frozen=True, eq=False)
class Fitted:
    """A model that is not saved yet, and facts about it.

    Attributes
    ----------
    parameters : Parameters
        Parameters of the fit.
    model : FactorModel
        Vocabulary, item factors and boosts.
    weights : BoostWeights
        Weights of its boosts.
    counts : dict
        Numbers of users, items, pairs and events that it was fitted on.
    buyers : int64, (n_items,)
        Number of users who own each item.
    demand : float64, (n_items, 3)
        See `recsys.model.boosts.demand_features`.
    popularity : float64, (n_items,)
        Demand with the half-life of the popular list, see `recsys.model.influence.Buyers.demand`.
    """

    parameters: Parameters
    model: FactorModel
    weights: BoostWeights
    counts: Mapping[str, int]
    buyers: NDArray[np.int64]
    demand: NDArray[np.float64]
    popularity: NDArray[np.float64]


def fit_model(
    events: EventLog,
    parameters: Parameters,
    *,
    reference_s: int,
    weights: BoostWeights | None = None,
    bounds: Bounds = BOUNDED,
    on_iteration: Callable[[], None] = lambda: None,
) -> Fitted:
    """Fit item factors on all events, and learn the weights of demand and habits on the newest ones.

    The weights are learned with a model fitted on the events before the last ``boost_window_days``.

    Parameters
    ----------
    events : EventLog
    parameters : Parameters
    reference_s : int
        The moment that ages are measured against, in epoch seconds.
    weights : BoostWeights or None
        Weights that are known already; None = they are learned.
    bounds : Bounds
        Of what one user can move.
    on_iteration : callable
        Called after each of `iterations_of` iterations, or fewer if no weights are learned.

    Raises
    ------
    NotEnoughData
        When nobody owns anything, or no item has enough buyers.
    """
    buyers = Buyers.of(events, bounds)
    interactions = supported(events.interactions(), buyers, parameters.min_buyers)
    model = _fit(interactions, buyers, parameters, reference_s, on_iteration)
    if weights is None:
        weights = _learned(events, parameters, reference_s, bounds, on_iteration)
    half_lives_days = (*DEMAND_HALF_LIVES_DAYS, parameters.popular_half_life_days)
    decayed = buyers.demand(model.items, reference_s=reference_s, half_lives_days=half_lives_days)
    demand, popular = demand_features(decayed[:, :-1]), decayed[:, -1]
    model = replace(model, boosts=weights.boosts(demand, repeat_weight=parameters.repeat_weight))
    counts = {
        "users": len(interactions.users),
        "items": len(interactions.items),
        "pairs": len(interactions.owned.rows),
        "events": len(events),
    }
    return Fitted(parameters, model, weights, counts, interactions.buyers(), demand, popular)


def supported(interactions: Interactions, buyers: Buyers, min_buyers: float) -> Interactions:
    """Leave out items with too little support by their buyers (`recsys.model.influence`).

    One user, or one key that posts for many, could invent items without end: each would get factors, a list of similar
    items, and a place in all others' search for theirs. What accounts of one day can bring in is bounded by how many
    they are: forty items each, and nothing while they are fewer than five.

    Parameters
    ----------
    interactions : Interactions
    buyers : Buyers
    min_buyers : float
        The least support; with fewer than 1,000 users less, in proportion.

    Raises
    ------
    NotEnoughData
        When nobody owns anything, or no item is left.
    """
    if not len(interactions.users):
        raise NotEnoughData("there are no purchases to train on yet; publish some, or use recsys import")
    owned, n_items = interactions.owned, len(interactions.items)
    weights = buyers.support(interactions.users, owned.sizes)
    support = np.bincount(owned.rows, weights[owned.owners()], n_items)
    kept = support >= min_buyers * min(1.0, len(interactions.users) / _ENOUGH_USERS) - _ROUNDING
    if kept.all():
        return interactions
    if not kept.any():
        raise NotEnoughData(
            f"none of {n_items:,} items is bought by {min_buyers:g} regular customers, or more young ones; "
            f"lower RECSYS_MODEL__MIN_BUYERS"
        )
    return interactions.of_items(kept)


def _learned(
    events: EventLog, parameters: Parameters, reference_s: int, bounds: Bounds, on_iteration: Callable[[], None]
) -> BoostWeights:
    if not parameters.boost_window_days:
        return NO_WEIGHTS
    cut_s = reference_s - round(parameters.boost_window_days * _DAY_S)
    before = events.where(events.seconds < cut_s)
    buyers = Buyers.of(before, bounds)
    try:
        train = supported(before.interactions(), buyers, parameters.min_buyers)
    except NotEnoughData:
        return NO_WEIGHTS
    split = split_by_time(events, cut_s=cut_s, end_s=reference_s + 1, train=train)
    if not split.n_users:
        return NO_WEIGHTS
    earlier = _fit(train, buyers, parameters, cut_s, on_iteration)
    return learn(split, earlier, item_demand(buyers, earlier), seed=parameters.seed, bounds=bounds)


def _fit(
    interactions: Interactions,
    buyers: Buyers,
    parameters: Parameters,
    reference_s: int,
    on_iteration: Callable[[], None],
) -> FactorModel:
    item_factors = als.fit(
        confidences_of(
            interactions.owned,
            n_items=len(interactions.items),
            alpha=parameters.alpha,
            half_life_days=parameters.half_life_days,
            reference_s=reference_s,
        ),
        buyers.weights(interactions.users, interactions.owned.sizes),
        factors=parameters.factors,
        regularization=parameters.regularization,
        iterations=parameters.iterations,
        seed=parameters.seed,
        on_iteration=on_iteration,
    )
    if not np.isfinite(item_factors).all():
        raise InvalidModel(
            f"the fit gave numbers that are not finite, with alpha {parameters.alpha:g} and regularization "
            f"{parameters.regularization:g}; choose others (RECSYS_MODEL__ALPHA, RECSYS_MODEL__REGULARIZATION)"
        )
    return FactorModel(
        version=_UNSAVED,
        items=interactions.items,
        item_factors=item_factors,
        item_gram=gram(item_factors),
        alpha=parameters.alpha,
        regularization=parameters.regularization,
        half_life_days=parameters.half_life_days,
        reference_s=reference_s,
    )
