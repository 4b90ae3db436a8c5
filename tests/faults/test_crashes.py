"""Scenario 1: the consumer is killed between any two steps of the loop."""

from __future__ import annotations

import pytest

from tests.faults.conftest import Report, rounds
from tests.faults.ledger import Ledger

pytestmark = pytest.mark.real_kafka

# Members that were killed are missed after this time, not after the default 45 s.
QUICK = {"RECSYS_KAFKA__LIBRDKAFKA": '{"session.timeout.ms": 2000, "heartbeat.interval.ms": 500}'}


OTHERS = ["polled", "decoded", "between-applies", "applied", "dead-letter-sent", "marked", "before-commit"]


@pytest.mark.parametrize("point", ["published", *(pytest.param(point, marks=pytest.mark.slow) for point in OTHERS)])
def test_killed_at_a_step_boundary(ledger: Ledger, report: Report, point: str) -> None:
    count = rounds(1, 20)
    for number in range(count):
        ledger.send(ledger.sales(150))
        ledger.send_malformed([f"malformed {point} {number}".encode()])
        consumer = ledger.shop.start_consumer(
            RECSYS_TEST_FAIL_POINTS=f"{point}=kill@{1 + number % 5}", RECSYS_CONSUMER__BATCH_SIZE="20", **QUICK
        )
        consumer.await_killed()
    ledger.flush()
    consumer = ledger.shop.start_consumer(**QUICK)
    recovery_s = ledger.await_counted()
    tally = ledger.check()
    report(1, f"SIGKILL, {point}", tally, faults=count, recovery_s=recovery_s)
    assert consumer.stop() == 0
