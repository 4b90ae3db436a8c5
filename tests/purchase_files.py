"""Files of purchases for tests: written, opened, and what became of their rows."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from recsys.data.event import Event, EventReading
from recsys.files.batches import RowCounts
from recsys.files.columns import Columns
from recsys.files.event_file import EventFile
from recsys.files.purchases import PurchaseFile

HEADER = "user_id,item_id,timestamp\n"
DAY_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
READING = EventReading()


def opened(path: Path, columns: Columns | None = None) -> PurchaseFile:
    return PurchaseFile(path, columns or Columns(), events=READING, now=NOW)


def csv_file(folder: Path, text: str | bytes, columns: Columns | None = None) -> PurchaseFile:
    path = folder / "purchases.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return opened(path, columns)


def parquet_file(folder: Path, values: Mapping[str, Any], columns: Columns | None = None) -> PurchaseFile:
    path = folder / "purchases.parquet"
    pq.write_table(pa.table(values), path)
    return opened(path, columns)


def events(file: EventFile) -> list[tuple[int, Event]]:
    return [placed for batch in file.batches() for placed in batch.events]


def rejects(file: EventFile) -> list[tuple[int, str]]:
    """Return (row, reason) of each, the reason without the place."""
    return [(reject.row, reject.reason) for batch in file.batches() for reject in batch.rejects]


def rejected_values(file: EventFile) -> list[list[Any]]:
    return [list(reject.values) for batch in file.batches() for reject in batch.rejects]


def counts(file: EventFile) -> RowCounts:
    found = RowCounts()
    for batch in file.batches():
        found.note(batch)
    assert found.read == found.valid + found.rejected + found.no_user + found.left_out
    return found


def one_event(file: EventFile) -> Event:
    assert rejects(file) == []
    ((row, event),) = events(file)
    assert row == 1
    return event


def one_reject(file: EventFile) -> str:
    assert events(file) == []
    ((row, reason),) = rejects(file)
    assert row == 1
    return reason


def written(file: EventFile, path: Path) -> str:
    with file.rejects_file(path) as rejected:
        for batch in file.batches():
            rejected.add(batch.rejects)
    return path.read_text(encoding=file.table.form.encoding) if rejected.count else ""


def title_file(folder: Path, *titles: str, first: int = 1) -> PurchaseFile:
    rows = "".join(f"u{row},i{row},2026-01-01,{title}\n" for row, title in enumerate(titles, first))
    return csv_file(folder, f"user_id,item_id,timestamp,title\n{rows}")
