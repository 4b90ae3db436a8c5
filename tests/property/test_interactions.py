from __future__ import annotations

from collections import defaultdict

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.data.epoch import LAST_MS
from recsys.data.event_log import EventLog
from recsys.data.history import Entry, HistoryReplay
from recsys.data.interactions import Interactions
from recsys.data.vocabulary import Vocabulary
from recsys.model.confidence import confidences_of

USERS = ["u3", "u1", "é", "u2", "unused"]
ITEMS = ["b", "a", "😀", "Z", "10", "9", "unused"]
Change = tuple[str, str, int, int]

changes = st.lists(
    st.tuples(
        st.sampled_from(USERS[:-1]),
        st.sampled_from(ITEMS[:-1]),
        st.integers(-3, 3) | st.integers(-(10**12), 10**12),
        st.integers(0, 3) | st.integers(0, LAST_MS // 1000),
    ),
    max_size=30,
)


def aggregated(events: list[Change], users: list[str] = USERS, items: list[str] = ITEMS) -> Interactions:
    return EventLog(
        users,
        np.array([users.index(user) for user, *_ in events], dtype=np.int32),
        items,
        np.array([items.index(item) for _, item, *_ in events], dtype=np.int32),
        np.array([units for _, _, units, _ in events], dtype=np.int64),
        np.array([second for *_, second in events], dtype=np.int64),
    ).interactions()


def summed(events: list[Change]) -> dict[tuple[str, str], Entry]:
    replays: dict[str, HistoryReplay] = defaultdict(lambda: HistoryReplay(1_000))
    for user, item, units, second in events:
        replays[user].apply_fields("purchase", item, units, second, None)
    return {
        (user, item): entry
        for user, replay in replays.items()
        for item, entry in replay.entries.items()
        if entry.units > 0
    }


def pairs(interactions: Interactions) -> dict[tuple[str, str], Entry]:
    owned = interactions.owned
    users, items = interactions.users.ids, interactions.items.ids
    return {
        (users[user], items[row]): Entry(*entry)
        for user in range(len(owned))
        for row, entry in zip(
            owned.rows[owned.starts[user] : owned.starts[user + 1]].tolist(),
            owned.entries[owned.starts[user] : owned.starts[user + 1]].tolist(),
            strict=True,
        )
    }


@given(changes)
@settings(max_examples=150, deadline=None)
def test_interactions_are_what_replays_lead_to(events: list[Change]) -> None:
    found, expected = aggregated(events), summed(events)
    assert pairs(found) == expected
    assert found.quantities.nnz == len(expected)
    assert list(found.users.ids) == sorted({user for user, _ in expected})
    assert list(found.items.ids) == sorted({item for _, item in expected})
    assert found.quantities.shape == (len(found.users), len(found.items))
    assert found.quantities.has_sorted_indices
    assert found.quantities.dtype == np.float64
    assert found.owned.rows.dtype == found.owned.starts.dtype == np.int32


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
    split = [(user, item, share, at) for user, item, units, at in events for share in (part, units - part)]
    one, other = pairs(aggregated(split)), pairs(aggregated(events))
    assert {pair: entry[:3] for pair, entry in one.items()} == {pair: entry[:3] for pair, entry in other.items()}


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
    confidences = confidences_of(found.owned, n_items=len(found.items), alpha=alpha, half_life_days=0, reference_s=0)
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
