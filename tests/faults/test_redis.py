"""Scenarios 6, 7 and 8: Redis away, full, busy, demoted, without its scripts, without its newest writes, empty."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import redis
from confluent_kafka import Consumer as KafkaConsumer
from confluent_kafka import TopicPartition

from recsys.redis.scripts import script
from tests.conftest import PARTITIONS
from tests.faults.conftest import FULL, Report, opened_ledger, rounds
from tests.faults.ledger import Ledger
from tests.faults.proxy import TcpProxy
from tests.services import Consumer, KafkaServer, RedisServer, Shop, wait_until

pytestmark = pytest.mark.real_kafka


@contextmanager
def behind_proxy(
    kafka: KafkaServer, target: RedisServer, folder: Path, *, seed: int
) -> Iterator[tuple[Ledger, TcpProxy]]:
    """Open a trained shop that reaches its Redis through a proxy."""
    proxy = TcpProxy(target.port)
    try:
        with opened_ledger(kafka, f"redis://127.0.0.1:{proxy.port}/0", folder, seed=seed) as ledger:
            yield ledger, proxy
    finally:
        proxy.close()


def started_consumer(ledger: Ledger, **settings: str) -> Consumer:
    consumer = ledger.shop.start_consumer(RECSYS_CONSUMER__BATCH_SIZE="50", **settings)
    consumer.await_assigned()
    return consumer


def committed(shop: Shop) -> int:
    """Return the sum of the group's committed offsets."""
    consumer = KafkaConsumer(
        {
            "bootstrap.servers": shop.kafka.address,
            "group.id": shop.environment["RECSYS_KAFKA__GROUP_ID"],
            "log_level": 2,
        }
    )
    try:
        places = consumer.committed([TopicPartition(shop.topic, p) for p in range(PARTITIONS)], timeout=10)
        return sum(max(0, place.offset) for place in places)
    finally:
        consumer.close()


def await_outage(consumer: Consumer, before: int) -> None:
    """Wait until the consumer has noticed one more outage."""
    wait_until(lambda: consumer.metrics().get("outages_total", 0) > before, "the consumer notices the outage")


def resident_kib(consumer: Consumer) -> int:
    status = Path(f"/proc/{consumer.process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])


@pytest.mark.slow
def test_redis_that_goes_away_and_comes_back_with_its_data(
    kafka: KafkaServer, breakable_redis: RedisServer, tmp_path: Path, report: Report
) -> None:
    with opened_ledger(kafka, breakable_redis.url, tmp_path, seed=61) as ledger:
        consumer = started_consumer(ledger)
        ledger.publish(200)
        ledger.await_counted()
        count = rounds(2, 10)
        before = resident_kib(consumer)
        for number in range(count):
            outages = consumer.metrics()["outages_total"]
            with ledger.load(per_second=300):
                breakable_redis.kill()
                await_outage(consumer, outages)
                if FULL and number == 0:
                    time.sleep(60)  # the scenario: an outage of a minute under load
                breakable_redis.start()
                recovery_s = ledger.await_counted()
        assert resident_kib(consumer) < before + 100 * 1024, "what comes during an outage stays in Kafka"
        tally = ledger.check()
        assert consumer.stop() == 0
    report(6, "Redis killed under load, back with its data", tally, faults=count, recovery_s=recovery_s)


@pytest.mark.slow
def test_redis_that_refuses_or_forgets_for_a_while(
    kafka: KafkaServer, breakable_redis: RedisServer, tmp_path: Path, report: Report
) -> None:
    """OOM, a busy script, a replica, lost scripts: each is waited out."""
    client: Any = breakable_redis.client

    def busy() -> None:
        client.config_set("busy-reply-threshold", 100)
        other: Any = redis.Redis.from_url(breakable_redis.url, socket_timeout=0.5, retry=None)

        def is_busy() -> bool:
            with suppress(redis.RedisError):
                other.eval("while true do end", 0)  # goes on when nobody waits for it any more, if it has begun
            try:
                return not client.ping()
            except redis.ResponseError:
                return True

        wait_until(is_busy, "a script keeps Redis busy")

    def no_longer_busy() -> None:
        def answers() -> bool:
            try:
                return bool(client.ping())
            except redis.ResponseError:
                return False

        def killed() -> bool:
            try:
                return bool(client.script_kill())
            except redis.ResponseError:
                return False

        wait_until(killed, "the script is ended")
        wait_until(answers, "Redis answers again")

    faults: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
        "maxmemory": (lambda: client.config_set("maxmemory", 1), lambda: client.config_set("maxmemory", 0)),
        "busy running a script": (busy, no_longer_busy),
        "read-only replica": (
            lambda: client.execute_command("REPLICAOF", "127.0.0.1", "1"),
            lambda: client.execute_command("REPLICAOF", "NO", "ONE"),
        ),
    }
    with opened_ledger(kafka, breakable_redis.url, tmp_path, seed=62) as ledger:
        consumer = started_consumer(ledger, RECSYS_REDIS__TIMEOUT_S="1")
        for number, (name, (begin, end)) in enumerate(faults.items(), start=1):
            outages = consumer.metrics()["outages_total"]
            with ledger.load(per_second=200):
                begin()
                await_outage(consumer, outages)
                end()
                ledger.await_counted()
            assert name in consumer.said()
            # Only then is the next fault another outage: so early in a load, nothing may be left to be counted.
            wait_until(lambda n=number: consumer.said().count("Redis answers again") >= n, "the consumer goes on")  # type: ignore[misc]
        with ledger.load(per_second=200):
            for _ in range(5):
                client.script_flush()
                ledger.await_counted()
        recovery_s = ledger.await_counted()
        assert consumer.metrics()["restarts_total"] == 0, "nobody left the group"
        tally = ledger.check()
        assert consumer.stop() == 0
    report(6, "OOM, BUSY, READONLY, NOSCRIPT", tally, faults=len(faults) + 5, recovery_s=recovery_s)


def test_replies_lost_after_execution(
    kafka: KafkaServer, breakable_redis: RedisServer, tmp_path: Path, report: Report
) -> None:
    with behind_proxy(kafka, breakable_redis, tmp_path, seed=63) as (ledger, proxy):
        consumer = started_consumer(ledger)
        count = 0
        for name in ["apply"] * rounds(5, 50) + ["reads", "publish", "mark"] * rounds(1, 10):
            count += 1
            wait_until(lambda: committed(ledger.shop) == ledger.acknowledged, "nothing is under way")
            proxy.lose_reply_to(script(name).digest.encode())
            ledger.publish(20)
            wait_until(proxy.lost.is_set, f"a reply to {name} is lost")
            ledger.await_counted()
        assert consumer.metrics()["events_duplicate_total"] > 0, "what was carried out was sent again"
        tally = ledger.check()
        assert consumer.stop() == 0
    report(6, "Replies lost after execution", tally, faults=count)


@pytest.mark.slow
@pytest.mark.parametrize("consumer_dies", [False, True], ids=["consumer runs on", "consumer is killed as well"])
def test_failover_that_loses_acknowledged_writes(
    kafka: KafkaServer, breakable_redis: RedisServer, tmp_path: Path, report: Report, consumer_dies: bool
) -> None:
    """Scenario 7: the replica stops receiving, the primary goes on acknowledging, then the replica takes over."""
    replica = RedisServer(tmp_path)
    count = rounds(1, 10)
    with behind_proxy(kafka, breakable_redis, tmp_path, seed=7) as (ledger, proxy):
        primary, other = breakable_redis, replica
        consumer = started_consumer(ledger)
        try:
            for _ in range(count):
                other.start("--replicaof", f"127.0.0.1 {primary.port}")
                ledger.publish(300)
                ledger.await_counted()
                info = other.client.info
                wait_until(lambda: info("replication")["master_link_status"] == "up", "the replica follows")  # noqa: B023
                other.client.execute_command("REPLICAOF", "NO", "ONE")
                ledger.publish(300)
                ledger.await_counted()
                before, wanted = committed(ledger.shop), ledger.acknowledged
                assert before <= wanted
                wait_until(lambda: committed(ledger.shop) == ledger.acknowledged, "all offsets are committed")
                if consumer_dies:
                    consumer.kill()
                primary.kill()
                proxy.lead_to(other.port)
                assert ledger.acknowledged > len(ledger.counted()), "acknowledged writes are lost"
                if consumer_dies:
                    consumer = started_consumer(ledger)
                recovery_s = ledger.await_counted()
                primary, other = other, primary
            if not consumer_dies:
                assert "Redis has lost writes" in consumer.said()
            tally = ledger.check()
            assert consumer.stop() == 0
        finally:
            replica.kill()
    how = "consumer killed as well" if consumer_dies else "consumer runs on"
    report(7, f"Failover that loses acknowledged writes, {how}", tally, faults=count, recovery_s=recovery_s)


@pytest.mark.slow
def test_round_whose_lists_redis_lost_is_repeated(
    kafka: KafkaServer, breakable_redis: RedisServer, tmp_path: Path, report: Report
) -> None:
    """Scenario 7, for the trainer: pointer and lists of its last round are gone after the failover."""
    replica = RedisServer(tmp_path)
    try:
        with behind_proxy(kafka, breakable_redis, tmp_path, seed=77) as (ledger, proxy):
            shop = ledger.shop
            consumer, trainer = started_consumer(ledger), shop.start_trainer()
            trainer.await_saying("trainer ready")
            shop.recsys("retrain", "--wait")
            replica.start("--replicaof", f"127.0.0.1 {breakable_redis.port}")
            status = replica.client.info
            wait_until(lambda: status("replication")["master_link_status"] == "up", "the replica follows")
            replica.client.execute_command("REPLICAOF", "NO", "ONE")
            ledger.publish(100)
            shop.recsys("retrain", "--wait")
            before = ledger.store.pointer.read()
            breakable_redis.kill()
            proxy.lead_to(replica.port)
            trainer.await_saying("Redis has lost what the last round wrote")
            wait_until(lambda: trainer.said().count("round done") == 3, "the round is repeated")
            after = ledger.store.pointer.read()
            assert before is not None
            assert after is not None
            assert after.sequence > before.sequence
            assert trainer.stop() == 0
            tally = ledger.check()
            assert consumer.stop() == 0
    finally:
        replica.kill()
    report(7, "Failover that loses a round of the trainer", tally, faults=1)


@pytest.mark.slow
def test_empty_redis_is_rebuilt(
    kafka: KafkaServer, breakable_redis: RedisServer, tmp_path: Path, report: Report
) -> None:
    """Scenario 8, and a restart without data of scenario 6: consumers wait, `recsys rebuild` brings all back."""
    with opened_ledger(kafka, breakable_redis.url, tmp_path, seed=8) as ledger:
        shop = ledger.shop
        consumer = started_consumer(ledger)
        ledger.publish(300)
        ledger.await_counted()
        shop.run("trainer", "--once")
        ledger.publish(300)  # beyond the archive
        ledger.await_counted()
        popular, similar = ledger.store.item_lists.popular(), ledger.store.item_lists.similar("sku-0-00")
        breakable_redis.client.flushall()
        said = "recsys rebuild restores everything"
        wait_until(lambda: said in consumer.said(), "the consumer says what has happened and what to do")
        ledger.publish(300)
        consumer.ensure_running()
        assert not ledger.counted(), "nobody goes on as if nothing had been there"
        killed = shop.run("recsys", "rebuild", expect=-9, RECSYS_TEST_FAIL_POINTS="in-rebuild=kill@2")
        assert "apply the archive" in killed.stderr
        done = shop.recsys("rebuild")
        assert "the consumers read on from where the archive ends: 600 records in Kafka" in done.stdout
        recovery_s = ledger.await_counted()
        after_popular, after_similar = ledger.store.item_lists.popular(), ledger.store.item_lists.similar("sku-0-00")
        assert popular is not None
        assert after_popular is not None
        assert after_popular["items"] == popular["items"]
        assert similar is not None
        assert after_similar is not None
        assert after_similar["items"] == similar["items"]
        assert " 0 differences" in shop.recsys("verify", "--all").stdout
        with ledger.load(per_second=100):  # nothing is lost, so consumers are not held up
            again = shop.recsys("rebuild").stdout
        assert "0 archived events applied" in again
        assert "read on" not in again
        with ledger.load(per_second=100):
            assert "read on" in shop.recsys("rebuild", "--wipe").stdout
        tally = ledger.check()
        assert consumer.stop() == 0
    report(8, "FLUSHALL, rebuild killed and repeated", tally, faults=3, recovery_s=recovery_s)


@pytest.mark.slow
def test_kafka_clients_that_are_replaced_leave_nothing_behind(ledger: Ledger, report: Report) -> None:
    client: Any = ledger.store.connection.client
    marks = ledger.store.users._keys.marks("")
    consumer = started_consumer(ledger)
    files, resident = [], []
    count = rounds(6, 40)
    for number in range(count):
        ledger.publish(50)
        ledger.await_counted()
        wait_until(
            lambda: sum(map(int, client.hvals(marks))) == ledger.acknowledged, "the applied offsets match the histories"
        )
        source = max(client.hgetall(marks).items(), key=lambda entry: int(entry[1]))[0]
        client.hincrby(marks, source, -1)  # as if the newest writes were lost
        wait_until(lambda n=number: consumer.metrics().get("restarts_total", 0) > n, "a new client")  # type: ignore[misc]
        consumer.await_assigned()
        files.append(len(list(Path(f"/proc/{consumer.process.pid}/fd").iterdir())))
        resident.append(resident_kib(consumer))
    assert files[-1] <= files[1] + 2, f"file handles: {files}"
    assert resident[-1] < resident[1] * 1.1, f"KiB: {resident}"
    tally = ledger.check()
    assert consumer.stop() == 0
    report(15, "Kafka clients replaced", tally, faults=count)
