"""What `recsys status` finds out of a real Redis."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from recsys.operations.status_look import _model
from recsys.redis import Store
from recsys.runtime.clock import now
from recsys.storage.data_dir import DataDir
from recsys.storage.files import Storage


@pytest.mark.parametrize(
    ("version", "made"), [("20260102T030405Z-abcdef", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)), ("ours", None)]
)
def test_a_model_that_is_published_again_is_as_old_as_before(
    store: Store, tmp_path: Path, version: str, made: datetime | None
) -> None:
    store.pointer.move(version, "somewhere", "a" * 64, seen=store.pointer.value(), at=now())
    found = _model(store, DataDir.of(Storage(str(tmp_path))))
    assert found is not None
    assert found.made_at == (made or found.published_at)
    assert found.published_at > datetime(2026, 1, 3, tzinfo=UTC)
