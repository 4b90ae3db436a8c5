"""Scenario 21: records are orders of many lines, and the consumer is killed while it applies them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import pytest

from tests.faults.conftest import Report, rounds, trained_ledger
from tests.faults.group import Group
from tests.faults.ledger import CODE, ORDERS, Ledger
from tests.faults.test_crashes import QUICK
from tests.services import Shop, wait_until

pytestmark = pytest.mark.real_kafka
LONG = (256, 257, 1_001, 2_000)


@pytest.fixture
def ledger(shop: Shop) -> Iterator[Ledger]:
    """Buyers whose purchases are orders, and services with the mapping that reads them."""
    mapping = shop.folder / "orders.toml"
    mapping.write_text(ORDERS)
    with trained_ledger(shop) as ledger:
        shop.environment["RECSYS_EVENTS__MAPPING"] = str(mapping)
        yield ledger


POINTS = ["polled", "applied", "published", "marked", "before-commit"]


@pytest.mark.parametrize(
    "point", ["between-applies", *(pytest.param(point, marks=pytest.mark.slow) for point in POINTS)]
)
def test_orders_count_once_though_the_consumer_is_killed(ledger: Ledger, report: Report, point: str) -> None:
    count = rounds(1, 10)
    for number in range(count):
        orders = ledger.orders(40, most_lines=30)
        orders += [order for lines in LONG for order in ledger.orders(2, most_lines=lines)]
        ledger.send(ledger.disordered(orders, share=0.2, farthest=20))
        consumer = ledger.shop.start_consumer(
            RECSYS_TEST_FAIL_POINTS=f"{point}=kill@{1 + number % 3}", RECSYS_CONSUMER__BATCH_SIZE="10", **QUICK
        )
        consumer.await_killed()
    ledger.flush()
    consumer = ledger.shop.start_consumer(**QUICK)
    recovery_s = ledger.await_counted()
    report(21, f"Orders of up to 2,000 lines, SIGKILL, {point}", ledger.check(), faults=count, recovery_s=recovery_s)
    assert consumer.stop() == 0


@pytest.mark.slow
def test_all_orders_read_again(ledger: Ledger, report: Report) -> None:
    orders = ledger.orders(rounds(100, 2_000), most_lines=30) + ledger.orders(5, most_lines=2_000)
    ledger.send(orders)
    ledger.flush()
    lines = sum(len(order.item_ids) for order in orders)
    for number in range(2):
        consumer = ledger.shop.start_consumer()
        ledger.await_counted()
        group = Group(ledger.shop)
        wait_until(lambda group=group: group.lag() == 0, "everything is committed")  # type: ignore[misc]
        duplicates = consumer.metrics()["events_duplicate_total"]
        assert duplicates >= (lines if number else 0)
        assert consumer.stop() == 0
        group.reset(dict.fromkeys(range(4), 0))
    report(21, "Orders read again from the beginning", ledger.check(), faults=len(orders))


def other_mapping(ledger: Ledger) -> str:
    """Write a mapping in which lines have other ids, and which finds other items; they are sold as the same ones."""
    path = ledger.shop.folder / "changed.toml"
    path.write_text(ORDERS.replace('"line.id"', '"number"').replace('"line.sku"', '"line.code"'))
    ledger.sold_as = lambda item: item.removeprefix(CODE)
    return str(path)


def test_a_consumer_dies_in_the_middle_of_a_batch_and_the_next_one_has_another_mapping(
    ledger: Ledger, report: Report
) -> None:
    """What the first one had applied, and not marked yet, is read a second time, as it was read the first time."""
    changed = other_mapping(ledger)
    ledger.send(ledger.orders(40, most_lines=6))
    ledger.flush()
    first = ledger.shop.start_consumer(RECSYS_TEST_FAIL_POINTS="applied=kill", **QUICK)
    first.await_killed()
    ledger.shop.environment["RECSYS_EVENTS__MAPPING"] = changed
    second = ledger.shop.start_consumer(**QUICK)
    ledger.send(ledger.orders(40, most_lines=6))
    ledger.flush()
    recovery_s = ledger.await_counted()
    report(
        21, "A consumer dies within a batch, and the mapping changes", ledger.check(), faults=1, recovery_s=recovery_s
    )
    assert second.stop() == 0


@pytest.mark.slow
def test_a_consumer_that_wakes_when_another_one_has_read_on_with_another_mapping_applies_nothing(
    ledger: Ledger, report: Report
) -> None:
    changed = other_mapping(ledger)
    ledger.send(ledger.orders(40, most_lines=6))
    ledger.flush()
    first = ledger.shop.start_consumer(RECSYS_TEST_FAIL_POINTS="decoded=stop", **QUICK)
    first.await_standing()
    second = ledger.shop.start_consumer(**{**QUICK, "RECSYS_EVENTS__MAPPING": changed})
    recovery_s = ledger.await_counted()
    first.thaw()
    first.await_saying("with other settings of events; starting again")
    first.kill()
    ledger.shop.environment["RECSYS_EVENTS__MAPPING"] = changed
    report(21, "A frozen consumer wakes after the mapping changed", ledger.check(), faults=1, recovery_s=recovery_s)
    assert second.stop() == 0


def test_a_mapping_changes_while_orders_come(ledger: Ledger, report: Report) -> None:
    """Lines have other ids in the second mapping, and it finds other items: each order is read by one of them."""
    changed = other_mapping(ledger)
    count = rounds(3, 10)
    mappings = [ledger.shop.environment["RECSYS_EVENTS__MAPPING"], changed]
    with ledger.load(20, lambda due: ledger.orders(due, most_lines=12)):
        for number in range(count):
            ledger.shop.environment["RECSYS_EVENTS__MAPPING"] = mappings[number % 2]
            consumer = ledger.shop.start_consumer(RECSYS_CONSUMER__BATCH_SIZE="20", **QUICK)
            ledger.await_counted()
            if number % 2:  # what the consumers have yet to apply is archived as they will read it, or have
                ledger.shop.run("trainer", "--once")
                consumer.kill()
                consumer = ledger.shop.start_consumer(RECSYS_CONSUMER__BATCH_SIZE="20", **QUICK)
                ledger.await_counted()
            assert consumer.stop() == 0
    consumer = ledger.shop.start_consumer(**QUICK)
    recovery_s = ledger.await_counted()
    report(21, "The mapping changes while orders come", ledger.check(), faults=count, recovery_s=recovery_s)
    ledger.sold_as = str
    counted = ledger.counted()
    assert ledger.archived() == counted, "the archive reads each record as it was applied"
    read_by = defaultdict(set)
    for user, item in counted:
        read_by[user].add(item.startswith(CODE))
    assert set(map(frozenset, read_by.values())) == {frozenset([False]), frozenset([True])}
    assert consumer.stop() == 0
