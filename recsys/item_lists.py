"""Lists that do not depend on a user: the popular items, and for each item those most like it."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np
from numpy.typing import NDArray

from recsys.model import FactorModel
from recsys.ranking import ItemIndex, top_n
from recsys.refresh import RankedList, RankedLists
from recsys.vocabulary import Vocabulary


def popular_items(
    items: Vocabulary, buyers: NDArray[np.int64], *, n: int, hidden: Collection[str] = frozenset()
) -> RankedList:
    """Return the items owned by most users; the score is their number.

    Parameters
    ----------
    items : Vocabulary
    buyers : int64, (n_items,)
        Users who own each item.
    """
    order = np.lexsort((np.arange(len(buyers)), -buyers)).tolist()
    best = [row for row in order if items.ids[row] not in hidden][:n]
    return RankedList(tuple(items.ids[row] for row in best), tuple(float(buyers[row]) for row in best))


def similar_items(
    model: FactorModel, *, n: int, batch: int, hidden: Collection[str] = frozenset()
) -> Iterator[tuple[list[str], RankedLists]]:
    """Yield items with their nearest items by cosine of their factors, in batches; never the item itself.

    Items whose factors are zero have no direction and get no list.
    """
    norms = np.linalg.norm(model.item_factors, axis=1, keepdims=True)
    directions = (model.item_factors / np.where(norms > 0, norms, 1.0)).astype(np.float32)
    without_direction = np.flatnonzero(norms[:, 0] == 0)
    hidden_rows = model.items.find(hidden)
    never = np.concatenate((without_direction, hidden_rows[hidden_rows >= 0]))
    index = ItemIndex.build(directions)
    rows = np.flatnonzero(norms[:, 0] > 0)
    for start in range(0, len(rows), batch):
        chunk = rows[start : start + batch]
        ranking = top_n(directions[chunk], index, excluded=list(chunk[:, None]), hidden=never, n=n)
        yield [model.items.ids[row] for row in chunk.tolist()], RankedLists(model.items, ranking)
