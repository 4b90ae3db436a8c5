"""The heart: histories and a model in, lists out. Consumer, sweep, API and evaluation all call `refresh`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from scipy.sparse import csr_matrix

from recsys.confidence import confidence
from recsys.history import History, owned_rows
from recsys.model import FactorModel
from recsys.ranking import Ranking, top_n
from recsys.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class RankedList:
    """Items with their scores, best first; empty when the model knows nothing the user owns."""

    item_ids: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()

    def __len__(self) -> int:
        return len(self.item_ids)


@dataclass(frozen=True, eq=False)
class RankedLists(Sequence[RankedList]):
    """The lists of many users, as rows of a model's items until someone asks for one."""

    items: Vocabulary
    ranking: Ranking

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
    histories: Sequence[History], model: FactorModel, *, n: int, hidden: Collection[str] = frozenset()
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
        Item ids never to be recommended.

    Returns
    -------
    RankedLists; one per history, in order
        Owned and hidden items are left out. A user who owns nothing that the model knows gets an empty list:
        apps then fall back on the popular one.
    """
    starts, rows, quantities = owned_rows(histories, model.items)
    confidences = csr_matrix(
        (confidence(quantities, alpha=model.alpha), rows, starts), shape=(len(histories), len(model.items))
    )
    user_factors = model.solver.fold_in(confidences)
    hidden_rows = model.items.find(hidden)
    # Users without anything known are not ranked: all their scores would be zero.
    foldable = np.flatnonzero(np.diff(starts))
    bounds = starts.tolist()
    ranking = top_n(
        user_factors[foldable],
        model.index,
        excluded=[rows[bounds[user] : bounds[user + 1]] for user in foldable.tolist()],
        hidden=hidden_rows[hidden_rows >= 0],
        n=n,
    )
    return RankedLists(model.items, ranking.spread_to(foldable, len(histories)))
