"""Scenario 17: Redis is set to evict keys while services run, and does."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest

from tests.faults.conftest import Report, opened_ledger
from tests.faults.test_losses import await_all_committed
from tests.faults.test_redis import started_consumer
from tests.services import NO_AUTHORITIES, KafkaServer, RedisServer, wait_until

pytestmark = pytest.mark.real_kafka


def test_evicted_histories_are_noticed_by_every_service(
    kafka: KafkaServer, breakable_redis: RedisServer, tmp_path: Path, report: Report
) -> None:
    redis = breakable_redis.client
    with opened_ledger(kafka, breakable_redis.url, tmp_path, seed=90) as ledger:
        shop = ledger.shop
        consumer, api = started_consumer(ledger), shop.start_api()
        trainer = shop.start_trainer(RECSYS_TRAINER__METRICS_PORT="any")
        trainer.await_saying("trainer ready")
        ledger.publish(200)
        await_all_committed(ledger)

        def evicted() -> list[float]:
            """Return what the metrics of all services say."""
            port = re.findall(r"metrics at (http\S+)", trainer.said())[-1]
            texts = [httpx.get(url, timeout=20, verify=NO_AUTHORITIES).text for url in (port, f"{api.url}/metrics")]
            of_others = [float(re.findall(r"_redis_evicted_keys (\S+)", text)[-1]) for text in texts]
            return [consumer.metrics()["redis_evicted_keys"], *of_others]

        assert evicted() == [0, 0, 0]
        redis.config_set("maxmemory", "10gb")
        redis.config_set("maxmemory-policy", "allkeys-lru")
        for service in (consumer, trainer, api):
            service.await_saying("may evict histories, bookkeeping and lists: its maxmemory-policy is allkeys-lru")
        before = len(redis.keys("*:history"))  # by a connection that refuses nothing
        redis.config_set("maxmemory", redis.info("memory")["used_memory"] - 100_000)
        redis.set("one-more", "key")
        redis.config_set("maxmemory", "10gb")
        assert len(redis.keys("*:history")) < before, "histories are gone"
        for service in (consumer, trainer, api):
            service.await_saying("are being lost; set maxmemory-policy noeviction")
        assert evicted() == [redis.info("stats")["evicted_keys"]] * 3
        redis.config_set("maxmemory-policy", "noeviction")
        redis.config_set("maxmemory", "0")
        redis.flushall()  # what is left of a user may be any part of it
        consumer.await_saying("recsys rebuild restores everything")
        shop.recsys("rebuild")
        recovery_s = ledger.await_counted()
        assert trainer.stop() == 0
        assert api.stop() == 0
        tally = ledger.check()
        assert consumer.stop() == 0
    report(17, "Redis evicts histories under allkeys-lru", tally, faults=1, recovery_s=recovery_s)


@pytest.mark.slow
def test_lists_that_are_evicted_come_back_with_the_next_round(
    kafka: KafkaServer, breakable_redis: RedisServer, tmp_path: Path, report: Report
) -> None:
    redis = breakable_redis.client
    with opened_ledger(kafka, breakable_redis.url, tmp_path, seed=91) as ledger:
        consumer = started_consumer(ledger)
        ledger.publish(200)
        await_all_committed(ledger)
        redis.config_set("maxmemory", "10gb")
        redis.config_set("maxmemory-policy", "volatile-lru")
        consumer.await_saying("may evict lists, the trainer's lock and what is remembered of erased users")
        redis.config_set("maxmemory", redis.info("memory")["used_memory"] - 50_000)
        redis.set("one-more", "key")
        redis.config_set("maxmemory", "10gb")
        evicted = redis.info("stats")["evicted_keys"]
        assert evicted
        wait_until(lambda: consumer.metrics()["redis_evicted_keys"] == evicted, "it is counted")
        consumer.await_saying("are being lost; set maxmemory-policy noeviction")
        redis.config_set("maxmemory-policy", "noeviction")
        ledger.shop.run("trainer", "--once")
        recovery_s = ledger.await_counted()
        tally = ledger.check()
        assert consumer.stop() == 0
    report(17, "Redis evicts lists under volatile-lru", tally, faults=1, recovery_s=recovery_s)
