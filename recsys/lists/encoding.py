"""Lists as the JSON of the contract: ``[{"item_id": "…", "score": 1.23456}, …]``, scores to five decimals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, pairwise, repeat

import numpy as np
import orjson

from recsys.lists.encoding_kernels import LARGEST_SCORE, most_bytes, write_items
from recsys.recommend.user_lists import RankedList, RankedLists
from recsys.redis.users import NO_ITEMS, EncodedLists
from recsys.runtime.threads import map_ranges


def as_json(items: RankedList) -> bytes:
    """Return one list's items as JSON."""
    return next(items_json([items]))


def both_as_json(lists: RankedLists) -> Iterator[EncodedLists]:
    """Yield the items of each user's list and of what the user may buy again."""
    again = lists.again_lists
    return zip(items_json(lists), repeat(NO_ITEMS) if again is None else items_json(again), strict=False)


def items_json(lists: Sequence[RankedList]) -> Iterator[bytes]:
    """Yield the items of each list as JSON."""
    if not isinstance(lists, RankedLists) or np.abs(lists.ranking.scores).max(initial=0) > LARGEST_SCORE:
        return map(_one_by_one, lists)
    ranking, quoted = lists.ranking, lists.items.quoted

    def part(start: int, stop: int) -> list[bytes]:
        rows, scores, sizes = ranking.rows[start:stop], ranking.scores[start:stop], ranking.sizes[start:stop]
        data = np.empty(most_bytes(rows, sizes, quoted.bounds), np.uint8)
        ends = np.empty(stop - start, np.int64)
        write_items(rows, scores, sizes, quoted.data, quoted.bounds, data, ends)
        bounds = [0, *ends.tolist()]
        text = data[: bounds[-1]].tobytes()
        return [text[first:last] for first, last in pairwise(bounds)]

    return chain.from_iterable(map_ranges(len(lists), part))


def _one_by_one(items: RankedList) -> bytes:
    """Write one list; what the compiled code does, to be read."""
    rounded = np.round(np.array(items.scores, np.float64), 5).tolist()  # as round() does: a float64 holds it
    return orjson.dumps([{"item_id": i, "score": s} for i, s in zip(items.item_ids, rounded, strict=True)])
