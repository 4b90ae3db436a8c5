from __future__ import annotations

from collections import defaultdict

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.interactions import Interactions, aggregate
from recsys.vocabulary import Vocabulary

USERS = ["u3", "u1", "é", "u2", "unused"]
ITEMS = ["b", "a", "😀", "Z", "10", "9", "unused"]
Change = tuple[str, str, int]

changes = st.lists(
    st.tuples(
        st.sampled_from(USERS[:-1]), st.sampled_from(ITEMS[:-1]), st.integers(-3, 3) | st.integers(-(10**12), 10**12)
    ),
    max_size=30,
)


def aggregated(events: list[Change], users: list[str] = USERS, items: list[str] = ITEMS) -> Interactions:
    return aggregate(
        users,
        np.array([users.index(user) for user, _, _ in events], dtype=np.int32),
        items,
        np.array([items.index(item) for _, item, _ in events], dtype=np.int32),
        np.array([units for _, _, units in events], dtype=np.int64),
    )


def summed(events: list[Change]) -> dict[tuple[str, str], float]:
    net: dict[tuple[str, str], int] = defaultdict(int)
    for user, item, units in events:
        net[user, item] += units
    return {pair: units / 1_000_000 for pair, units in net.items() if units > 0}


def pairs(interactions: Interactions) -> dict[tuple[str, str], float]:
    matrix = interactions.quantities.tocoo()
    users, items = interactions.users.ids, interactions.items.ids
    return {
        (users[row], items[column]): quantity
        for row, column, quantity in zip(matrix.row.tolist(), matrix.col.tolist(), matrix.data.tolist(), strict=True)
    }


@given(changes)
@settings(max_examples=150, deadline=None)
def test_aggregate_is_a_sum_by_dictionary(events: list[Change]) -> None:
    found, expected = aggregated(events), summed(events)
    assert pairs(found) == expected
    assert found.quantities.nnz == len(expected)
    assert list(found.users.ids) == sorted({user for user, _ in expected})
    assert list(found.items.ids) == sorted({item for _, item in expected})
    assert found.quantities.shape == (len(found.users), len(found.items))
    assert found.quantities.has_sorted_indices
    assert found.quantities.dtype == np.float64


@given(changes, st.data())
@settings(max_examples=100, deadline=None)
def test_neither_the_order_of_events_nor_of_ids_changes_the_sum(events: list[Change], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(events))
    users, items = data.draw(st.permutations(USERS)), data.draw(st.permutations(ITEMS))
    one, other = aggregated(events), aggregated(shuffled, list(users), list(items))
    assert (one.users, one.items) == (other.users, other.items)
    np.testing.assert_array_equal(one.quantities.toarray(), other.quantities.toarray())


@given(changes, st.integers(-(10**6), 10**6))
@settings(max_examples=100, deadline=None)
def test_splitting_events_does_not_change_the_sum(events: list[Change], part: int) -> None:
    split = [(user, item, share) for user, item, units in events for share in (part, units - part)]
    assert pairs(aggregated(split)) == pairs(aggregated(events))


@given(changes)
@settings(max_examples=50, deadline=None)
def test_buyers_are_counted_per_item(events: list[Change]) -> None:
    found = aggregated(events)
    expected = [sum(1 for _, item in summed(events) if item == id_) for id_ in found.items.ids]
    assert found.buyers().tolist() == expected
    assert found.buyers().dtype == np.int64


@given(changes, st.sampled_from([0.0, 1.0, 2.5]))
@settings(max_examples=50, deadline=None)
def test_confidences_stand_where_the_quantities_stand(events: list[Change], alpha: float) -> None:
    found = aggregated(events)
    confidences = found.confidences(alpha=alpha)
    assert confidences.dtype == np.float32
    assert confidences.shape == found.quantities.shape
    dense = found.quantities.toarray()
    expected = np.where(dense > 0, 1 + alpha * np.log2(1 + dense), 0)
    np.testing.assert_allclose(confidences.toarray(), expected, rtol=1e-6)


@given(st.lists(st.text(max_size=4)))
@settings(max_examples=100, deadline=None)
def test_a_vocabulary_maps_each_id_to_its_place_in_order(ids: list[str]) -> None:
    vocabulary = Vocabulary.of(ids)
    assert list(vocabulary.ids) == sorted(set(ids))
    assert len(vocabulary) == len(set(ids))
    assert all(vocabulary.ids[row] == id_ for id_, row in vocabulary.rows.items())
    assert set(vocabulary.rows) == set(ids)
