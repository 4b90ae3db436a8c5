"""Redis Sentinel: the master dies under load, its replica is promoted, and everyone goes on there by themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import opened_shop
from tests.faults.conftest import Report, rounds, trained_ledger
from tests.sentinels import PASSWORD, SENTINEL_PASSWORD, watched_redis
from tests.services import KafkaServer, wait_until


@pytest.mark.kafka
def test_master_dies_and_its_replica_is_promoted(kafka: KafkaServer, tmp_path: Path, report: Report) -> None:
    count = rounds(1, 10)
    servers, folder = tmp_path / "servers", tmp_path / "shop"  # the shop's folder is copied while servers write
    servers.mkdir()
    folder.mkdir()
    with watched_redis(servers) as watched, opened_shop(kafka, "", folder) as shop:
        shop.environment.update(watched.settings)
        with trained_ledger(shop, seed=21) as ledger:
            consumer, trainer, api = shop.start_consumer(), shop.start_trainer(), shop.start_api()
            consumer.await_assigned()
            recovery_s = 0.0
            for _ in range(count):
                watched.await_replica()
                ledger.publish(300)
                ledger.await_counted()
                with ledger.load(200):
                    dead = watched.kill_primary()
                recovery_s = max(recovery_s, ledger.await_counted())
                watched.start_again(dead)
            watched.settle()
            tally = ledger.check()
            wait_until(api.is_ready, "the API serves again")
            shop.recsys("retrain", "--wait", "--force")
            for service in (consumer, trainer, api):
                assert service.stop() == 0
                assert PASSWORD not in service.said()
                assert SENTINEL_PASSWORD not in service.said()
    report(7, "Failover by sentinels, the master killed under load", tally, faults=count, recovery_s=recovery_s)
