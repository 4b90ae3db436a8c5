"""Lists that do not depend on a user: the popular items, and for each item those most like it."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np
from numpy.typing import NDArray

from recsys.interactions import Vocabulary
from recsys.model import FactorModel
from recsys.ranking import ItemIndex, top_n
from recsys.refresh import RankedList


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
) -> Iterator[dict[str, RankedList]]:
    """Yield each item's nearest items by cosine of their factors, in batches; never the item itself.

    Items whose factors are zero have no direction and get no list.
    """
    norms = np.linalg.norm(model.item_factors, axis=1, keepdims=True)
    directions = (model.item_factors / np.where(norms > 0, norms, 1.0)).astype(np.float32)
    ids = model.items.ids
    without_direction = np.flatnonzero(norms[:, 0] == 0)
    hidden_rows = np.array([model.items.rows[item] for item in hidden if item in model.items.rows], dtype=np.int64)
    never = np.concatenate((without_direction, hidden_rows))
    index = ItemIndex.build(directions)
    rows = np.flatnonzero(norms[:, 0] > 0)
    for start in range(0, len(rows), batch):
        chunk = rows[start : start + batch]
        ranked = top_n(directions[chunk], index, excluded=list(chunk[:, None]), hidden=never, n=n)
        yield {
            ids[row]: RankedList(tuple(ids[other] for other in others.tolist()), tuple(scores.tolist()))
            for row, (others, scores) in zip(chunk.tolist(), ranked, strict=True)
        }
