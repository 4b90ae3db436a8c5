"""Segments of the purchase archive: their names, their columns, events to rows and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from recsys.data.event import Event, EventOfLine, EventType
from recsys.errors import DataDirError

FOLDER = "archive/purchases"
ROUND_FORMAT = "%Y%m%dT%H%M%S.%fZ"
"""Names of rounds: when they began, in UTC."""
IMPORT_PREFIX = "import-"
"""Of the sources that are files, whose rows start at 1."""
SCHEMA = pa.schema(
    [
        pa.field("offset", pa.int64(), nullable=False),
        pa.field("type", pa.string(), nullable=False),
        pa.field("user_id", pa.string(), nullable=False),
        pa.field("item_id", pa.string()),
        pa.field("quantity", pa.float64(), nullable=False),
        pa.field("price", pa.float64()),
        pa.field("timestamp", pa.timestamp("ms", tz="UTC"), nullable=False),
        pa.field("event_id", pa.string()),
        pa.field("line", pa.int32()),
    ]
)


@dataclass(frozen=True, slots=True, order=True)
class Segment:
    """One file of the archive; segments sort in order of arrival."""

    round: str
    source: str
    partition: int
    first: int
    last: int

    def __post_init__(self) -> None:
        if not self.source or "/" in self.source or "+" in self.source:
            raise ValueError(f"{self.source!r} is not a valid name of a source: it is empty or contains / or +")

    @property
    def path(self) -> str:
        """Path relative to ``data_dir``."""
        name = f"{self.source}+{self.partition:05d}+{self.first:020d}-{self.last:020d}.parquet"
        return f"{FOLDER}/{self.round}/{name}"

    @property
    def archived_s(self) -> int | None:
        """When its round began, in epoch seconds; None if the round has another kind of name."""
        try:
            began = datetime.strptime(self.round.partition("~")[0], ROUND_FORMAT)
        except ValueError:
            return None
        return int(began.replace(tzinfo=UTC).timestamp())

    @classmethod
    def of_path(cls, path: str) -> Segment:
        """Parse a relative path."""
        try:
            round_, name = path.removeprefix(f"{FOLDER}/").rsplit("/", 1)
            source, partition, offsets = name.removesuffix(".parquet").rsplit("+", 2)
            first, last = offsets.split("-")
            return cls(round_, source, int(partition), int(first), int(last))
        except ValueError:
            raise DataDirError(f"{path}: is not a segment of the archive; move it to another folder") from None


def in_order_of_application(segments: Sequence[Segment]) -> list[Segment]:
    """Return segments in order of arrival, but those of one import in the order of their rows.

    In Redis a row of an import raises the mark over all before it. A segment of an import that was lost and written
    again arrived last, with rows that come first. It may begin before its own rows do, so its end tells.
    """
    of_imports = [segment for segment in segments if segment.source.startswith(IMPORT_PREFIX)]
    by_rows = sorted(of_imports, key=lambda segment: segment.last)
    left: dict[tuple[str, int], list[Segment]] = {}
    for segment in by_rows:
        left.setdefault((segment.source, segment.partition), []).append(segment)
    return [
        left[segment.source, segment.partition].pop(0) if segment.source.startswith(IMPORT_PREFIX) else segment
        for segment in segments
    ]


def event_table(rows: Sequence[tuple[int, Event]]) -> pa.Table:
    """Make a table of (offset, event) rows."""
    events = [event for _, event in rows]
    columns: list[Any] = [
        [offset for offset, _ in rows],
        [event.type.value for event in events],
        [event.user_id for event in events],
        [event.item_id for event in events],
        [event.quantity for event in events],
        [event.price for event in events],
        [event.timestamp for event in events],
        [event.event_id for event in events],
        [event.line if isinstance(event, EventOfLine) else None for event in events],
    ]
    return pa.table(
        [pa.array(column, type=field.type) for column, field in zip(columns, SCHEMA, strict=True)], schema=SCHEMA
    )


def events_of(table: pa.Table) -> list[tuple[int, Event]]:
    """Return a segment's (offset, event) rows: the inverse of `event_table`."""
    columns = {name: table[name].to_pylist() for name in SCHEMA.names if name not in ("type", "timestamp", "line")}
    columns["type"] = [EventType(value) for value in table["type"].to_pylist()]
    columns["timestamp"] = table["timestamp"].cast("int64").to_pylist()
    offsets = columns.pop("offset")
    # They were valid when they were written, and the pages' checksums say that they are what was written.
    # An archive from before there were lines has none.
    lines = table["line"].to_pylist() if "line" in table.column_names else [None] * len(offsets)
    rows = (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))
    events = [
        Event.model_construct(**row) if line is None else EventOfLine.model_construct(**row, line=line)
        for row, line in zip(rows, lines, strict=True)
    ]
    return list(zip(offsets, events, strict=True))
