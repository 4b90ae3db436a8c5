"""What a model is fitted with."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pydantic import BaseModel, ConfigDict


@dataclass(frozen=True, slots=True)
class Parameters:
    """What a model is fitted with.

    Attributes
    ----------
    factors, iterations, seed : int
    alpha, regularization, half_life_days : float
        See `recsys.model.confidence.confidence` and `recsys.training.als.fit`.
    repeat_weight : float
        See `recsys.training.boost_weights.BoostWeights.boosts`.
    boost_window_days : float
        Weights of demand and habits are learned on the purchases of so many days; 0 = plain ALS.
    popular_half_life_days : float
        See `recsys.recommend.item_lists.popularity`.
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


def iterations_of(parameters: Parameters, *, learn: bool = True) -> int:
    """Return how many iterations there are at most, for the progress."""
    return parameters.iterations * (2 if learn and parameters.boost_window_days else 1)


class Tuned(BaseModel):
    """What tuning found."""

    model_config = ConfigDict(extra="forbid")

    parameters: dict[str, float]
    """Of `ModelSettings`, those that were searched."""
    objective: float
    """Geometric mean of the two following."""
    ndcg_new: float
    ndcg_all: float
    """Means of NDCG@20 over the validation windows, of lists without owned items and with them."""
    before: float
    """The objective with the parameters that were in use when the search began."""
    parameters_before: dict[str, float] = {}
    """Those."""
    validated_until: str
    """No purchase from then on was looked at."""
    events: int
    trials: int
    at: str

    @property
    def moment(self) -> datetime:
        """When the tuning ended."""
        return datetime.fromisoformat(self.at)
