"""What doctors ask of Redis, on a server and on a cluster; and that reserved users leave nothing there for ever."""

from __future__ import annotations

import time

from recsys.data.reserved import PROBE_PREFIX, PROBE_TTL_S
from recsys.redis import ModelStamp, PlacedEvent, Store
from recsys.redis.server_look import look_at_servers
from recsys.runtime.clock import now
from recsys.settings import Settings
from tests.builders import make_event

PROBE = f"{PROBE_PREFIX}0123456789ab"


def test_each_master_tells_of_itself_and_of_its_clock(store_settings: Settings) -> None:
    looks = look_at_servers(store_settings.redis)
    assert len(looks) == (3 if store_settings.redis.cluster else 1)
    assert {look.info["role"] for look in looks} == {"master"}
    assert all(look.ahead_s is not None and abs(look.ahead_s) < 60 for look in looks), "it is the same machine"
    where = [dict(zip(look.cli[::2], look.cli[1::2], strict=True)) for look in looks]
    assert len({(told["-h"], int(told["-p"])) for told in where}) == len(looks)
    late = look_at_servers(store_settings.redis, clock=lambda: time.time() - 400)
    assert all(look.ahead_s is not None and 340 < look.ahead_s < 460 for look in late)


def give_lists(store: Store, *users: str) -> None:
    """Apply a purchase of each user, and write its list."""
    states = store.users.apply({user: [PlacedEvent("t:0", 1, make_event(user, "tea"))] for user in users})
    with store.users.publishing(ModelStamp("v1", 1), at=now()) as publishing:
        publishing.send({user: state.revision for user, state in states.items()}, [(b"[]x", b"[]x")] * len(users))
        assert {str(outcome) for outcome in publishing.outcomes().values()} == {"published"}


def test_all_that_is_kept_of_reserved_users_expires_and_nothing_of_others(store: Store) -> None:
    give_lists(store, "ada", PROBE)
    store.users.let_reserved_expire(["ada", PROBE])
    left = {key: store.connection.client.ttl(key) for key in store.users.keys_left(["ada", PROBE])}
    of_probe = [left_s for key, left_s in left.items() if PROBE in key]
    assert len(of_probe) == 5
    assert all(0 < left_s <= PROBE_TTL_S for left_s in of_probe)
    kept = {key.rpartition(":")[2]: left_s for key, left_s in left.items() if "ada" in key}
    assert {kind: left_s > PROBE_TTL_S for kind, left_s in kept.items() if left_s != -1} == {
        "recs": True,
        "again": True,
    }
    assert (store.users.revision(PROBE), store.users.revision("nobody")) == (1, 0)
    store.users.remove([PROBE])
    assert store.users.keys_left([PROBE]) == []


def test_whoever_looks_for_users_finds_no_reserved_ones(store: Store) -> None:
    give_lists(store, "ada", PROBE)
    assert [user for found in store.users.user_ids() for user in found] == ["ada"]
    assert [user for found in store.users.user_ids(with_any_key=True) for user in found] == ["ada"]
    assert store.users.sample(10) == (["ada"], True)
