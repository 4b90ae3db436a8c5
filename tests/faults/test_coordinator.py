"""Scenario 5: the group's coordinator answers with errors, as it does when brokers come and go."""

from __future__ import annotations

import random
import time
from collections import Counter
from pathlib import Path

import pytest
from confluent_kafka import KafkaError

from tests.faults.conftest import Report, opened_ledger, rounds
from tests.faults.group import Group
from tests.faults.mock_cluster import MockCluster, mock_cluster
from tests.faults.test_members import MISSED_SOON, start
from tests.services import KafkaServer, wait_until

pytestmark = pytest.mark.kafka

REQUESTS = {"OffsetCommit": 8, "OffsetFetch": 9, "JoinGroup": 11, "Heartbeat": 12, "SyncGroup": 14}
# The embedded broker forgets a member that waits to join for longer than its session time-out, without an answer.
# The client asks again when this time is over.
ASKS_AGAIN = {**MISSED_SOON, "max.poll.interval.ms": 6000}
ERRORS = (
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
    KafkaError.REBALANCE_IN_PROGRESS,
    KafkaError.UNKNOWN_MEMBER_ID,
    KafkaError.ILLEGAL_GENERATION,
)


def await_all_met(cluster: MockCluster, before: Counter[int]) -> None:
    """Wait until every kind of request has been answered with every error."""

    def met() -> bool:
        new = cluster.requests() - before
        return all(new[api_key] >= len(ERRORS) for api_key in REQUESTS.values())

    wait_until(met, f"every one of {', '.join(REQUESTS)} has met every error")


def test_every_error_of_the_coordinator_under_load(redis_url: str, tmp_path: Path, report: Report) -> None:
    shuffled, repeats = random.Random(5), rounds(1, 6)
    with mock_cluster() as cluster:
        server = KafkaServer(cluster.address, False, "librdkafka's embedded broker")
        with opened_ledger(server, redis_url, tmp_path, seed=5) as ledger:
            group = Group(ledger.shop)
            members = [start(ledger, properties=ASKS_AGAIN) for _ in range(2)]
            group.await_shared(members)
            recovery_s = 0.0
            with ledger.load(100):
                for _ in range(repeats):
                    before = cluster.requests()
                    for api_key in REQUESTS.values():
                        cluster.push_errors(api_key, shuffled.sample(ERRORS, len(ERRORS)))
                    await_all_met(cluster, before)
                    met = time.monotonic()
                    group.await_shared(members)
                    ledger.await_counted()
                    recovery_s = max(recovery_s, time.monotonic() - met)
            faults = repeats * len(REQUESTS) * len(ERRORS)
            report(5, "Errors of the coordinator", ledger.check(), faults=faults, recovery_s=recovery_s)
