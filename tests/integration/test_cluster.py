"""A Redis Cluster whose slots move: every call finds its node, and none has half an effect."""

from __future__ import annotations

import os
import subprocess
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recsys.data.event import Event, EventType
from recsys.data.vocabulary import Vocabulary
from recsys.errors import MalformedEvent, RedisUnavailable, RedisUnsuitable, SettingsError
from recsys.lists.encoding import as_json, both_as_json
from recsys.model.top_n import Ranking
from recsys.recommend.user_lists import RankedList, RankedLists
from recsys.redis import ModelStamp, PlacedEvent, PublishOutcome, Store, open_store
from recsys.settings import Settings
from tests.faults.proxy import TcpProxy
from tests.integration.test_users import MODEL, NOW, a_list, entries, event, placed
from tests.lists import write_lists
from tests.preloaded import run_module
from tests.services import RedisCluster, RedisServer, wait_until


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    """A cluster whose slots these tests move; each leaves it whole."""
    cluster = RedisCluster(tmp_path_factory.mktemp("moving"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.kill()


@pytest.fixture
def store(cluster: RedisCluster) -> Iterator[Store]:
    """A store on the cluster, under a prefix of its own."""
    with opened_store(cluster.url) as store:
        yield store


def opened_store(url: str, *, cluster: bool = True) -> Any:
    prefix = f"recsys-{uuid.uuid4().hex[:8]}"
    return open_store(Settings.model_validate({"redis": {"url": url, "cluster": cluster, "prefix": prefix}}))


def slot_of(store: Store, user: str) -> int:
    return int(store.connection.client.keyslot(store.users._keys.history(user)))


def make_listed(store: Store, user: str) -> None:
    """Give a user a history and a list: all the keys that there are."""
    revision = store.users.apply({user: [placed(0, event("a"))]})[user].revision
    one = Ranking(np.zeros((1, 1), np.int64), np.ones((1, 1), np.float32), np.ones(1, np.int64))
    lists = RankedLists(Vocabulary(["x"]), one, again=one)
    with store.users.publishing(MODEL, at=NOW) as publishing:
        publishing.send({user: revision}, both_as_json(lists))
        assert publishing.outcomes() == {user: PublishOutcome.PUBLISHED}


def other_master(cluster: RedisCluster, master: RedisServer) -> RedisServer:
    return next(node for node in cluster.masters() if node is not master)


class OpenSlot:
    """A user's slot on the move to another master."""

    def __init__(self, store: Store, cluster: RedisCluster, user: str, target: RedisServer | None = None) -> None:
        self.cluster = cluster
        self.slot = slot_of(store, user)
        self.target = target or other_master(cluster, cluster.master_of(self.slot))
        self.keys = [key.encode() for key in store.users._keys.of_user(user)]
        self.source = cluster.open_slot(self.slot, self.target)

    def move(self, *keys: bytes) -> None:
        for key in keys:
            self.cluster.move_key(key, self.source, self.target)

    def close(self) -> None:
        self.move(*self.cluster.keys_in(self.slot))
        self.cluster.close_slot(self.slot, self.target)


def test_keys_that_moved_ahead_of_their_slot_are_asked_for(store: Store, cluster: RedisCluster) -> None:
    make_listed(store, "u")
    slot, asked = OpenSlot(store, cluster, "u"), cluster.errors("ASK")
    slot.move(*slot.keys)
    state = store.users.apply({"u": [placed(1, event("b"))], "other": [placed(1, event("c"))]})["u"]
    assert cluster.errors("ASK") > asked
    assert state.applied == 1
    assert store.users.lists(["u"])[0] is not None
    slot.close()
    moved = cluster.errors("MOVED")
    assert entries(store, "u") == {"a": (1, 0), "b": (1, 0)}
    assert cluster.errors("MOVED") > moved


def test_user_torn_between_two_nodes_is_served_as_soon_as_the_move_goes_on(store: Store, cluster: RedisCluster) -> None:
    make_listed(store, "u")
    slot, told_to_wait = OpenSlot(store, cluster, "u"), cluster.errors("TRYAGAIN")
    slot.move(slot.keys[0])
    with pytest.raises(RedisUnavailable, match="1 of 1 calls were not accepted"):
        store.users.apply({"u": [placed(1, event("b"))]})
    assert cluster.errors("TRYAGAIN") > told_to_wait

    applying = threading.Thread(target=lambda: store.users.apply({"u": [placed(1, event("b"))]}))
    told_to_wait = cluster.errors("TRYAGAIN")
    applying.start()
    wait_until(lambda: cluster.errors("TRYAGAIN") > told_to_wait, "the call is under way")
    slot.close()
    applying.join()
    assert entries(store, "u") == {"a": (1, 0), "b": (1, 0)}


def test_slot_may_move_to_a_node_that_has_none_yet(store: Store, cluster: RedisCluster) -> None:
    make_listed(store, "u")
    store.item_lists.write_popular(as_json(RankedList(("a",), (1.0,))), MODEL, at=NOW)
    key = store.item_lists._keys.popular_in(None)
    newcomer = cluster.join()
    slot = OpenSlot(store, cluster, "u", newcomer)
    slot.move(*slot.keys)
    assert store.users.apply({"u": [placed(1, event("b"))]})["u"].applied == 1
    slot.close()

    number = store.connection.client.keyslot(key)
    source = cluster.open_slot(number, newcomer)
    cluster.move_key(key.encode(), source, newcomer)
    with opened_store(cluster.url) as another:  # which has not met the newcomer
        assert another.connection.client.get(key) is not None
    cluster.close_slot(number, newcomer)
    store.connection.check()


def test_what_follows_a_forget_is_not_lost_in_a_slot_that_moves(store: Store, cluster: RedisCluster) -> None:
    make_listed(store, "u")
    slot = OpenSlot(store, cluster, "u")
    forget = Event(user_id="u", type=EventType.FORGET, timestamp=0)
    batch = {"u": [placed(5, forget), placed(6, event("b"))]}
    assert store.users.apply(batch)["u"].applied == 2
    with pytest.raises(
        RedisUnavailable, match="1 of 1 calls were not accepted"
    ):  # the list is gone, so its user waits for the move
        store.users.apply(batch)
    slot.close()
    assert store.users.apply(batch)["u"].applied == 0
    assert entries(store, "u") == {"b": (1, 0)}
    assert store.users.lists(["u"]) == [None]


def test_forget_is_complete_in_a_slot_that_moves(store: Store, cluster: RedisCluster) -> None:
    make_listed(store, "u")
    slot = OpenSlot(store, cluster, "u")
    state = store.users.apply({"u": [placed(5, Event(user_id="u", type=EventType.FORGET, timestamp=0))]})["u"]
    assert (state.applied, state.revision, len(state.history.entries)) == (1, 2, 0)
    slot.close()
    assert store.users.read(["u"])["u"].revision == 2
    assert store.users.lists(["u"]) == [None]


def test_user_who_moves_during_a_scan_is_found(store: Store, cluster: RedisCluster) -> None:
    users = {f"user-{n}" for n in range(100)}
    store.users.apply({user: [placed(0, event())] for user in users})
    batches = store.users.user_ids()
    found = next(batches)
    scanned = cluster.master_of(slot_of(store, found[0]))
    while not all(cluster.master_of(slot_of(store, user)) is not scanned for user in users - set(found)):
        found += next(batches)
    late = next(iter(users - set(found)))
    OpenSlot(store, cluster, late, scanned).close()
    for batch in batches:
        found += batch
    assert len(found) == len(set(found))
    assert set(found) == users


def test_each_master_has_keys_with_one_of_the_tags(store: Store, redis_cluster: RedisCluster) -> None:
    with opened_store(redis_cluster.url) as other:
        tags = other.connection.shard_tags()
        slots = [other.connection.client.keyslot(f"anything:{{{tag}}}:more") for tag in tags]
    owners = Counter(redis_cluster.master_of(slot).port for slot in slots)
    assert owners.keys() == {master.port for master in redis_cluster.masters()}
    assert min(owners.values()) >= 10, "so that a master that gives slots away keeps some"
    assert store.connection.shard_tags() == tags, "whatever moves in whatever cluster"


def test_marks_stay_where_slots_move_while_nobody_is_there_to_write_them(store: Store, cluster: RedisCluster) -> None:
    store.applied_offsets.follow({"t:0": (10, None)})
    source = cluster.master_of(0)
    target = other_master(cluster, source)
    for slot in range(3):  # a resharding starts with the lowest slots
        cluster.open_slot(slot, target)
        for key in cluster.keys_in(slot):
            cluster.move_key(key, source, target)
        store.connection._servers.reopen()
        assert store.users.read(["u"])["u"].revision == 0, "new connections meet applied offsets that are moving"
        cluster.close_slot(slot, target)
    assert store.applied_offsets.read(["t:0"]) == {"t:0": 10}
    store.applied_offsets.advance({"t:0": 11})
    assert store.applied_offsets.read(["t:0"]) == {"t:0": 11}


def test_single_server_has_one_tag_for_all(redis_url: str) -> None:
    with opened_store(redis_url, cluster=False) as store:
        assert store.connection.shard_tags() == ("",)


def test_cluster_without_its_setting_is_named(cluster: RedisCluster) -> None:
    with opened_store(cluster.url, cluster=False) as store:
        with pytest.raises(RedisUnsuitable, match="RECSYS_REDIS__CLUSTER=true"):
            store.connection.check()
        with pytest.raises(RedisUnsuitable, match="RECSYS_REDIS__CLUSTER=true"):
            store.users.read([str(n) for n in range(20)])


def test_single_server_with_the_cluster_setting_is_named(redis_url: str) -> None:
    with opened_store(redis_url) as store:
        for ask in (store.connection.check, store.item_lists.popular, lambda: store.users.read(["u"])):
            with pytest.raises(RedisUnsuitable, match="RECSYS_REDIS__CLUSTER=false"):
                ask()


def test_wrong_password_for_a_cluster_is_said_without_showing_it(cluster: RedisCluster) -> None:
    with opened_store(cluster.url.replace("//", "//someone:hunter2@")) as store:
        for ask in (store.connection.check, lambda: store.users.read(["u"])):
            with pytest.raises(RedisUnsuitable, match="refuses user someone") as caught:
                ask()
            assert "hunter2" not in str(caught.value)


def test_every_node_is_given_the_password(cluster: RedisCluster) -> None:
    for node in cluster.nodes:
        node.client.config_set("requirepass", "hunter2")
    try:
        with opened_store(cluster.url.replace("//", "//:hunter2@")) as store:
            store.connection.check()
            users = [f"user-{n}" for n in range(50)]
            assert len(store.users.apply({user: [placed(0, event())] for user in users})) == 50
    finally:
        for node in cluster.nodes:
            node.client.config_set("requirepass", "")


def test_away_cluster_is_one_clear_error() -> None:
    settings = {"url": "redis://:hunter2@127.0.0.1:1/0", "cluster": True, "timeout_s": 0.2}
    with open_store(Settings.model_validate({"redis": settings})) as store:
        for ask in (store.connection.check, store.item_lists.popular, lambda: store.users.read(["u"])):
            with pytest.raises(RedisUnavailable, match=r"127\.0\.0\.1:1.*refused") as caught:
                ask()
            assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("unix:///tmp/redis.sock", "Unix socket"),
        ("redis://localhost/3", "only database 0"),
        ("rediss://localhost/0?ssl_ciphers=DEFAULT", "ssl_ciphers"),
        ("redis://localhost/0?foo=bar", "foo"),
    ],
)
def test_url_that_cannot_be_a_clusters_is_named(url: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said), opened_store(url):
        pass


def test_users_whose_keys_cannot_be_together_are_refused(store: Store, redis_url: str) -> None:
    for user in ("}", "}x", "}{x}"):
        with pytest.raises(MalformedEvent, match="must not begin with }"):
            store.users.ensure_can_hold(user)
    with opened_store(redis_url, cluster=False) as single:
        single.users.ensure_can_hold("}x")
        assert single.users.apply({"}x": [placed(0, event())]})["}x"].applied == 1


def test_import_rejects_rows_that_a_cluster_cannot_hold(store: Store, cluster: RedisCluster, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("user_id,item_id,timestamp\n}x,A,2026-01-01\n{x},A,2026-01-01\n")
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("RECSYS_")},
        "RECSYS_REDIS__URL": cluster.url,
        "RECSYS_REDIS__CLUSTER": "true",
        "RECSYS_REDIS__PREFIX": store.users._keys.prefix,
        "RECSYS_DATA_DIR": str(tmp_path / "data"),
    }

    def recsys(*arguments: str) -> subprocess.CompletedProcess[str]:
        return run_module("recsys", list(arguments), environment=environment, folder=tmp_path, timeout_s=120)

    done = recsys("import", "rows.csv")
    assert "1 row imported" in done.stdout, done.stderr
    assert "must not begin with }" in (tmp_path / "rows.rejects.csv").read_text()
    assert entries(store, "{x}").keys() == {"A"}
    assert "user_id: must not begin with }" in recsys("show", "}x").stderr


def test_cluster_that_was_away_as_a_whole_is_found_again(tmp_path: Path) -> None:
    cluster = RedisCluster(tmp_path, "--appendonly", "yes", "--appendfsync", "always")
    try:
        cluster.start()
        with opened_store(cluster.url) as store:
            store.users.apply({"u": [placed(0, event())]})
            cluster.kill()
            for ask in (lambda: store.users.read(["u"]), store.item_lists.popular, store.connection.check):
                with pytest.raises(RedisUnavailable):
                    ask()
            for node in cluster.nodes:
                node.start()
            cluster.await_whole()
            assert entries(store) == {"a": (1, 0)}
    finally:
        cluster.kill()


def test_cluster_at_other_addresses_is_found_by_its_url(cluster: RedisCluster, tmp_path: Path) -> None:
    """As where all nodes were replaced, and a service's name leads to the new ones."""
    before = RedisCluster(tmp_path)
    proxy = TcpProxy(before.nodes[0].port)
    try:
        before.start()
        with opened_store(f"redis://127.0.0.1:{proxy.port}/0") as store:
            store.users.apply({"u": [placed(0, event())]})
            before.kill()
            with pytest.raises(RedisUnavailable):
                store.users.read(["u"])
            proxy.lead_to(cluster.nodes[0].port)
            assert store.users.apply({"u": [placed(0, event())]})["u"].applied == 1
    finally:
        before.kill()
        proxy.close()


def test_replies_of_several_nodes_are_put_in_order(store: Store) -> None:
    users = [f"user-{n}" for n in range(200)]
    states = store.users.apply({user: [PlacedEvent("t:0", n, event(f"item-{n}"))] for n, user in enumerate(users)})
    assert [list(states[user].history.entries) for user in users] == [[f"item-{n}"] for n in range(200)]
    revisions = {user: states[user].revision for user in users}
    write_lists(store.users, revisions, [a_list(f"for-{user}") for user in users], ModelStamp("v", 1), at=NOW)
    published = store.users.lists(users)
    assert [one and one["items"][0]["item_id"] for one in published] == [f"for-{user}" for user in users]
