"""Scenario 18: an import is taken back, and killed on the way, while purchases arrive."""

from __future__ import annotations

import re
import signal

import pytest

from recsys.runtime import fail_points
from tests.faults.conftest import Report
from tests.faults.ledger import Ledger


@pytest.mark.parametrize(
    "point",
    [*(pytest.param(point, marks=pytest.mark.slow) for point in ("undo-begun", "undo-archived")), "undo-set-aside"],
)
def test_an_import_is_taken_back_while_purchases_arrive(ledger: Ledger, report: Report, point: str) -> None:
    consumer = ledger.shop.start_consumer()
    ledger.publish(300)
    ledger.await_counted()
    ledger.shop.run("trainer", "--once")  # some of the purchases are in the archive, the others in the topic alone
    lines = [f"{user},wrong-{n},2026-01-0{1 + n % 9}T10:00:00Z" for user in ledger.users for n in range(20)]
    (ledger.shop.folder / "wrong.csv").write_text("\n".join(["user_id,item_id,timestamp", *lines, ""]))
    with ledger.load(per_second=60):
        said = ledger.shop.recsys("import", "wrong.csv").stdout
        import_id = re.search(r"\(import ([0-9a-f]{16})\)", said)
        assert import_id is not None, said
        killed = {fail_points.VARIABLE: f"{point}=kill"}
        ledger.shop.recsys("imports", "undo", import_id[1], expect=-signal.SIGKILL, **killed)
        done = ledger.shop.recsys("imports", "undo", import_id[1]).stdout
    assert "users made again" in done
    assert not [item for _, item in ledger.counted() if item.startswith("wrong-")]
    tally = ledger.check()
    consumer.ensure_running()
    assert consumer.stop() == 0
    report(18, f"import taken back, killed at {point}, under load", tally, faults=1)
