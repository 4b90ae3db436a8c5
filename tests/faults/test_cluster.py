"""Scenario 9: a Redis Cluster of three masters, each with a replica; slots move and masters die under load."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from recsys.operations.histories import MISSING
from tests.conftest import opened_shop
from tests.faults.conftest import Report, rounds, trained_ledger
from tests.faults.ledger import Ledger
from tests.faults.test_redis import committed, started_consumer
from tests.planted import event_json, item_name
from tests.services import NO_AUTHORITIES, KafkaServer, RedisCluster, RedisServer, wait_until

pytestmark = pytest.mark.real_kafka


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    """A cluster of this scenario's own; each test leaves it whole."""
    cluster = RedisCluster(tmp_path_factory.mktemp("faults"), replicas=1)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.kill()


@contextmanager
def ledger_on(
    cluster: RedisCluster, kafka: KafkaServer, folder: Path, *, seed: int, recurring: bool = False
) -> Iterator[Ledger]:
    """Open a trained shop on the cluster."""
    with opened_shop(kafka, cluster.url, folder) as shop:
        shop.environment["RECSYS_REDIS__CLUSTER"] = "true"
        with trained_ledger(shop, seed=seed, recurring=recurring) as ledger:
            yield ledger


@pytest.mark.slow
def test_whole_job(cluster: RedisCluster, kafka: KafkaServer, tmp_path: Path, report: Report) -> None:
    """Import, training, events under load, retraining, verification; and what a cluster cannot hold."""
    with ledger_on(cluster, kafka, tmp_path, seed=91) as ledger:
        consumer = started_consumer(ledger)
        with ledger.load(per_second=300):
            ledger.send_malformed([event_json("}x", item_name(0, 0)), b"not JSON"])
            before = ledger.store.pointer.read()
            for _ in range(rounds(1, 5)):
                ledger.shop.run("trainer", "--once")
            assert ledger.store.pointer.read() != before
            ledger.await_counted()
        assert "user_id: must not begin with }" in consumer.said()
        spread = {cluster.master_of(slot).port for slot in slots_of(ledger).values()}
        assert len(spread) == 3, "each master has users"
        tally = ledger.check()
        assert consumer.stop() == 0
    report(9, "Three masters: the whole job", tally, faults=0)


def test_slots_that_move_under_load(cluster: RedisCluster, kafka: KafkaServer, tmp_path: Path, report: Report) -> None:
    # Whoever is moved must still be buying when their turn comes.
    with ledger_on(cluster, kafka, tmp_path, seed=92, recurring=True) as ledger:
        consumer = started_consumer(ledger)
        ledger.publish(600)
        ledger.await_counted()
        moves = rounds(2, 30)
        users = [user for user in ledger.users if has_all_keys(ledger, user)]
        with ledger.load(per_second=300):
            for user in itertools.islice(itertools.cycle(users), moves):
                move_under_load(cluster, slots_of(ledger)[user], ledger.store.users._keys.history(user))
        recovery_s = ledger.await_counted()
        assert consumer.metrics()["restarts_total"] == 0
        tally = ledger.check()
        assert consumer.stop() == 0
    report(9, "Slots move key by key under load", tally, faults=moves, recovery_s=recovery_s)


def move_under_load(cluster: RedisCluster, slot: int, first: str) -> None:
    """Move a slot, beginning with one key of a user's, and wait at each step until a client has met it."""
    target = next(master for master in cluster.masters() if master is not cluster.master_of(slot))
    source = cluster.open_slot(slot, target)
    torn = cluster.errors("TRYAGAIN")
    cluster.move_key(first.encode(), source, target)
    wait_until(lambda: cluster.errors("TRYAGAIN") > torn, "someone is told to wait for a torn user")
    asked = cluster.errors("ASK")
    while keys := cluster.keys_in(slot):
        for key in keys:
            cluster.move_key(key, source, target)
    wait_until(lambda: cluster.errors("ASK") > asked, "someone is sent after the keys")
    moved = cluster.errors("MOVED")
    cluster.close_slot(slot, target)
    wait_until(lambda: cluster.errors("MOVED") > moved, "someone is sent to the slot's new place")


@pytest.mark.slow
def test_masters_killed_under_load(cluster: RedisCluster, kafka: KafkaServer, tmp_path: Path, report: Report) -> None:
    """The replica takes over with all that the master had, then without what the master acknowledged last."""
    with ledger_on(cluster, kafka, tmp_path, seed=93) as ledger:
        consumer = started_consumer(ledger)
        chance = random.Random(93)
        faults = [False, True] * rounds(1, 5)
        master = cluster.nodes[0]  # the one that the URL names
        for loses_writes in faults:
            ledger.publish(200)
            ledger.await_counted()
            replica = cluster.replica_of(master)
            wait_until(lambda: offset(master) == offset(replica), "the replica has everything")  # noqa: B023
            if loses_writes:
                cut_off(replica)
                ledger.publish(200)
                ledger.await_counted()
                wait_until(lambda: committed(ledger.shop) == ledger.acknowledged, "all offsets are committed")
            with ledger.load(per_second=300):
                started = time.monotonic()
                master.kill()
                cluster.await_promoted(replica)
                ledger.await_counted()
                recovery_s = time.monotonic() - started
            replica.client.config_set("masterauth", "")
            master.start()
            cluster.await_whole()
            master = chance.choice(cluster.masters())
        assert consumer.said().count("Redis has lost writes") >= faults.count(True)
        tally = ledger.check()
        assert consumer.stop() == 0
    report(9, "Master killed, its replica promoted", tally, faults=len(faults), recovery_s=recovery_s)


def slots_of(ledger: Ledger) -> dict[str, int]:
    """Return the slot of each user."""
    client: Any = ledger.store.connection.client
    return {user: client.keyslot(ledger.store.users._keys.history(user)) for user in ledger.users}


def has_all_keys(ledger: Ledger, user: str) -> bool:
    return bool(ledger.store.connection.client.exists(*ledger.store.users._keys.of_user(user)) == 5)


def offset(server: RedisServer) -> int:
    """Return how far a server is in its stream of replication."""
    replication = server.client.info("replication")
    return int(replication.get("slave_repl_offset", replication["master_repl_offset"]))


def cut_off(replica: RedisServer) -> None:
    """Keep a replica from following its master: it may not log in any more."""
    replica.client.config_set("masterauth", "wrong")
    replica.client.execute_command("CLIENT", "KILL", "TYPE", "master")
    link = "master_link_status"
    wait_until(lambda: replica.client.info("replication")[link] == "down", "the replica does not follow")


@pytest.mark.slow
def test_a_master_that_was_emptied_is_noticed_by_trainer_and_api(
    cluster: RedisCluster, kafka: KafkaServer, tmp_path: Path, report: Report
) -> None:
    with ledger_on(cluster, kafka, tmp_path, seed=97) as ledger:
        shop = ledger.shop
        consumer, api = started_consumer(ledger), shop.start_api()
        ledger.publish(300)
        ledger.await_counted()
        cluster.masters()[-1].client.flushall()
        api.await_saying(MISSING)
        ready = httpx.get(f"{api.url}/readyz", timeout=20, verify=NO_AUTHORITIES)
        assert (ready.status_code, ready.json()["missing"]) == (503, [MISSING])
        assert MISSING in shop.run("trainer", "--once", expect=1).stderr
        assert MISSING in shop.recsys("verify", "--all", expect=1).stderr
        consumer.await_saying("recsys rebuild restores everything")
        shop.recsys("rebuild")
        recovery_s = ledger.await_counted()
        wait_until(api.is_ready, "the API is ready again")
        assert api.stop() == 0
        tally = ledger.check()
        assert consumer.stop() == 0
    report(9, "One of three masters emptied", tally, faults=1, recovery_s=recovery_s)
