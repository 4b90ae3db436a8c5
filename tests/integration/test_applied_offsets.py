"""Applied offsets in a real Redis: they only move forward, and a loss is found before the next write."""

from __future__ import annotations

from typing import Any

import pytest

from recsys.errors import WritesLost
from recsys.redis import AppliedOffsets, Store


def second_process(store: Store) -> AppliedOffsets:
    return AppliedOffsets(store.connection, store.users._keys)


def key(store: Store, user: str = "u") -> str:
    """Return the key of applied offsets on the server that holds a user."""
    client, keys = store.connection.client, store.users._keys
    marks = map(keys.marks, store.connection.shard_tags())
    if not store.connection.is_cluster:
        return next(marks)
    home = client.get_node_from_key(keys.history(user))
    return next(key for key in marks if client.get_node_from_key(key) == home)


def break_connections(store: Store) -> None:
    for server in store.connection._servers.masters().values():
        server.connection_pool.disconnect()


def test_marks_move_forward_only(store: Store) -> None:
    store.applied_offsets.follow({"t:0": (10, None), "t:1": (0, None)})
    assert store.applied_offsets.read(["t:0", "t:1", "t:2"]) == {"t:0": 10, "t:1": 0, "t:2": None}
    store.applied_offsets.advance({"t:0": 25})
    store.applied_offsets.advance({"t:0": 20, "t:1": 3})
    assert store.applied_offsets.read(["t:0", "t:1"]) == {"t:0": 25, "t:1": 3}


def test_following_a_mark_keeps_the_one_that_is_there(store: Store) -> None:
    store.applied_offsets.follow({"t:0": (100, None)})
    other = second_process(store)
    other.follow({"t:0": (40, None)})  # the stream is read again
    other.advance({"t:0": 60})
    assert store.applied_offsets.read(["t:0"]) == {"t:0": 100}


def test_sources_that_were_given_up_are_not_moved(store: Store) -> None:
    store.applied_offsets.follow({"t:0": (10, None), "t:1": (10, None)})
    store.applied_offsets.leave(["t:0"])
    store.applied_offsets.advance({"t:0": 99, "t:1": 11})
    assert store.applied_offsets.read(["t:0", "t:1"]) == {"t:0": 10, "t:1": 11}


def test_zombie_does_not_mind_that_another_process_is_further(store: Store) -> None:
    store.applied_offsets.follow({"t:0": (10, None)})
    other = second_process(store)
    other.follow({"t:0": (10, None)})
    other.advance({"t:0": 500})
    store.applied_offsets.advance({"t:0": 20})
    assert store.applied_offsets.read(["t:0"]) == {"t:0": 500}


@pytest.mark.parametrize("left", [None, 7])
def test_lost_mark_is_found_when_marks_move(store: Store, left: int | None) -> None:
    client: Any = store.connection.client
    store.applied_offsets.follow({"t:0": (10, None), "t:1": (5, None)})
    if left is None:
        client.delete(key(store))
    else:
        client.hset(key(store), "t:0", left)
    with pytest.raises(WritesLost, match="t:0 was applied up to offset 10"):
        store.applied_offsets.advance({})
    assert store.applied_offsets.read(["t:0"]) == {"t:0": left}, "nothing is moved over a loss"
    store.applied_offsets.leave_all()
    store.applied_offsets.follow({"t:0": (left or 0, None)})
    store.applied_offsets.advance({"t:0": 12})
    assert store.applied_offsets.read(["t:0"]) == {"t:0": 12}


def test_lost_mark_is_found_on_a_new_connection_before_anything_is_written(store: Store) -> None:
    client: Any = store.connection.client
    store.applied_offsets.follow({"t:0": (10, None)})
    client.hset(key(store), "t:0", 3)
    break_connections(store)
    for _ in range(2):
        with pytest.raises(WritesLost):
            store.users.apply({"u": []})
    store.applied_offsets.leave_all()
    assert store.users.apply({"u": []})["u"].revision == 0


def test_marks_for_consumers_to_start_from_are_written_only_where_there_are_none(store: Store) -> None:
    store.applied_offsets.follow({"t:0": (10, None)})
    store.applied_offsets.write_missing({"t:0": 4, "t:1": 6})
    assert store.applied_offsets.read(["t:0", "t:1"]) == {"t:0": 10, "t:1": 6}
    store.applied_offsets.remove()
    assert store.applied_offsets.read(["t:0", "t:1"]) == {"t:0": None, "t:1": None}
