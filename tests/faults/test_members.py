"""Scenarios 2, 3 and 4: members of the group are killed, stopped, outlived and upset."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from tests.faults.conftest import Report, full_only, rounds
from tests.faults.group import Group
from tests.faults.ledger import Ledger
from tests.services import Consumer, wait_until

pytestmark = pytest.mark.real_kafka

_PER_SECOND = 200
MISSED_SOON = {"session.timeout.ms": 2000}
"""Of a member that is missed when it was killed or stands; a busy machine may miss one that lives."""
WAITED_FOR = {"session.timeout.ms": 45_000}
"""Of a member for which a rebalance waits."""
EXPELLED = {**MISSED_SOON, "max.poll.interval.ms": 3000}
"""Of one that is expelled when it has not polled for 3 s."""


def start(ledger: Ledger, points: str = "", properties: Mapping[str, int] = MISSED_SOON, **settings: str) -> Consumer:
    """Start a member."""
    librdkafka = {"heartbeat.interval.ms": 500, **properties}
    return ledger.shop.start_consumer(
        RECSYS_KAFKA__LIBRDKAFKA=json.dumps(librdkafka),
        RECSYS_CONSUMER__BATCH_SIZE="50",
        RECSYS_TEST_FAIL_POINTS=points,
        **settings,
    )


def await_more_read(member: Consumer) -> None:
    """Wait until it is at work."""
    read = member.metrics()["records_total"]
    wait_until(lambda: member.metrics()["records_total"] > read, "it is at work")


@pytest.mark.slow
def test_three_members_are_killed_in_turn_under_load(ledger: Ledger, report: Report) -> None:
    group, kills = Group(ledger.shop), rounds(3, 20)
    members = [start(ledger) for _ in range(3)]
    group.await_shared(members)
    recovery_s = 0.0
    with ledger.load(_PER_SECOND):
        for _ in range(kills):
            await_more_read(members[0])
            members.pop(0).kill()
            killed = time.monotonic()
            members.append(start(ledger))
            group.await_shared(members)
            ledger.await_counted()
            recovery_s = max(recovery_s, time.monotonic() - killed)
    report(2, "SIGKILL of three members in turn", ledger.check(), faults=kills, recovery_s=recovery_s)


@pytest.mark.slow
def test_sigterm_under_load_leaves_nothing_to_be_read_twice(ledger: Ledger, report: Report) -> None:
    group, stops = Group(ledger.shop), rounds(2, 20)
    members = [start(ledger, properties=WAITED_FOR) for _ in range(2)]
    group.await_shared(members)
    ended = []
    with ledger.load(_PER_SECOND):
        for _ in range(stops):
            await_more_read(members[0])
            ended.append(members.pop(0))
            assert ended[-1].stop() == 0
            members.append(start(ledger, properties=WAITED_FOR))
            group.await_shared(members)
    ledger.await_counted()
    for member in members:
        assert member.stop() == 0
    ended += members
    assert sum(member.logged("records") for member in ended) == ledger.acknowledged
    assert sum(member.logged("duplicates") for member in ended) == 0
    assert not any("not committed within" in member.said() for member in ended)
    report(2, "SIGTERM of two members in turn, nothing read twice", ledger.check(), faults=stops)


def outlive(ledger: Ledger, group: Group) -> Consumer:
    """Let another member take over what one holds up, and serve newer events of everyone; return the other."""
    heir = start(ledger)
    heir.await_assigned(4)
    ledger.send(ledger.one_of_each())
    ledger.flush()
    ledger.await_counted()
    ledger.await_listed()
    wait_until(lambda: group.lag() == 0, "the heir has committed everything")
    return heir


def check_stale_writes_rejected(point: str, member: Consumer) -> dict[str, float]:
    """Check what became of the batch in which a member was held up at a point and outlived; return its metrics.

    Records that it had fetched besides may still be read: they are duplicates too.
    """
    counts = wait_until(lambda: settled(member.metrics()), "what it has read is applied or known")
    applied, duplicates = counts["events_applied_total"], counts["events_duplicate_total"]
    assert (applied > 0) == (point != "decoded")
    assert duplicates > 0 or point not in ("decoded", "between-applies")
    assert (counts["lists_rejected_total"] > 0) == (point in ("between-applies", "applied"))
    assert (counts["lists_published_total"] > 0) == (point in ("published", "before-commit"))
    return counts


def settled(counts: dict[str, float]) -> dict[str, float] | None:
    """Return a consumer's metrics if it is not in the middle of a batch."""
    done = counts["events_applied_total"] + counts["events_duplicate_total"]
    return counts if done == counts["records_total"] > 0 else None


@pytest.mark.parametrize(
    "point",
    [
        pytest.param("decoded", marks=pytest.mark.slow),
        pytest.param("between-applies", marks=full_only),
        "applied",
        pytest.param("published", marks=full_only),
        pytest.param("before-commit", marks=full_only),
    ],
)
def test_stale_writes_of_a_zombie_are_rejected(ledger: Ledger, report: Report, point: str) -> None:
    group = Group(ledger.shop)
    ledger.publish(200)
    zombie = start(ledger, f"{point}=stop")
    zombie.await_standing()
    heir = outlive(ledger, group)
    zombie.thaw()
    group.await_shared([zombie, heir])
    counts = check_stale_writes_rejected(point, zombie)
    assert group.lag() == 0, "it did not move the offsets back"
    ledger.publish(100)
    events, lists = counts["events_duplicate_total"], counts["lists_rejected_total"]
    title = f"SIGSTOP after {point}, SIGCONT: {events:.0f} events, {lists:.0f} lists rejected"
    report(3, title, ledger.check(), faults=1)


@pytest.mark.slow
@full_only
def test_members_frozen_at_any_time_under_load(ledger: Ledger, report: Report) -> None:
    group, freezes = Group(ledger.shop), 10
    members = [start(ledger) for _ in range(2)]
    group.await_shared(members)
    with ledger.load(_PER_SECOND):
        for number in range(freezes):
            zombie, heir = members[number % 2], members[1 - number % 2]
            zombie.freeze()
            heir.await_assigned(4)
            ledger.await_counted()
            zombie.thaw()
            group.await_shared(members)
    report(3, "SIGSTOP under load, SIGCONT", ledger.check(), faults=freezes)


@pytest.mark.slow
@pytest.mark.parametrize("properties", [WAITED_FOR, EXPELLED], ids=["waited-for", "expelled"])
def test_rebalance_in_the_middle_of_a_batch(
    ledger: Ledger, report: Report, tmp_path: Path, properties: dict[str, int]
) -> None:
    group, held = Group(ledger.shop), tmp_path / "held"
    ledger.publish(200)
    slow = start(ledger, f"applied=hold:{held}", properties)
    wait_until(held.exists, "a batch is held up")
    if properties is EXPELLED:
        other = outlive(ledger, group)
    else:
        other = start(ledger, properties=properties)
        group.await_rebalancing()
    held.unlink()
    group.await_shared([slow, other])
    if properties is EXPELLED:
        check_stale_writes_rejected("applied", slow)
        assert "maximum poll interval" in slow.said()
    else:
        ledger.await_counted()
        assert slow.metrics()["events_duplicate_total"] + other.metrics()["events_duplicate_total"] == 0
    ledger.publish(100)
    title = "max.poll.interval exceeded by a batch" if properties is EXPELLED else "Rebalance in the middle of a batch"
    report(4, title, ledger.check(), faults=1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "properties", [WAITED_FOR, pytest.param(EXPELLED, marks=full_only)], ids=["waited-for", "expelled"]
)
def test_rebalance_in_the_middle_of_a_model_swap(
    ledger: Ledger, report: Report, tmp_path: Path, properties: dict[str, int]
) -> None:
    group, held = Group(ledger.shop), tmp_path / "held"
    # It looks for a new model so seldom that it has certainly served someone since.
    slow = start(ledger, f"in-model-swap=hold:{held}", properties, RECSYS_CONSUMER__MODEL_POLL_S="2")
    slow.await_assigned()
    with ledger.load(_PER_SECOND):
        ledger.shop.run("trainer", "--once")
        wait_until(held.exists, "the swap is held up")
        other = start(ledger, properties=properties)
        if properties is EXPELLED:
            other.await_assigned(4)
        else:
            group.await_rebalancing()
        held.unlink()
        group.await_shared([slow, other])
    served = re.search(r"is live; refreshing (\d+) users", slow.said())
    assert served
    assert int(served[1]) > 0
    title = "max.poll.interval exceeded by a model swap" if properties is EXPELLED else "Rebalance in a model swap"
    report(4, title, ledger.check(), faults=1)


@pytest.mark.slow
def test_callbacks_that_raise_cost_nothing_but_a_new_client(ledger: Ledger, report: Report, tmp_path: Path) -> None:
    group, held = Group(ledger.shop), tmp_path / "held"
    with ledger.load(_PER_SECOND):
        members = [start(ledger, "in-rebalance=raise@2")]
        members[0].await_assigned(4)
        members.append(start(ledger, "in-rebalance=raise@1"))  # its assignment raises, and the revocation of the first
        group.await_shared(members)
        members.append(start(ledger, f"applied=hold:{held}, in-rebalance=raise@2", EXPELLED))
        wait_until(held.exists, "a batch is held up")
        group.await_shared(members[:2])
        held.unlink()  # and its loss of everything raises
        group.await_shared(members)
    for member in members:
        assert "starting again from what is in Redis" in member.said()
    report(4, "A callback raises: on assignment, revocation, loss", ledger.check(), faults=3)


@pytest.mark.slow
def test_a_member_without_partitions_says_again_and_again_who_holds_them(ledger: Ledger) -> None:
    topic = f"single-{ledger.shop.name}"
    admin = AdminClient({"bootstrap.servers": ledger.shop.kafka.address})
    for created in admin.create_topics([NewTopic(topic, 1)]).values():
        created.result()
    holds = start(ledger, properties=WAITED_FOR, RECSYS_KAFKA__TOPIC=topic)
    holds.await_assigned()
    stands_by = start(ledger, properties=WAITED_FOR, RECSYS_KAFKA__TOPIC=topic)
    wait_until(lambda: stands_by.said().count("no partitions for ") >= 2, "it is said again")
    lines = [line for line in stands_by.said().splitlines() if "no partitions for " in line]
    group = ledger.shop.environment["RECSYS_KAFKA__GROUP_ID"]
    assert f"group {group} has 2 members, state Stable: " in lines[-1]
    assert "holds [0]" in lines[-1]
    assert "holds none" in lines[-1]
    assert holds.stop() == 0
    stands_by.await_assigned()
    assert stands_by.stop() == 0
