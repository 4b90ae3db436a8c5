"""Scenario 10: producers send copies and come late; the whole topic is read again on purpose."""

from __future__ import annotations

import pytest

from tests.faults.conftest import Report, rounds
from tests.faults.group import Group
from tests.faults.ledger import Ledger
from tests.faults.test_members import start
from tests.services import wait_until

pytestmark = pytest.mark.real_kafka


def test_copies_and_latecomers_and_then_the_whole_topic_again(ledger: Ledger, report: Report) -> None:
    group, count = Group(ledger.shop), rounds(4000, 20_000)
    # Each copy comes while its first is among the user's newest ids, the replay long after.
    ledger.shop.environment["RECSYS_HISTORY__MAX_EVENT_IDS"] = "24"
    sales = ledger.disordered(ledger.sales(count), share=0.05, farthest=300)
    copies = len(sales) - count
    assert copies > 0.04 * count
    ledger.send(sales)
    ledger.flush()
    member = start(ledger)
    ledger.await_counted()
    wait_until(lambda: group.lag() == 0, "everything is committed")
    assert member.metrics()["events_duplicate_total"] == copies
    report(10, "5 % copies, 5 % out of order", ledger.check(), faults=copies)
    assert member.stop() == 0

    group.reset(dict.fromkeys(range(4), 0))
    member = start(ledger)
    wait_until(lambda: member.metrics().get("records_total") == len(sales), "everything has been read again")
    wait_until(lambda: group.lag() == 0, "everything is committed again")
    assert member.metrics()["events_duplicate_total"] == len(sales)
    report(10, "The whole topic read again", ledger.check(), faults=len(sales))
    assert member.stop() == 0
