"""Lists computed while Redis is at work on other users, in a real Redis."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from recsys.lists.live_model import LoadedModel
from recsys.lists.refresh import compute_lists, publish_lists, stale
from recsys.recommend.user_lists import refresh
from recsys.redis import ModelPointer, PlacedEvent, PublishOutcome, Store, UserState
from recsys.settings import RankingSettings
from tests.builders import item_ids, make_event, make_forget, make_model, make_return

NOW = datetime(2026, 11, 22, 10, 15, tzinfo=UTC)
USERS = [f"user-{number:03d}" for number in range(80)]
IDS = item_ids(40)
NOTHING: frozenset[str] = frozenset()
FIVE = RankingSettings(n=5)


def loaded(seed: int, sequence: int) -> LoadedModel:
    pointer = ModelPointer(
        version=f"20261122T1015{seed:02d}Z-1a2b3c",
        sequence=sequence,
        uri="",
        manifest_sha256="0" * 64,
        published_at=NOW.isoformat(),
    )
    return LoadedModel(pointer, make_model(seed=seed))


def purchases(offset: int, users: list[str] = USERS) -> dict[str, list[PlacedEvent]]:
    return {
        user: [PlacedEvent("t:0", offset + place, make_event(user, IDS[(place + offset) % len(IDS)]))]
        for place, user in enumerate(users)
    }


def right_lists(states: dict[str, UserState], live: LoadedModel, hidden: frozenset[str] = NOTHING) -> list[list[str]]:
    return [
        list(one.item_ids)
        for one in refresh([state.history for state in states.values()], live.model, n=5, hidden=hidden)
    ]


def published(store: Store, users: list[str] = USERS) -> list[list[str]]:
    return [[item["item_id"] for item in one["items"]] if one else [] for one in store.users.lists(users)]


def test_the_first_states_come_while_redis_is_at_the_others(store: Store) -> None:
    store.users.apply({"someone": [PlacedEvent("t:0", 0, make_event("someone"))]})  # now Redis has the script
    with store.users.applying(purchases(0)) as applying:
        first = applying.first_states()
        states = applying.states()
    if store.connection.is_cluster:
        assert first == {}
        return
    assert 8 <= len(first) < len(USERS)
    assert first.items() <= states.items()
    assert list(first) == USERS[: len(first)]


def test_of_few_users_none_comes_first(store: Store) -> None:
    with store.users.applying(purchases(0, USERS[:10])) as applying:
        assert applying.first_states() == {}
        assert len(applying.states()) == 10


def test_a_script_that_redis_lost_gives_no_first_states(store: Store) -> None:
    store.users.apply(purchases(0))
    for turn in range(1, 51):  # another test may give it back to a server that both use, just in between
        for server in store.connection._servers.masters().values():
            server.script_flush()
        with store.users.applying(purchases(100 * turn)) as applying:
            first = applying.first_states()
            states = applying.states()
        assert [state.applied for state in states.values()] == [1] * len(USERS)
        if not first:
            return
    pytest.fail("first states came although the script was lost")


def test_events_beyond_one_call_are_applied_in_order_and_none_comes_first(store: Store) -> None:
    many = {user: [PlacedEvent("t:0", at, make_event(user, IDS[0])) for at in range(2_500)] for user in USERS[:2]}
    few = purchases(9_000, USERS[2:])
    with store.users.applying({**many, **few}) as applying:
        assert applying.first_states() == {}
        states = applying.states()
    assert [states[user].applied for user in USERS] == [2_500, 2_500] + [1] * (len(USERS) - 2)
    assert states == {
        user: replace(state, applied=states[user].applied) for user, state in store.users.read(USERS).items()
    }


@pytest.mark.parametrize("when", ["while it is sent", "before the first states", "before the others"])
def test_a_connection_that_breaks_meanwhile_is_replaced_and_each_event_counts_once(store: Store, when: str) -> None:
    def cut() -> None:
        for server in store.connection._servers.masters().values():
            server.client_kill_filter(_type="normal", skipme=True)

    store.users.apply(purchases(0))
    with store.users.applying(purchases(100)) as applying:
        if when == "while it is sent":
            cut()
        if when == "before the first states":
            applying.first_states()
            cut()
        applying.first_states()
        if when == "before the others":
            cut()
        states = applying.states()
    assert [state.applied + state.duplicates for state in states.values()] == [1] * len(USERS)
    assert [state.revision for state in states.values()] == [2] * len(USERS)


def test_a_pipeline_that_is_given_up_leaves_no_replies_to_the_next_one(store: Store) -> None:
    with suppress(ZeroDivisionError), store.users.applying(purchases(0)) as applying:
        applying.first_states()
        raise ZeroDivisionError
    states = store.users.apply(purchases(100))
    assert list(states) == USERS
    assert all(state.applied == 1 for state in states.values())


def test_lists_are_written_while_others_are_computed(store: Store) -> None:
    live = loaded(1, 1)
    states = store.users.apply(purchases(0))
    with store.users.publishing(live.stamp, at=NOW) as publishing:
        for users in (USERS[:30], [], USERS[30:]):
            computed = compute_lists({user: states[user] for user in users}, live, FIVE, hidden=NOTHING)
            publishing.send(computed.revisions, computed.encoded())
        assert publishing.outcomes() == dict.fromkeys(USERS, PublishOutcome.PUBLISHED)
    assert published(store) == right_lists(states, live)


def test_lists_know_what_they_follow_from() -> None:
    before, live = loaded(1, 1), loaded(2, 2)
    computed = compute_lists({}, live, FIVE, hidden=frozenset(IDS[:1]))
    assert computed.follow_from(live, {IDS[0]})
    assert not computed.follow_from(live, NOTHING)
    assert not computed.follow_from(before, {IDS[0]})


def test_a_list_of_an_older_history_is_not_written(store: Store) -> None:
    live = loaded(1, 1)
    early = store.users.apply(purchases(0))
    states = early | store.users.apply(purchases(100, USERS[:1]))
    outcomes = publish_lists(store.users, compute_lists(early, live, FIVE, hidden=NOTHING), at=NOW)
    assert outcomes.pop(USERS[0]) is PublishOutcome.REVISION_MOVED
    assert set(outcomes.values()) == {PublishOutcome.PUBLISHED}
    assert published(store) == [[], *right_lists(states, live)[1:]]


def test_only_lists_that_are_not_of_the_newest_state_and_model_are_stale(store: Store) -> None:
    live = loaded(1, 1)
    states = store.users.apply(purchases(0))
    assert stale(states, live) == states
    publish_lists(store.users, compute_lists(states, live, FIVE, hidden=NOTHING), at=NOW)
    store.users.apply(purchases(100, USERS[:1]))
    assert list(stale(store.users.read(USERS), live)) == USERS[:1]
    assert list(stale(store.users.read(USERS), loaded(1, 2))) == USERS


def again(store: Store, user: str) -> list[str]:
    (found,) = store.users.again_lists([user])
    return [] if found is None else [item["item_id"] for item in found["items"]]


def test_what_to_buy_again_is_written_with_the_list_and_goes_with_it(store: Store) -> None:
    live, user = loaded(1, 1), USERS[0]
    often = [PlacedEvent("t:0", place, make_event(user, IDS[3])) for place in range(5)]
    states = store.users.apply({user: [*often, PlacedEvent("t:0", 9, make_event(user, IDS[7]))]})
    publish_lists(store.users, compute_lists(states, live, FIVE, hidden=NOTHING), at=NOW)
    assert again(store, user) == [IDS[3], IDS[7]]
    (recs,), (own,) = store.users.lists([user]), store.users.again_lists([user])
    assert recs is not None
    assert own is not None
    assert {name: own[name] for name in own if name != "items"} == {
        name: recs[name] for name in recs if name != "items"
    }
    assert 0 < store.connection.client.ttl(store.users._keys.again(user)) <= 30 * 24 * 3600

    newer = store.users.apply({user: [PlacedEvent("t:0", 10, make_return(user, IDS[7]))]})
    outcomes = publish_lists(store.users, compute_lists(states, live, FIVE, hidden=NOTHING), at=NOW)
    assert outcomes[user] is PublishOutcome.REVISION_MOVED  # of the history before the return
    publish_lists(store.users, compute_lists(newer, live, FIVE, hidden=NOTHING), at=NOW)
    assert again(store, user) == [IDS[3]]
    without = RankingSettings(n=5, again_n=0)
    publish_lists(store.users, compute_lists(newer, loaded(1, 2), without, hidden=NOTHING), at=NOW)
    assert again(store, user) == []


def test_forgetting_a_user_takes_what_to_buy_again_along(store: Store) -> None:
    user = USERS[0]
    publish_lists(
        store.users,
        compute_lists(store.users.apply(purchases(0, [user])), loaded(1, 1), FIVE, hidden=NOTHING),
        at=NOW,
    )
    assert again(store, user)
    store.users.apply({user: [PlacedEvent("t:0", 5, make_forget(user))]})
    assert not store.connection.client.exists(store.users._keys.again(user))
