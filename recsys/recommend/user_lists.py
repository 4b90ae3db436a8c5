"""From histories and a model to lists of users. Consumer, full refresh, API and evaluation all call `refresh`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray

from recsys.data.history import History, read_histories
from recsys.data.owned_items import Owned
from recsys.data.vocabulary import Vocabulary
from recsys.model.boosts import USUAL_HABIT, habits
from recsys.model.confidence import confidences_of
from recsys.model.factor_model import FactorModel
from recsys.model.top_n import Ranking, top_n


@dataclass(frozen=True, slots=True)
class RankedList:
    """Items with their scores, best first; empty if the user owns nothing that the model knows."""

    item_ids: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()

    def __len__(self) -> int:
        return len(self.item_ids)


@dataclass(frozen=True, eq=False)
class RankedLists(Sequence[RankedList]):
    """The lists of many users, stored as rows of a model's items; ids are looked up on access."""

    items: Vocabulary
    ranking: Ranking
    again: Ranking | None = None
    """What the same users may buy again; None = was not requested."""

    @property
    def again_lists(self) -> RankedLists | None:
        """The lists of what users may buy again."""
        return None if self.again is None else RankedLists(self.items, self.again)

    def __len__(self) -> int:
        return len(self.ranking)

    @overload
    def __getitem__(self, place: int) -> RankedList: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[RankedList]: ...
    def __getitem__(self, place: int | slice) -> RankedList | Sequence[RankedList]:
        if isinstance(place, slice):
            return [self[at] for at in range(*place.indices(len(self)))]
        rows, scores = self.ranking[place]
        return RankedList(tuple(map(self.items.ids.__getitem__, rows.tolist())), tuple(scores.tolist()))


def refresh(
    histories: Sequence[History],
    model: FactorModel,
    *,
    n: int,
    hidden: Collection[str] = frozenset(),
    include_purchased: bool = False,
    again_n: int = 0,
) -> RankedLists:
    """Recompute users' lists: a pure function of history, model and hidden items.

    Parameters
    ----------
    histories : sequence of History
        One per user.
    model : FactorModel
    n : int
        Items per list.
    hidden : collection of str
        Ids of items that must not be recommended.
    include_purchased : bool
        Whether lists include already purchased items.
    again_n : int
        Items per list of what users may buy again; 0 = no such list.

    Returns
    -------
    RankedLists; one per history, in order
        Hidden items are left out, and owned ones unless ``include_purchased``. A user who owns nothing that the model
        knows gets an empty list; apps then show the popular list.
    """
    hidden_rows = model.items.find(hidden)
    hidden_rows = hidden_rows[hidden_rows >= 0]
    owned = read_histories(histories, model.items)
    ranking = rank(owned, model, n=n, hidden=hidden_rows, include_purchased=include_purchased)
    again = rank_again(owned, model, n=again_n, hidden=hidden_rows) if again_n else None
    return RankedLists(model.items, ranking, again)


def rank(
    owned: Owned, model: FactorModel, *, n: int, hidden: NDArray[np.integer] | None = None, include_purchased: bool
) -> Ranking:
    """Return users' best items by x_u·y_i + b_i + g_ui, as `refresh` does, from what they own of the model's items.

    Parameters
    ----------
    owned : Owned
    hidden : integers
        Rows of items that must not be recommended.
    """
    factors = user_factors(owned, model)
    # Users who own nothing known are not ranked: all their scores would be zero.
    foldable = np.flatnonzero(owned.sizes)
    bounds = owned.starts.tolist()
    ranking = top_n(
        factors[foldable],
        model.index,
        excluded=[owned.rows[bounds[user] : bounds[user + 1]] for user in foldable.tolist()],
        hidden=hidden,
        n=n,
    ).spread_to(foldable, len(owned))
    if include_purchased:
        return _include_purchased(ranking, owned, factors, model, n=n, hidden=hidden)
    return ranking


def rank_again(owned: Owned, model: FactorModel, *, n: int, hidden: NDArray[np.integer] | None = None) -> Ranking:
    """Return the owned items that users are most likely to buy again.

    The score is what the user's habit adds to the score of an owned item (`recsys.model.boosts.habit_features`), with
    the learned weights, or with default weights if none were learned.
    """
    weights = USUAL_HABIT if model.boosts is None or not model.boosts.habit.any() else model.boosts.habit
    scores = habits(owned, reference_s=model.reference_s, weights=weights)
    if hidden is not None and len(hidden):
        scores[np.isin(owned.rows, hidden)] = -np.inf
    nothing = np.empty((len(owned), 0))
    none = Ranking(nothing.astype(np.int64), nothing.astype(np.float32), np.zeros(len(owned), np.int64))
    no_factors = np.zeros((len(owned), 0), np.float32), np.zeros((len(model.items), 0), np.float32)
    return none.with_others(owned.starts, owned.rows, scores, 0.0, *no_factors, n=n)


def user_factors(owned: Owned, model: FactorModel) -> NDArray[np.float32]:
    """Return x_u of users from what they own of the model's items: float32, (n_users, factors)."""
    confidences = confidences_of(
        owned,
        n_items=len(model.items),
        alpha=model.alpha,
        half_life_days=model.half_life_days,
        reference_s=model.reference_s,
    )
    return model.solver.fold_in(confidences)


def _include_purchased(
    ranking: Ranking,
    owned: Owned,
    factors: NDArray[np.float32],
    model: FactorModel,
    *,
    n: int,
    hidden: NDArray[np.integer] | None,
) -> Ranking:
    """Merge the owned items into the best items that are not owned."""
    boosts, affinity = np.zeros(len(owned.rows)), 0.0
    if (learned := model.boosts) is not None:
        boosts += learned.item_bias[owned.rows]
        boosts += learned.repeat_bias[owned.rows]
        boosts += habits(owned, reference_s=model.reference_s, weights=learned.habit)
        affinity = learned.affinity
    if hidden is not None and len(hidden):
        boosts[np.isin(owned.rows, hidden)] = -np.inf
    return ranking.with_others(owned.starts, owned.rows, boosts, affinity, factors, model.item_factors, n=n)
