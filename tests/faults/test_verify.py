"""`recsys verify` beside consumers that are behind, in the middle of a batch, or at work: no difference is made up."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.faults.group import ends
from tests.faults.ledger import Ledger
from tests.faults.test_redis import started_consumer

pytestmark = pytest.mark.real_kafka


def to_apply(ledger: Ledger) -> int:
    client: Any = ledger.store.connection.client
    return sum(ends(ledger.shop).values()) - sum(map(int, client.hvals(ledger.store.users._keys.marks(""))))


@pytest.mark.slow
@pytest.mark.parametrize("point", ["between-applies", "applied", "published", "marked"])
def test_a_consumer_that_was_killed_is_behind_and_nothing_differs(ledger: Ledger, point: str) -> None:
    shop, client = ledger.shop, ledger.store.connection.client
    killed = started_consumer(ledger, RECSYS_TEST_FAIL_POINTS=f"{point}=kill@3")
    while killed.process.poll() is None:
        ledger.publish(20)
    killed.await_killed()
    ledger.publish(200)
    behind = shop.recsys("verify", "--all", expect=2).stdout
    lag = to_apply(ledger)
    assert lag >= 200
    assert behind.startswith(f"behind: the consumers have {lag:,} records still to apply; compared is what is applied")
    assert " 0 differences" in behind
    shop.run("trainer", "--once")  # the archive now holds what is not applied
    assert " 0 differences" in shop.recsys("verify", "--all", expect=2).stdout
    client.hset(ledger.store.users._keys.history("user-1"), "sku-never-bought", "1|1700000000")
    differs = shop.recsys("verify", "--all", expect=1).stdout
    assert differs.startswith("behind: ")
    assert "history of sku-never-bought" in differs
    status = json.loads(shop.recsys("status", "--json", expect=2).stdout)
    assert [line["level"] for line in status["lines"] if line["code"] == "verify"] == ["broken"]
    client.hdel(ledger.store.users._keys.history("user-1"), "sku-never-bought")
    consumer = started_consumer(ledger)
    ledger.await_counted()
    assert " 0 differences" in shop.recsys("verify", "--all", expect=0).stdout
    ledger.check()
    assert consumer.stop() == 0


def test_nothing_differs_while_consumers_are_at_work(ledger: Ledger) -> None:
    consumer = started_consumer(ledger)
    with ledger.load(per_second=200):
        for _ in range(2):
            done = ledger.shop.recsys("verify", "--all", expect=None)
            assert " 0 differences" in done.stdout, done.stdout + done.stderr
            assert done.returncode in (0, 2)
    ledger.check()
    assert consumer.stop() == 0
