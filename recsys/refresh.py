"""The heart: histories and a model in, lists out. Consumer, sweep, API and evaluation all call `refresh`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recsys.confidence import confidence
from recsys.history import History
from recsys.model import FactorModel
from recsys.ranking import top_n


@dataclass(frozen=True, slots=True)
class RankedList:
    """Items with their scores, best first; empty when the model knows nothing the user owns."""

    item_ids: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()

    def __len__(self) -> int:
        return len(self.item_ids)


def refresh(
    histories: Sequence[History], model: FactorModel, *, n: int, hidden: Collection[str] = frozenset()
) -> list[RankedList]:
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
    list of RankedList, one per history, in order
        Owned and hidden items are left out. A user who owns nothing that the model knows gets an empty list:
        apps then fall back on the popular one.
    """
    if not histories:
        return []
    rows_of = model.items.rows
    owned_rows: list[NDArray[np.int64]] = []
    quantities: list[NDArray[np.float64]] = []
    for history in histories:
        rows = np.array([rows_of.get(item, -1) for item in history.item_ids], dtype=np.int64)
        known = np.flatnonzero((rows >= 0) & (history.quantities > 0))
        known = known[np.argsort(rows[known])]  # sums in a fixed order: a list does not depend on Redis's order
        owned_rows.append(rows[known])
        quantities.append(history.quantities[known])
    indptr = np.concatenate(([0], np.cumsum([len(rows) for rows in owned_rows]))).astype(np.int32)
    indices = np.concatenate(owned_rows).astype(np.int32)
    data = confidence(np.concatenate(quantities), alpha=model.alpha)
    user_factors = model.solver.fold_in(csr_matrix((data, indices, indptr), shape=(len(histories), len(model.items))))
    hidden_rows = np.array([rows_of[item] for item in hidden if item in rows_of], dtype=np.int64)
    # Users without anything known are not ranked: all their scores would be zero.
    foldable = [user for user, rows in enumerate(owned_rows) if len(rows)]
    ranked = top_n(
        user_factors[foldable],
        model.index,
        excluded=[owned_rows[user] for user in foldable],
        hidden=hidden_rows,
        n=n,
    )
    lists = [RankedList()] * len(histories)
    ids = model.items.ids
    for user, (rows, scores) in zip(foldable, ranked, strict=True):
        lists[user] = RankedList(tuple(ids[row] for row in rows.tolist()), tuple(scores.tolist()))
    return lists
