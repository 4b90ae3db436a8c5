"""Scenarios 7 and 8, where it is narrow: losses between two steps, and losses that look like something else."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions

from recsys.operations.histories import MISSING
from tests.conftest import PARTITIONS
from tests.faults.conftest import Report, opened_ledger
from tests.faults.group import Group, ends
from tests.faults.ledger import Ledger
from tests.faults.test_redis import behind_proxy, started_consumer
from tests.services import NO_AUTHORITIES, Consumer, KafkaServer, RedisServer, running, wait_until

pytestmark = pytest.mark.real_kafka


def await_all_committed(ledger: Ledger) -> None:
    group = Group(ledger.shop)
    wait_until(lambda: sum(group.committed().values()) == ledger.acknowledged, "all offsets are committed")


def await_everything_assigned(consumer: Consumer) -> None:
    wait_until(lambda: consumer.metrics().get("partitions", 0) == PARTITIONS, "it has all partitions")


def cut_off(replica: RedisServer, primary: RedisServer) -> None:
    """Let a replica that has everything receive nothing more, and take writes itself."""

    def has_everything() -> bool:
        there = replica.client.info("replication")
        return bool(
            there["master_link_status"] == "up"
            and there["slave_repl_offset"] >= primary.client.info("replication")["master_repl_offset"]
        )

    wait_until(has_everything, "the replica has everything")
    replica.client.execute_command("REPLICAOF", "NO", "ONE")


@pytest.mark.slow
@pytest.mark.parametrize("point", ["applied", "published", "marked"])
def test_failover_that_loses_the_batch_in_flight(
    kafka: KafkaServer, breakable_redis: RedisServer, tmp_path: Path, report: Report, point: str
) -> None:
    """The applied offsets have not moved over what is lost, so they do not tell."""
    replica, held = RedisServer(tmp_path), tmp_path / "held"
    try:
        with behind_proxy(kafka, breakable_redis, tmp_path, seed=70) as (ledger, proxy):
            first = started_consumer(ledger)
            ledger.publish(300)
            await_all_committed(ledger)
            assert first.stop() == 0
            replica.start("--replicaof", f"127.0.0.1 {breakable_redis.port}")
            consumer = started_consumer(ledger, RECSYS_TEST_FAIL_POINTS=f"{point}=hold:{held}")
            await_everything_assigned(consumer)
            cut_off(replica, breakable_redis)
            ledger.publish(50)
            wait_until(held.exists, "a batch is half done")
            breakable_redis.kill()
            proxy.lead_to(replica.port)
            assert len(ledger.counted()) < ledger.acknowledged, "acknowledged writes are lost"
            held.unlink()
            recovery_s = ledger.await_counted()
            tally = ledger.check()
            assert consumer.stop() == 0
    finally:
        replica.kill()
    report(7, f"Failover that loses the batch in flight, {point}", tally, faults=1, recovery_s=recovery_s)


def test_flushall_before_anything_was_read(
    kafka: KafkaServer, breakable_redis: RedisServer, tmp_path: Path, report: Report
) -> None:
    """An imported history alone is worth waiting for, too."""
    with opened_ledger(kafka, breakable_redis.url, tmp_path, seed=80) as ledger:
        consumer = started_consumer(ledger)
        await_everything_assigned(consumer)
        group = Group(ledger.shop)
        wait_until(lambda: len(group.committed()) == PARTITIONS, "the group has said where it is")
        users = sum(len(batch) for batch in ledger.store.users.user_ids())
        breakable_redis.client.flushall()
        consumer.await_saying("recsys rebuild restores everything")
        ledger.publish(50)
        assert not ledger.counted()
        ledger.shop.recsys("rebuild")
        recovery_s = ledger.await_counted()
        assert sum(len(batch) for batch in ledger.store.users.user_ids()) > users
        tally = ledger.check()
        assert consumer.stop() == 0
    report(8, "FLUSHALL before anything was read", tally, faults=1, recovery_s=recovery_s)


@pytest.mark.slow
def test_flushall_while_trainer_and_api_run(
    kafka: KafkaServer, breakable_redis: RedisServer, tmp_path: Path, report: Report
) -> None:
    """No model is made of what is not there, and nobody takes the popular list for a user's own."""
    with opened_ledger(kafka, breakable_redis.url, tmp_path, seed=83) as ledger:
        shop, store = ledger.shop, ledger.store
        consumer, api = started_consumer(ledger), shop.start_api()
        trainer = shop.start_trainer(RECSYS_TRAINER__INTERVAL_S="1")
        ledger.publish(200)
        await_all_committed(ledger)

        def answer() -> dict[str, Any]:
            found = httpx.get(
                f"{api.url}/v1/users/{ledger.users[0]}/recommendations", timeout=20, verify=NO_AUTHORITIES
            )
            return dict(found.raise_for_status().json())

        def is_own() -> bool:
            return (answer()["source"], answer()["stale"]) == ("personal", False)

        wait_until(is_own, "everyone has a list")
        trainer.await_saying("round done")
        breakable_redis.client.flushall()
        trainer.await_saying(MISSING)
        wait_until(store.trainer.is_alive, "the trainer takes requests")
        assert MISSING in shop.recsys("retrain", "--wait", expect=1).stderr
        assert MISSING in shop.run("trainer", "--once", expect=1).stderr
        for command in (["models", "rollback"], ["show", ledger.users[0]], ["verify"]):
            assert MISSING in shop.recsys(*command, expect=1).stderr
        assert store.pointer.read() is None
        api.await_saying(MISSING)
        ready = httpx.get(f"{api.url}/readyz", timeout=20, verify=NO_AUTHORITIES)
        assert (ready.status_code, ready.json()["missing"]) == (503, [MISSING])
        assert (answer()["source"], answer()["stale"]) == ("popular", True)
        done = trainer.said().count("round done")
        shop.recsys("rebuild")
        recovery_s = ledger.await_counted()
        wait_until(api.is_ready, "the API is ready again")
        wait_until(is_own, "everyone has a list again")
        wait_until(lambda: trainer.said().count("round done") > done, "rounds go on")
        assert trainer.stop() == 0
        assert api.stop() == 0
        tally = ledger.check()
        assert consumer.stop() == 0
    report(8, "FLUSHALL while trainer and API run", tally, faults=1, recovery_s=recovery_s)


@pytest.mark.slow
def test_reset_of_the_offsets_is_obeyed_once(
    kafka: KafkaServer, breakable_redis: RedisServer, tmp_path: Path, report: Report
) -> None:
    """An operator's reset, as of long ago, must not hide a loss."""
    with opened_ledger(kafka, breakable_redis.url, tmp_path, seed=81) as ledger:
        group = Group(ledger.shop)
        consumer = started_consumer(ledger)
        ledger.publish(200)
        await_all_committed(ledger)
        ledger.shop.run("trainer", "--once")
        ledger.publish(200)
        await_all_committed(ledger)
        assert consumer.stop() == 0
        group.reset(ends(ledger.shop))
        consumer = started_consumer(ledger)
        await_everything_assigned(consumer)
        breakable_redis.client.flushall()
        consumer.await_saying("recsys rebuild restores everything")
        ledger.shop.recsys("rebuild")
        recovery_s = ledger.await_counted()
        tally = ledger.check()
        assert consumer.stop() == 0
    report(8, "FLUSHALL after a reset of the offsets", tally, faults=1, recovery_s=recovery_s)


@pytest.mark.slow
def test_rebuild_takes_new_partitions_for_no_loss(ledger: Ledger) -> None:
    consumer = started_consumer(ledger)
    ledger.publish(200)
    await_all_committed(ledger)
    admin = AdminClient({"bootstrap.servers": ledger.shop.kafka.address})
    for future in admin.create_partitions([NewPartitions(ledger.shop.topic, PARTITIONS + 1)]).values():
        future.result()
    done = ledger.shop.recsys("rebuild")
    assert "remove the old data" not in done.stderr
    assert "read on" not in done.stdout
    ledger.check()
    assert consumer.stop() == 0


@pytest.mark.slow
def test_wipe_starts_over_what_was_interrupted(ledger: Ledger) -> None:
    consumer = started_consumer(ledger)
    ledger.publish(200)
    await_all_committed(ledger)
    ledger.shop.run("trainer", "--once")
    ledger.store.users.remove(["user-1"])
    ledger.shop.run("recsys", "rebuild", expect=-9, RECSYS_TEST_FAIL_POINTS="in-rebuild=kill@2")
    again = ledger.shop.recsys("rebuild", "--wipe")
    if sys.platform == "linux":
        assert "recsys rebuild (process " in again.stderr
        assert "has ended without giving its lock back; the lock is taken over" in again.stderr
    ledger.await_counted()
    ledger.check()
    assert consumer.stop() == 0


@pytest.mark.slow
@pytest.mark.parametrize("segment", [1, 2], ids=["first segment", "last segment"])
def test_redis_is_emptied_again_during_the_rebuild(
    kafka: KafkaServer, breakable_redis: RedisServer, tmp_path: Path, report: Report, segment: int
) -> None:
    held = tmp_path / "held"
    with opened_ledger(kafka, breakable_redis.url, tmp_path, seed=82) as ledger:
        shop = ledger.shop
        consumer = started_consumer(ledger)
        ledger.publish(100)
        await_all_committed(ledger)
        shop.run("trainer", "--once")  # two sources in the archive: the import and the topic
        breakable_redis.client.flushall()
        consumer.await_saying("recsys rebuild restores everything")
        command = [sys.executable, "-m", "recsys", "rebuild"]
        environment = {**shop.environment, "RECSYS_TEST_FAIL_POINTS": f"in-rebuild=hold@{segment}:{held}"}
        with running(command, tmp_path / "rebuild.log", environment) as process:
            wait_until(held.exists, "the rebuild is half done")
            breakable_redis.client.flushall()
            held.unlink()
            assert process.wait(240) == 1, (tmp_path / "rebuild.log").read_text()
        assert "Redis was emptied during the rebuild" in (tmp_path / "rebuild.log").read_text()
        assert not ledger.counted(), "consumers still wait"
        shop.recsys("rebuild")
        recovery_s = ledger.await_counted()
        tally = ledger.check()
        assert consumer.stop() == 0
    report(8, f"FLUSHALL during the rebuild, {segment} of its segments done", tally, faults=2, recovery_s=recovery_s)


@pytest.mark.slow
def test_rebuild_removes_nothing_that_it_cannot_bring_back(ledger: Ledger, tmp_path: Path) -> None:
    consumer = started_consumer(ledger)
    ledger.publish(200)
    await_all_committed(ledger)
    refused = ledger.shop.recsys("rebuild", "--wipe", expect=1, RECSYS_DATA_DIR=str(tmp_path / "elsewhere"))
    assert "is not in data_dir" in refused.stderr
    assert "Is RECSYS_DATA_DIR" in refused.stderr
    segment = next((ledger.shop.folder / "data" / "archive").rglob("*.parquet"))
    whole = segment.read_bytes()
    segment.write_bytes(whole[: len(whole) // 2])
    assert str(segment) in ledger.shop.recsys("rebuild", "--wipe", expect=1).stderr
    segment.write_bytes(whole)
    assert len(ledger.counted()) == ledger.acknowledged, "nothing was removed"
    ledger.check()
    assert consumer.stop() == 0


@pytest.mark.slow
@pytest.mark.parametrize("how", ["killed", "killed in the swap", "stopped"])
def test_consumer_ends_before_it_has_the_new_model(ledger: Ledger, report: Report, how: str) -> None:
    """Its lists of the old model, written after the full refresh, are not left behind."""
    shop = ledger.shop
    points = {"RECSYS_TEST_FAIL_POINTS": "in-model-swap=kill"} if how == "killed in the swap" else {}
    consumer = shop.start_consumer(RECSYS_CONSUMER__MODEL_POLL_S="20", **points)
    await_everything_assigned(consumer)
    shop.run("trainer", "--once")
    ledger.send(ledger.one_of_each())  # of users who are new: no list of theirs tells of the new model
    ledger.flush()
    ledger.await_counted()
    if how == "stopped":
        assert consumer.stop() == 0
    elif how == "killed":
        consumer.kill()
    else:
        consumer.await_killed()
    second = shop.start_consumer()
    await_all_committed(ledger)  # by the second one, which reads again what the first had not committed
    tally = ledger.check()
    assert second.stop() == 0
    report(4, f"Consumer {how} before it has the new model", tally, faults=1)
