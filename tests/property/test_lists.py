from __future__ import annotations

import json

import numpy as np
import orjson
from hypothesis import given
from hypothesis import strategies as st

from recsys.refresh import RankedList
from recsys.store.users import items_json

ids = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=20) | st.text(
    '",{}[]:\\', min_size=1
)
scores = st.floats(width=32, allow_nan=False, allow_infinity=False)
lists = st.lists(st.tuples(ids, scores), max_size=8).map(
    lambda pairs: RankedList(tuple(item for item, _ in pairs), tuple(score for _, score in pairs))
)


@given(st.lists(lists, max_size=5))
def test_a_list_in_redis_is_the_json_of_its_items_with_scores_of_five_decimals(found: list[RankedList]) -> None:
    expected = [
        [
            {"item_id": item, "score": float(np.round(score, 5))}
            for item, score in zip(items.item_ids, items.scores, strict=True)
        ]
        for items in found
    ]
    assert [json.loads(orjson.dumps(fragment)) for fragment in items_json(found)] == expected
