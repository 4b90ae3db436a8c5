"""The heart: histories and a model in, lists out. Consumer, sweep, API and evaluation all call `refresh`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, repeat

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
    users, rows, quantities = _owned(histories, rows_of)
    bounds = np.searchsorted(users, np.arange(len(histories) + 1))
    confidences = csr_matrix(
        (confidence(quantities, alpha=model.alpha), rows.astype(np.int32), bounds.astype(np.int32)),
        shape=(len(histories), len(model.items)),
    )
    user_factors = model.solver.fold_in(confidences)
    hidden_rows = np.array([rows_of[item] for item in hidden if item in rows_of], dtype=np.int64)
    # Users without anything known are not ranked: all their scores would be zero.
    foldable = np.flatnonzero(np.diff(bounds))
    starts = bounds.tolist()
    ranked = top_n(
        user_factors[foldable],
        model.index,
        excluded=[rows[starts[user] : starts[user + 1]] for user in foldable.tolist()],
        hidden=hidden_rows,
        n=n,
    )
    lists = [RankedList()] * len(histories)
    id_of = model.items.ids.__getitem__
    for user, (best, scores) in zip(foldable.tolist(), ranked, strict=True):
        lists[user] = RankedList(tuple(map(id_of, best.tolist())), tuple(scores.tolist()))
    return lists


def _owned(
    histories: Sequence[History], rows_of: Mapping[str, int]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Return all pairs of a user and an owned item that the model knows: user, row, net quantity.

    They are in order of user and row: sums are taken in a fixed order, so a list does not depend on Redis's.
    """
    sizes = [len(history.item_ids) for history in histories]
    items = chain.from_iterable(history.item_ids for history in histories)
    rows = np.fromiter(map(rows_of.get, items, repeat(-1)), np.int64, sum(sizes))
    users = np.repeat(np.arange(len(histories)), sizes)
    quantities = np.concatenate([history.quantities for history in histories])
    owned = np.flatnonzero((rows >= 0) & (quantities > 0))
    owned = owned[np.argsort(users[owned] * len(rows_of) + rows[owned])]
    return users[owned], rows[owned], quantities[owned]
