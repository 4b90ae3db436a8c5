"""Whether histories are missing is told from Redis, the archive and what the group has committed."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from recsys.data.event import Event
from recsys.errors import HistoriesMissing
from recsys.operations.histories import MISSING, HistoriesLook, decide, ensure_histories
from recsys.redis import Store, calls_by_user
from recsys.settings import Settings
from recsys.storage.data_dir import DataDir
from recsys.storage.files import Storage
from recsys.storage.segments import Segment

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ROWS = [(1, Event(user_id="user-1", item_id="sku-1", timestamp=1_700_000_000_000, event_id="order-1"))]


@pytest.fixture
def data_dir(tmp_path: Path) -> DataDir:
    """An empty folder."""
    return DataDir.of(Storage(str(tmp_path)))


def archive(data_dir: DataDir, source: str) -> None:
    data_dir.archive.write(Segment("20260101T000000.000000Z", source, 0, 1, 1), ROWS)


def apply_import(store: Store) -> None:
    for call in calls_by_user("import-file:0", ROWS, complete=True):
        store.users.apply_without_reading(call)


def mark(store: Store, shards: slice = slice(None)) -> None:
    for shard in store.connection.shard_tags()[shards]:
        store.connection.client.hset(store.users._keys.marks(shard), "topic:0", 1)


def missing(store: Store, data_dir: DataDir, *, written: bool = False) -> bool:
    return decide(store, data_dir, consumers_have_written=lambda: written)


def unasked() -> bool:
    raise AssertionError("with applied offsets everywhere nothing more is asked")


def test_a_new_shop_lacks_nothing(store: Store, data_dir: DataDir) -> None:
    assert not missing(store, data_dir)
    archive(data_dir, "topic")  # a trainer came before the first consumer
    store.pointer.move("v1", "/models/v1", "aa", seen=b"", at=NOW)
    assert not missing(store, data_dir)


def test_a_shop_with_imports_alone_lacks_nothing_until_its_histories_are_gone(store: Store, data_dir: DataDir) -> None:
    archive(data_dir, "import-file")
    apply_import(store)
    assert not missing(store, data_dir)
    store.users.remove(["user-1"])
    assert missing(store, data_dir)


def test_with_applied_offsets_everywhere_nothing_more_is_asked(store: Store, data_dir: DataDir) -> None:
    archive(data_dir, "import-file")
    mark(store)
    assert not decide(store, data_dir, consumers_have_written=unasked)


def test_what_the_group_has_committed_must_be_there(store: Store, data_dir: DataDir) -> None:
    apply_import(store)  # by an import that came after the loss
    assert missing(store, data_dir, written=True)


def test_a_first_consumer_that_begins_just_now_lacks_nothing(store: Store, data_dir: DataDir) -> None:
    """It writes its marks and then commits: whoever looks in this order in between sees the commit alone."""

    def begins_meanwhile() -> bool:
        mark(store)
        return True

    assert not decide(store, data_dir, consumers_have_written=begins_meanwhile)


def test_without_kafka_a_pointer_that_is_gone_tells(store: Store, data_dir: DataDir) -> None:
    archive(data_dir, "topic")
    data_dir.storage.write_file("models/20260101T000000Z-aaaaaa/manifest.json", b"{}")
    assert data_dir.models.versions()
    assert missing(store, data_dir)


def test_a_part_of_a_cluster_that_was_emptied_is_noticed(
    store_settings: Settings, store: Store, data_dir: DataDir
) -> None:
    if not store_settings.redis.cluster:
        assert len(store.connection.shard_tags()) == 1
        return
    mark(store, slice(1, None))
    assert missing(store, data_dir)
    mark(store)
    assert not missing(store, data_dir)


def test_it_is_said_when_they_are_missing_and_when_they_are_back(
    store_settings: Settings, store: Store, data_dir: DataDir, caplog: pytest.LogCaptureFixture
) -> None:
    # No broker is there: what the group has committed stays unknown.
    kafka: dict[str, Any] = {"bootstrap_servers": "127.0.0.1:1", "timeout_s": 0.1}
    settings = Settings.model_validate({**store_settings.model_dump(), "kafka": kafka})
    caplog.set_level("INFO")
    look = HistoriesLook(settings, store, data_dir, ask_every_s=0)
    archive(data_dir, "import-file")

    def found() -> bool:
        look.look()
        return look.missing

    with store.trainer_lock.held(ttl_s=60):  # the import is still at work
        assert not found()
    assert found()
    assert found()
    assert [record.levelname for record in caplog.records if MISSING in record.getMessage()] == ["ERROR"]
    with pytest.raises(HistoriesMissing, match=MISSING):
        ensure_histories(settings, store, data_dir)
    apply_import(store)
    assert not found()
    assert "the histories are there again" in caplog.text
    ensure_histories(settings, store, data_dir)
