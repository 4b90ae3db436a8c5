"""The parameters of a fit."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pydantic import BaseModel, ConfigDict


@dataclass(frozen=True, slots=True)
class Parameters:
    """The parameters of a fit.

    Attributes
    ----------
    factors, iterations, seed : int
    alpha, regularization, half_life_days : float
        See `recsys.model.confidence.confidence` and `recsys.training.als.fit`.
    repeat_weight : float
        See `recsys.training.boost_weights.BoostWeights.boosts`.
    boost_window_days : float
        Weights of demand and habits are learned on the purchases of this many days; 0 = plain ALS.
    popular_half_life_days : float
        Of the popularity of items, see `recsys.model.influence.Buyers.demand`.
    min_buyers : float
        See `recsys.training.fit.supported`.
    """

    factors: int
    alpha: float
    regularization: float
    half_life_days: float
    repeat_weight: float
    iterations: int
    seed: int
    boost_window_days: float
    popular_half_life_days: float = 30.0
    min_buyers: float = 1.0


def iterations_of(parameters: Parameters, *, learn: bool = True) -> int:
    """Return the maximum number of iterations, for the progress."""
    return parameters.iterations * (2 if learn and parameters.boost_window_days else 1)


class Tuned(BaseModel):
    """The result of a tuning run."""

    model_config = ConfigDict(extra="forbid")

    parameters: dict[str, float]
    """The searched parameters, by their names in `ModelSettings`."""
    objective: float
    """Geometric mean of the next two."""
    ndcg_new: float
    ndcg_all: float
    """Means of NDCG@20 over the validation windows, of lists without owned items and with them."""
    before: float
    """The objective with the parameters that were in use when the search began."""
    ndcg_new_before: float = 0.0
    ndcg_all_before: float = 0.0
    """Both means with those parameters; 0 if they were not tried to the end."""
    parameters_before: dict[str, float] = {}
    """The parameters that were in use when the search began."""
    validated_until: str
    """Purchases from this time on were not used."""
    events: int
    trials: int
    at: str

    @property
    def moment(self) -> datetime:
        """When the tuning ended."""
        return datetime.fromisoformat(self.at)
