"""Lists that do not depend on a user: popular items, and the items most similar to each item."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from recsys.data.vocabulary import Vocabulary
from recsys.model.factor_model import FactorModel
from recsys.model.top_n import ItemIndex, top_n
from recsys.recommend.user_lists import RankedList, RankedLists


def by_popularity(popular: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the rows of items, the most popular one first, equal ones as they come: int64, (n_items,)."""
    return np.lexsort((np.arange(len(popular)), -popular))


def popular_items(
    items: Vocabulary, popular: NDArray[np.float64], *, n: int, hidden: Collection[str] = frozenset()
) -> RankedList:
    """Return the most popular items; the score is their popularity.

    Parameters
    ----------
    items : Vocabulary
    popular : float64, (n_items,)
        Their demand with the half-life of the popular list, see `recsys.model.influence.Buyers.demand`.
    """
    best = [row for row in by_popularity(popular).tolist() if items.ids[row] not in hidden][:n]
    return RankedList(tuple(items.ids[row] for row in best), tuple(float(popular[row]) for row in best))


def popular_by_category(
    items: Vocabulary,
    popular: NDArray[np.float64],
    categories: Mapping[str, str],
    *,
    n: int,
    hidden: Collection[str] = frozenset(),
) -> dict[str, RankedList]:
    """Return the most popular items of each category, given item id → category; items without one are left out."""
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row in by_popularity(popular).tolist():
        item = items.ids[row]
        category = categories.get(item)
        if category and item not in hidden and len(rows_of[category]) < n:
            rows_of[category].append(row)
    return {
        category: RankedList(tuple(items.ids[row] for row in rows), tuple(float(popular[row]) for row in rows))
        for category, rows in rows_of.items()
        if rows
    }


def similar_items(
    model: FactorModel,
    *,
    n: int,
    batch: int,
    hidden: Collection[str] = frozenset(),
    rows: NDArray[np.int64] | None = None,
) -> Iterator[tuple[list[str], RankedLists]]:
    """Yield, in batches, items with the items of the highest cosine of factors, without the item itself.

    Items whose factors are zero have no direction and get no list.

    Parameters
    ----------
    rows : int64, (m,), or None
        Of the items to yield; None = all.
    """
    norms = np.linalg.norm(model.item_factors, axis=1, keepdims=True)
    directions = (model.item_factors / np.where(norms > 0, norms, 1.0)).astype(np.float32)
    without_direction = np.flatnonzero(norms[:, 0] == 0)
    hidden_rows = model.items.find(hidden)
    never = np.concatenate((without_direction, hidden_rows[hidden_rows >= 0]))
    index = ItemIndex.build(directions)
    rows = np.flatnonzero(norms[:, 0] > 0) if rows is None else rows[norms[rows, 0] > 0]
    for start in range(0, len(rows), batch):
        chunk = rows[start : start + batch]
        ranking = top_n(directions[chunk], index, excluded=list(chunk[:, None]), hidden=never, n=n)
        yield [model.items.ids[row] for row in chunk.tolist()], RankedLists(model.items, ranking)
