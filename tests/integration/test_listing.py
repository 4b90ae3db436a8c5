"""Lists computed while Redis is at work on other users, in a real Redis."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from recsys.lists.live_model import LoadedModel
from recsys.lists.refresh import compute_lists, list_users
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
        manifest_sha256="",
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


class Meanwhile:
    """Remembers what it was given."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.states: dict[str, UserState] = {}

    def at_once(self) -> None:
        self.asked.append("at once")

    def with_first(self, states: dict[str, UserState]) -> None:
        self.asked.append("with first")
        self.states = states


def test_the_first_states_come_while_redis_is_at_the_others(store: Store) -> None:
    store.users.apply({"someone": [PlacedEvent("t:0", 0, make_event("someone"))]})  # now Redis has the script
    meanwhile = Meanwhile()
    states = store.users.apply(purchases(0), meanwhile=meanwhile)
    if store.connection.is_cluster:
        assert meanwhile.asked == []
        return
    assert meanwhile.asked == ["at once", "with first"]
    assert 8 <= len(meanwhile.states) < len(USERS)
    assert meanwhile.states.items() <= states.items()
    assert list(meanwhile.states) == USERS[: len(meanwhile.states)]


def test_of_few_users_none_comes_first(store: Store) -> None:
    meanwhile = Meanwhile()
    store.users.apply(purchases(0, USERS[:10]), meanwhile=meanwhile)
    assert "with first" not in meanwhile.asked


def test_a_script_that_redis_lost_gives_no_first_states(store: Store) -> None:
    store.users.apply(purchases(0))
    for server in store.connection._servers.masters().values():
        server.script_flush()
    meanwhile = Meanwhile()
    states = store.users.apply(purchases(100), meanwhile=meanwhile)
    assert "with first" not in meanwhile.asked
    assert [state.applied for state in states.values()] == [1] * len(USERS)


@pytest.mark.parametrize("ready_users", [USERS[:30], USERS[50:], USERS, []])
def test_lists_that_are_ready_are_published_with_those_that_are_not(store: Store, ready_users: list[str]) -> None:
    live = loaded(1, 1)
    states = store.users.apply(purchases(0))
    ready = compute_lists({user: states[user] for user in ready_users}, live, FIVE, hidden=NOTHING)
    outcomes = list_users(store.users, states, live, FIVE, hidden=NOTHING, at=NOW, ready=ready)
    assert outcomes == dict.fromkeys(USERS, PublishOutcome.PUBLISHED)
    assert published(store) == right_lists(states, live)


def test_lists_of_another_model_or_with_items_hidden_since_are_computed_anew(store: Store) -> None:
    before, live = loaded(1, 1), loaded(2, 2)
    states = store.users.apply(purchases(0))
    hidden = frozenset(IDS[:20])
    for ready in (
        compute_lists(states, before, FIVE, hidden=hidden),
        compute_lists(states, live, FIVE, hidden=NOTHING),
    ):
        list_users(store.users, states, live, FIVE, hidden=hidden, at=NOW, ready=ready)
        assert published(store) == right_lists(states, live, hidden)


def test_a_list_that_is_ready_for_an_older_history_is_not_written(store: Store) -> None:
    live = loaded(1, 1)
    early = store.users.apply(purchases(0))
    ready = compute_lists(early, live, FIVE, hidden=NOTHING)
    states = early | store.users.apply(purchases(100, USERS[:1]))
    outcomes = list_users(store.users, states, live, FIVE, hidden=NOTHING, at=NOW, ready=ready)
    assert outcomes.pop(USERS[0]) is PublishOutcome.REVISION_MOVED
    assert set(outcomes.values()) == {PublishOutcome.PUBLISHED}
    assert published(store) == [[], *right_lists(states, live)[1:]]


def test_lists_of_users_who_were_not_asked_for_are_left_out(store: Store) -> None:
    live = loaded(1, 1)
    states = store.users.apply(purchases(0))
    ready = compute_lists(states, live, FIVE, hidden=NOTHING)
    some = {user: states[user] for user in USERS[:3]}
    assert list_users(store.users, some, live, FIVE, hidden=NOTHING, at=NOW, ready=ready).keys() == some.keys()
    assert published(store)[3:] == [[]] * (len(USERS) - 3)


def again(store: Store, user: str) -> list[str]:
    (found,) = store.users.again_lists([user])
    return [] if found is None else [item["item_id"] for item in found["items"]]


def test_what_to_buy_again_is_written_with_the_list_and_goes_with_it(store: Store) -> None:
    live, user = loaded(1, 1), USERS[0]
    often = [PlacedEvent("t:0", place, make_event(user, IDS[3])) for place in range(5)]
    states = store.users.apply({user: [*often, PlacedEvent("t:0", 9, make_event(user, IDS[7]))]})
    list_users(store.users, states, live, FIVE, hidden=NOTHING, at=NOW)
    assert again(store, user) == [IDS[3], IDS[7]]
    (recs,), (own,) = store.users.lists([user]), store.users.again_lists([user])
    assert recs is not None
    assert own is not None
    assert {name: own[name] for name in own if name != "items"} == {
        name: recs[name] for name in recs if name != "items"
    }
    assert 0 < store.connection.client.ttl(store.users._keys.again(user)) <= 30 * 24 * 3600

    newer = store.users.apply({user: [PlacedEvent("t:0", 10, make_return(user, IDS[7]))]})
    outcomes = list_users(store.users, states, live, FIVE, hidden=NOTHING, at=NOW)
    assert outcomes[user] is PublishOutcome.REVISION_MOVED  # of the history before the return
    list_users(store.users, newer, live, FIVE, hidden=NOTHING, at=NOW)
    assert again(store, user) == [IDS[3]]
    without = RankingSettings(n=5, again_n=0)
    list_users(store.users, newer, loaded(1, 2), without, hidden=NOTHING, at=NOW)
    assert again(store, user) == []


def test_forgetting_a_user_takes_what_to_buy_again_along(store: Store) -> None:
    user = USERS[0]
    list_users(store.users, store.users.apply(purchases(0, [user])), loaded(1, 1), FIVE, hidden=NOTHING, at=NOW)
    assert again(store, user)
    store.users.apply({user: [PlacedEvent("t:0", 5, make_forget(user))]})
    assert not store.connection.client.exists(store.users._keys.again(user))
