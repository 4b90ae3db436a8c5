"""Histories and lists in a real Redis: each event counts once, and only the newest list is written."""

from __future__ import annotations

import itertools
import uuid
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import hiredis
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from recsys.data.event import Event, EventType
from recsys.data.history import Entry, History, HistoryReplay
from recsys.errors import RedisUnavailable
from recsys.recommend.user_lists import RankedList
from recsys.redis import ModelStamp, PlacedEvent, PublishOutcome, Store, UserState, open_store
from recsys.settings import Settings
from tests.lists import write_lists

NOW = datetime(2026, 11, 22, 10, 15, 2, 113000, tzinfo=UTC)
MODEL = ModelStamp("20261122T101500Z-1a2b3c", 1)
NEWER = ModelStamp("20261122T111500Z-4d5e6f", 2)
MAX_ITEMS, MAX_EVENT_IDS = 5, 6  # as the store fixture sets them


def event(item: str = "a", quantity: float = 1, at: int = 0, **fields: Any) -> Event:
    return Event(user_id="u", item_id=item, quantity=quantity, timestamp=at * 1000, **fields)


def placed(offset: int, event: Event, source: str = "t:0", *, complete: bool = False) -> PlacedEvent:
    return PlacedEvent(source, offset, event, complete)


def entries(store: Store, user: str = "u") -> dict[str, tuple[float, int]]:
    return {item: (entry.units / 1e6, entry.newest_s) for item, entry in whole_entries(store, user).items()}


def whole_entries(store: Store, user: str = "u") -> dict[str, Entry]:
    return store.users.read([user])[user].history.entries


def a_list(*items: str) -> RankedList:
    return RankedList(items, tuple(1.0 - place / 10 for place in range(len(items))))


def test_basket_causes_one_revision(store: Store) -> None:
    basket = [placed(offset, event(f"item-{offset % 4}")) for offset in range(30)]
    state = store.users.apply({"u": basket})["u"]
    assert (state.revision, state.applied, state.duplicates) == (1, 30, 0)
    assert entries(store) == {"item-0": (8, 0), "item-1": (8, 0), "item-2": (7, 0), "item-3": (7, 0)}


def test_many_users_are_read_and_listed_each_as_themselves(store: Store) -> None:
    users = [f"user-{number}" for number in range(40)]
    applied = store.users.apply({user: [placed(0, event(f"of-{user}"))] for user in users})
    revisions = {user: state.revision for user, state in applied.items()}
    stale = {**revisions, "user-7": 9, "user-33": 0}
    outcomes = write_lists(store.users, stale, [a_list(f"for-{user}") for user in users], MODEL, at=NOW)
    moved = [user for user, outcome in zip(users, outcomes, strict=True) if outcome is PublishOutcome.REVISION_MOVED]
    assert moved == ["user-7", "user-33"]
    for user, state in store.users.read(users).items():
        assert list(state.history.entries) == [f"of-{user}"]
        assert state.listed_sequence == (-1 if user in moved else MODEL.sequence)
    lists = dict(zip(users, store.users.lists(users), strict=True))
    assert {user: found and found["items"][0]["item_id"] for user, found in lists.items()} == {
        user: None if user in moved else f"for-{user}" for user in users
    }


def test_what_became_of_users_lists_is_told(store: Store) -> None:
    users = ["listed", "expired", "without"]
    states = store.users.apply({user: [placed(0, event(f"of-{user}"))] for user in users})
    listed = {user: states[user].revision for user in ("listed", "expired")}
    write_lists(store.users, listed, [a_list("x"), a_list("y")], ModelStamp("v", 1_000), at=NOW)
    store.connection.client.delete(store.users._keys.recs("expired"))
    found = dict(zip(users, store.users.list_states(users), strict=True))
    assert found == {"listed": (True, 1_000), "expired": (False, 1_000), "without": (False, None)}
    assert [state.has_expired(now_s=1_101, ttl_s=100) for state in found.values()] == [False, True, False]
    assert not found["expired"].has_expired(now_s=1_099, ttl_s=100), "it was removed, it cannot have expired yet"


def test_a_sample_of_users_is_all_of_them_or_says_that_it_is_not(store: Store) -> None:
    users = [f"user-{number}" for number in range(40)]
    assert store.users.sample(10) == ([], True)
    store.users.apply({user: [placed(0, event())] for user in users})
    found, is_all = store.users.sample(100)
    assert (sorted(found), is_all) == (sorted(users), True)
    few, is_all = store.users.sample(10)
    assert (len(few), set(few) <= set(users), is_all) == (10, True, False)


def test_reading_returns_what_applying_known_events_does(store: Store) -> None:
    known = {
        user: [placed(number, event("a")), placed(number + 9, event("b", 2.5))] for number, user in enumerate("uvw")
    }
    applied = store.users.apply(known)
    write_lists(
        store.users, {user: applied[user].revision for user in "uv"}, [a_list("x"), RankedList()], MODEL, at=NOW
    )
    again = store.users.apply(known)
    read = store.users.read([*"uvw", "nobody"])
    assert {user: replace(state, duplicates=0) for user, state in again.items()} == {user: read[user] for user in "uvw"}
    assert read["nobody"] == UserState(0, 0, 0, -1, History())


def test_replayed_batch_leaves_history_and_revision_unchanged(store: Store) -> None:
    batch = [placed(7, event("a")), placed(9, event("b", 2.5, at=3))]
    first = store.users.apply({"u": batch})["u"]
    again = store.users.apply({"u": batch})["u"]
    assert (again.applied, again.duplicates, again.revision) == (0, 2, first.revision)
    assert entries(store) == {"a": (1, 0), "b": (2.5, 3)}


@pytest.mark.parametrize("complete", [False, True])
def test_a_basket_of_many_lines_is_applied_in_several_short_calls(
    store: Store, complete: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [event(f"item-{n % 4_000}", at=n % 777, event_id=f"e{n}" if n % 3 else None) for n in range(4_500)]
    lines[2_300] = Event(user_id="u", type=EventType.FORGET, timestamp=0)
    expected = HistoryReplay(MAX_ITEMS)
    expected.apply(lines)
    basket = [placed(offset, line, complete=complete) for offset, line in enumerate(lines)]
    other = [placed(9_000, event("a"))]
    for user in ("u", "other"):  # now their servers have the script
        store.users.apply({user: [placed(0, event(), complete=True)]})
        store.users.remove([user])
    sent: list[Any] = []
    pack = hiredis.pack_command  # what this process sends: other tests use the same server

    def noted(command: tuple[Any, ...]) -> Any:
        sent.append(command[0])
        return pack(command)

    monkeypatch.setattr(hiredis, "pack_command", noted)
    states = store.users.apply({"u": basket, "other": other})
    assert sent.count("EVALSHA") == 6, "five for the basket, one for the other user"
    assert (states["u"].applied, states["u"].duplicates, states["u"].revision) == (4_500, 0, 5)
    assert (states["other"].applied, states["other"].revision) == (1, 1)
    assert whole_entries(store) == states["u"].history.entries == expected.entries
    again = store.users.apply({"u": basket})["u"]
    assert (again.applied, again.duplicates, again.revision) == (0, 4_500, 5)


def test_history_is_stored_in_the_form_of_the_contract(store: Store) -> None:
    store.users.apply({"u": [placed(0, event("sku-9", 1.25, at=1795342272)), placed(1, event("sku-9", 2))]})
    key = f"{store.users._keys.prefix}:{{u}}:history"
    store.users.apply({"u": [placed(2, event("sku-1", at=1795342272)), placed(3, event("sku-1", at=1795342200))]})
    store.users.apply({"u": [placed(4, event("sku-2", at=1795342272))]})
    assert store.connection.client.hgetall(key) == {
        b"sku-9": b"3.25|1795342272|2|1795342272",  # net quantity, newest event, purchases, seconds since the first
        b"sku-1": b"2|1795342272|2|72",
        b"sku-2": b"1|1795342272",  # one purchase at one time
    }


def test_event_sent_twice_counts_once_wherever_the_copy_lands(store: Store) -> None:
    store.users.apply({"u": [placed(1, event(event_id="order-1"))]})
    for source, offset in (("t:0", 2), ("t:1", 0), ("t:0", 900)):
        state = store.users.apply({"u": [placed(offset, event(event_id="order-1"), source)]})["u"]
        assert (state.applied, state.duplicates) == (0, 1)
    assert entries(store) == {"a": (1, 0)}


def test_copy_stays_recognized_after_its_id_left_the_window(store: Store) -> None:
    copies = [placed(0, event("a", event_id="one")), placed(1, event("a", event_id="one"))]
    later = [placed(2 + n, event("b", event_id=f"later-{n}")) for n in range(MAX_EVENT_IDS * 2)]
    store.users.apply({"u": copies + later})
    state = store.users.apply({"u": copies + later})["u"]
    assert (state.applied, state.revision) == (0, 1)
    assert entries(store)["a"] == (1, 0)


def test_skipped_offsets_still_count_when_they_are_read_later(store: Store) -> None:
    store.users.apply({"u": [placed(offset, event("late")) for offset in range(100, 104)]})
    state = store.users.apply({"u": [placed(offset, event("early")) for offset in range(50, 60)]})["u"]
    assert state.applied == 10
    assert entries(store) == {"late": (4, 0), "early": (10, 0)}


def test_topic_made_anew_starts_its_offsets_anew(store: Store) -> None:
    store.users.apply({"u": [placed(0, event("a"), "old:0")]})
    assert store.users.apply({"u": [placed(0, event("a"), "new:0")]})["u"].applied == 1


def test_return_may_arrive_before_its_purchase(store: Store) -> None:
    store.users.apply({"u": [placed(0, event("a", 2, type=EventType.RETURN))]})
    assert entries(store) == {"a": (-2, 0)}
    store.users.apply({"u": [placed(1, event("a", 3))]})
    assert entries(store) == {"a": (1, 0)}


def test_forget_erases_everything_and_earlier_events_do_not_come_back(store: Store) -> None:
    before = [placed(0, event("a", event_id="x")), placed(1, event("b"), "t:1")]
    revision = store.users.apply({"u": before})["u"].revision
    write_lists(store.users, {"u": revision}, [a_list("c")], MODEL, at=NOW)
    forget = placed(5, Event(user_id="u", type=EventType.FORGET, timestamp=0))
    state = store.users.apply({"u": [forget]})["u"]
    assert entries(store) == {}
    assert store.users.lists(["u"]) == [None]
    assert store.users.apply({"u": [*before, forget]})["u"].revision == state.revision
    assert write_lists(store.users, {"u": revision}, [a_list("c")], MODEL, at=NOW) == [PublishOutcome.REVISION_MOVED]
    assert store.users.apply({"u": [placed(6, event("z"))]})["u"].applied == 1
    assert entries(store) == {"z": (1, 0)}


def test_reading_the_stream_again_past_a_forget_brings_back_what_came_after_it(store: Store) -> None:
    stream = [placed(0, event("a")), placed(1, Event(user_id="u", type=EventType.FORGET, timestamp=0))]
    stream += [placed(2, event("b", event_id="x")), placed(3, event("c"))]
    store.users.apply({"u": stream[2:]})  # the group once skipped the beginning
    for one in stream:
        store.users.apply({"u": [one]})
    assert entries(store) == {"b": (1, 0), "c": (1, 0)}
    assert store.users.apply({"u": stream})["u"].applied == 0


def test_full_history_loses_its_oldest_item(store: Store) -> None:
    store.users.apply({"u": [placed(n, event(f"item-{n}", at=10 - n)) for n in range(MAX_ITEMS + 2)]})
    assert sorted(entries(store)) == [f"item-{n}" for n in range(MAX_ITEMS)]


def test_import_rows_count_once_without_filling_the_window(store: Store) -> None:
    rows = [placed(n, event("a"), "import-x:0", complete=True) for n in range(1, 50)]
    assert store.users.apply_without_reading({"u": rows}) == (49, 0)
    assert store.users.apply_without_reading({"u": rows}) == (0, 49)
    assert not store.connection.client.exists(store.users._keys.seen("u"))


def test_list_has_the_form_of_the_contract(store: Store) -> None:
    revision = store.users.apply({"u": [placed(0, event())]})["u"].revision
    assert write_lists(store.users, {"u": revision}, [a_list("x", "y")], MODEL, at=NOW) == [PublishOutcome.PUBLISHED]
    assert store.users.lists(["u", "nobody"]) == [
        {
            "user_id": "u",
            "model": "20261122T101500Z-1a2b3c",
            "revision": 1,
            "generated_at": "2026-11-22T10:15:02.113Z",
            "items": [{"item_id": "x", "score": 1.0}, {"item_id": "y", "score": 0.9}],
        },
        None,
    ]
    assert 0 < int(store.connection.client.ttl(store.users._keys.recs("u"))) <= 30 * 24 * 3600


def test_list_of_an_outdated_history_is_not_written(store: Store) -> None:
    old = store.users.apply({"u": [placed(0, event())]})["u"].revision
    new = store.users.apply({"u": [placed(1, event())]})["u"].revision
    assert write_lists(store.users, {"u": new}, [a_list("new")], MODEL, at=NOW) == [PublishOutcome.PUBLISHED]
    assert write_lists(store.users, {"u": old}, [a_list("old")], NEWER, at=NOW) == [PublishOutcome.REVISION_MOVED]
    published = store.users.lists(["u"])[0]
    assert published is not None
    assert published["items"][0]["item_id"] == "new"


def test_list_of_an_older_model_does_not_replace_that_of_a_newer_one(store: Store) -> None:
    revision = store.users.apply({"u": [placed(0, event())]})["u"].revision
    write_lists(store.users, {"u": revision}, [a_list("new")], NEWER, at=NOW)
    assert write_lists(store.users, {"u": revision}, [a_list("old")], MODEL, at=NOW) == [PublishOutcome.SUPERSEDED]
    later = store.users.apply({"u": [placed(1, event())]})["u"].revision
    assert write_lists(store.users, {"u": later}, [a_list("old")], MODEL, at=NOW) == [PublishOutcome.MODEL_OLDER]


def test_state_says_which_model_the_current_list_is_from(store: Store) -> None:
    state = store.users.apply({"u": [placed(0, event())]})["u"]
    assert state.listed_sequence == -1
    write_lists(store.users, {"u": state.revision}, [a_list("x")], MODEL, at=NOW)
    assert store.users.read(["u"])["u"].listed_sequence == MODEL.sequence
    assert store.users.apply({"u": [placed(1, event())]})["u"].listed_sequence == -1


def test_empty_list_removes_the_old_one(store: Store) -> None:
    state = store.users.apply({"u": [placed(0, event())]})["u"]
    write_lists(store.users, {"u": state.revision}, [a_list("x")], MODEL, at=NOW)
    write_lists(store.users, {"u": state.revision}, [RankedList()], MODEL, at=NOW)
    assert store.users.lists(["u"]) == [None]


def test_script_lost_by_the_server_is_given_again(store: Store) -> None:
    store.users.apply({"u": [placed(0, event())]})
    store.connection.client.script_flush()
    assert store.users.apply({"u": [placed(1, event())]})["u"].applied == 1


def test_all_users_are_found(store: Store) -> None:
    strange = {"ünï{c}ode", "a:b", "}", "*", "{", "{}", "{a}", "a}b", "a{b", "}x", "{}}"}
    users = {f"user-{n}" for n in range(3000)} | set(filter(store.users.can_hold, strange))
    store.users.apply({user: [placed(0, event())] for user in users})
    found = [user for batch in store.users.user_ids() for user in batch]
    assert len(found) == len(set(found))
    assert set(found) == users


def test_away_redis_is_one_clear_error() -> None:
    settings = Settings.model_validate({"redis": {"url": "redis://:hunter2@127.0.0.1:1/0", "timeout_s": 0.2}})
    with open_store(settings) as store, pytest.raises(RedisUnavailable) as caught:
        store.users.read(["u"])
    assert "127.0.0.1:1" in str(caught.value)
    assert "hunter2" not in str(caught.value)


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c", "d", "e", "f", "g"]),
        st.sampled_from([EventType.PURCHASE, EventType.PURCHASE, EventType.RETURN, EventType.FORGET]),
        st.sampled_from([0.1, 0.2, 0.7, 1.0, 3.0]),
        st.integers(0, 20),
    ),
    max_size=30,
)


@given(steps=EVENTS, cuts=st.lists(st.integers(0, 30), max_size=5), rewinds=st.lists(st.integers(0, 30), max_size=5))
@hypothesis_settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_batching_and_redelivery_gives_what_a_plain_replay_gives(
    store: Store, steps: list[tuple[str, EventType, float, int]], cuts: list[int], rewinds: list[int]
) -> None:
    user = uuid.uuid4().hex
    events = [
        Event(
            user_id=user,
            type=type_,
            item_id=None if type_ is EventType.FORGET else item,
            quantity=quantity,
            timestamp=at * 1000,
        )
        for item, type_, quantity, at in steps
    ]
    expected = HistoryReplay(max_items=MAX_ITEMS)
    expected.apply(events)
    stream = [placed(offset, one) for offset, one in enumerate(events)]
    bounds = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    for start, end in itertools.pairwise(bounds):
        store.users.apply({user: stream[start:end]})
        for rewind in rewinds:  # a crash: the stream is read again from somewhere before
            store.users.apply({user: stream[min(rewind, start) : end]})
    assert whole_entries(store, user) == expected.entries
