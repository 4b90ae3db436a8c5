"""Scenario 11: the topic is compacted, from the beginning or later."""

from __future__ import annotations

import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # it exports these, but not by mypy's rules
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
)

from recsys.operations.undo_import import imports
from recsys.storage.data_dir import open_data_dir
from recsys.storage.imports import ImportRecord
from tests.faults.conftest import Report
from tests.faults.ledger import Ledger
from tests.services import wait_until

pytestmark = pytest.mark.real_kafka


def set_policy(ledger: Ledger, policy: str) -> None:
    admin = AdminClient({"bootstrap.servers": ledger.shop.kafka.address})
    entry = ConfigEntry("cleanup.policy", policy, incremental_operation=AlterConfigOpType.SET)
    topic = ConfigResource(ConfigResource.Type.TOPIC, ledger.shop.topic, incremental_configs=[entry])
    for done in admin.incremental_alter_configs([topic]).values():
        done.result()


@pytest.mark.slow
def test_what_was_archived_of_a_compacted_topic_is_not_taken_for_everything(ledger: Ledger, report: Report) -> None:
    """Compacted or not yet: what the archive may lack is in Redis alone, and nothing erases it."""
    shop = ledger.shop
    ledger.publish(50)
    shop.run("trainer", "--once")
    set_policy(ledger, "compact,delete")
    consumer = shop.start_consumer()
    consumer.await_saying(f"ERROR   recsys.kafka.cleanup_policy: topic {shop.topic} is compacted")
    wait_until(lambda: consumer.metrics().get("topic_compacted") == 1, "the metric tells")
    ledger.publish(50)
    ledger.await_counted()
    refused = shop.recsys("rebuild", "--wipe", expect=1).stderr
    assert "is compacted, and offsets" in refused  # what is not archived may vanish before it is
    said = shop.run("trainer", "--once").stderr
    assert f"topic {shop.topic} is compacted (cleanup.policy=compact,delete)" in said
    set_policy(ledger, "delete")
    counted = ledger.counted()
    refused = shop.recsys("rebuild", "--wipe", expect=1).stderr
    assert "were archived from a compacted topic" in refused
    assert "offsets 0 to" not in refused  # what was archived before it was compacted is whole
    assert ledger.counted() == counted
    assert "the archive may lack purchases" in shop.recsys("verify", "--all").stdout
    assert "were archived from a compacted topic" in shop.recsys("rebuild").stderr  # erases nothing, and warns
    shop.recsys("rebuild", "--wipe", "--accept-loss")
    ledger.await_counted()
    tally = ledger.check()
    assert consumer.stop() == 0
    report(11, "Topic compacted", tally, faults=1)


def test_an_import_is_not_taken_back_where_the_archive_may_lack_purchases(ledger: Ledger) -> None:
    shop = ledger.shop
    (shop.folder / "more.csv").write_text("user_id,item_id,timestamp\nanna,sku-1,2026-01-05T10:00:00Z\n")
    before = {record.id for record in imports_of(ledger)}
    shop.recsys("import", "more.csv")
    (made,) = (record.id for record in imports_of(ledger) if record.id not in before)
    set_policy(ledger, "compact")
    consumer = shop.start_consumer()
    ledger.publish(50)
    ledger.await_counted()
    shop.run("trainer", "--once")
    set_policy(ledger, "delete")
    refused = shop.recsys("imports", "undo", made, expect=1).stderr
    assert "were archived from a compacted topic" in refused
    assert "Nothing was changed; with --accept-loss" in refused
    shop.recsys("imports", "undo", made, "--accept-loss")
    ledger.check()
    assert consumer.stop() == 0


def imports_of(ledger: Ledger) -> list[ImportRecord]:
    return imports(open_data_dir(ledger.shop.settings()))
