"""Why an item is in a list: the owned items and other parts that make its score."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from recsys.data.history import History, read_histories
from recsys.model.boosts import habits
from recsys.model.confidence import confidence
from recsys.model.factor_model import FactorModel


@dataclass(frozen=True, slots=True)
class Explanation:
    """The parts of one score; they sum to it.

    Attributes
    ----------
    score : float
        Score of the item for the user: x_u·y_i + b_i, and + g_ui if the item is owned and ``include_purchased``.
    contributions : tuple of (item id, float)
        What each owned item adds, the largest first.
    demand : float
        What the item's recent demand adds.
    habit : float
        What the user's habit of buying this item adds; 0 unless it is owned and ``include_purchased``.
    owned : bool
        Whether the user owns the item.
    others : float
        What further owned items add together, see `largest`; 0 if all are among the contributions.
    other_items : int
        How many these are.
    """

    score: float
    contributions: tuple[tuple[str, float], ...]
    demand: float
    habit: float
    owned: bool
    others: float = 0.0
    other_items: int = 0

    def largest(self, top: int) -> Explanation:
        """Return the same with the largest so many contributions; what the others add is in `others`."""
        rest = self.contributions[top:]
        return replace(
            self,
            contributions=self.contributions[:top],
            others=self.others + sum(part for _, part in rest),
            other_items=self.other_items + len(rest),
        )


def explain(history: History, model: FactorModel, item_id: str, *, include_purchased: bool) -> Explanation:
    """Split the score of an item for a user into its parts.

    Hu, Koren & Volinsky 2008, section 5: x_u = W_u Yᵀ C_u p_u with W_u = (YᵀC_uY + λI)⁻¹, so that
    x_u·y_i = Σ_j c_uj · y_iᵀ W_u y_j over the owned items j.

    Parameters
    ----------
    history : History
    model : FactorModel
    item_id : str
    include_purchased : bool
        Whether lists include already purchased items, as for `recsys.recommend.user_lists.refresh`.

    Raises
    ------
    KeyError
        When the model does not know the item.
    """
    row = int(model.items.find([item_id])[0])
    if row < 0:
        raise KeyError(item_id)
    owned = read_histories([history], model.items)
    confidences = confidence(
        owned.quantities, owned.ages_days(model.reference_s), alpha=model.alpha, half_life_days=model.half_life_days
    ).astype(np.float64)
    own = model.item_factors[owned.rows].astype(np.float64)
    system = model.item_gram.astype(np.float64) + model.regularization * np.eye(own.shape[1])
    system += own.T @ (own * (confidences - 1.0)[:, None])
    parts = confidences * (own @ np.linalg.solve(system, model.item_factors[row].astype(np.float64)))
    boosts = model.boosts
    demand = 0.0 if boosts is None else float(boosts.item_bias[row])
    place = np.flatnonzero(owned.rows == row)
    habit = 0.0
    if len(place) and include_purchased and boosts is not None:
        parts *= 1.0 + boosts.affinity
        demand += float(boosts.repeat_bias[row])
        habit = float(habits(owned, reference_s=model.reference_s, weights=boosts.habit)[place[0]])
    order = np.lexsort((owned.rows, -parts)).tolist()
    contributions = tuple((model.items.ids[owned.rows[at]], float(parts[at])) for at in order)
    return Explanation(float(parts.sum()) + demand + habit, contributions, demand, habit, bool(len(place)))
