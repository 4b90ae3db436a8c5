"""Lists as the JSON of the contract: ``[{"item_id": "…", "score": 1.23456}, …]``, scores to five decimals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import orjson

from recsys.refresh import RankedList, RankedLists
from recsys.store.list_json_kernels import LARGEST_SCORE, most_bytes, write_items

NO_ITEMS = b"[]"


def items_json(lists: Sequence[RankedList]) -> Iterator[bytes]:
    """Yield the items of each list as JSON."""
    if not isinstance(lists, RankedLists) or np.abs(lists.ranking.scores).max(initial=0) > LARGEST_SCORE:
        return map(_one_by_one, lists)
    ranking, quoted = lists.ranking, lists.items.quoted
    data = np.empty(most_bytes(ranking.rows, ranking.sizes, quoted.bounds), np.uint8)
    ends = np.empty(len(lists), np.int64)
    write_items(ranking.rows, ranking.scores, ranking.sizes, quoted.data, quoted.bounds, data, ends)
    text = data[: ends[-1] if len(ends) else 0].tobytes()
    bounds = [0, *ends.tolist()]
    return (text[start:end] for start, end in pairwise(bounds))


def _one_by_one(items: RankedList) -> bytes:
    """Write one list; what the compiled code does, to be read."""
    rounded = np.round(np.array(items.scores, np.float64), 5).tolist()  # as round() does: a float64 holds it
    return orjson.dumps([{"item_id": i, "score": s} for i, s in zip(items.item_ids, rounded, strict=True)])
