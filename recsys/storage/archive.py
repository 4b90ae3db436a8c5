"""The purchase archive: Parquet segments that are the source of truth; Redis can be rebuilt from them.

``archive/purchases/<round>/<source>+<partition>+<first offset>-<last offset>.parquet``. A source is a topic id or
an import. A segment covers all offsets from first to last, also those that held nothing valid, so the next offset
to read follows from the names alone. Rounds sort by time of arrival.

Rounds are the archive's own clock. Events say themselves when they were made, and whoever can publish can say anything;
but nothing was made after it was archived, and what came in through the stream cannot have been there before the round
that last read its partition. `Archive.events` bounds times by the former, and days on which users are known to have
bought something by both.
"""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import accumulate

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from recsys.data.epoch import LAST_MS
from recsys.data.event import UNITS_PER_QUANTITY, Event, EventType
from recsys.data.event_log import EventLog
from recsys.errors import DataDirError
from recsys.storage.files import Storage
from recsys.storage.segments import FOLDER, IMPORT_PREFIX, ROUND_FORMAT, Segment, event_table

_DAY_S = 24 * 3600
_CLEANUP_POLICY = b"cleanup_policy"
_READING = b"reading"
_READING = b"recsys.reading"
"""Key of a segment's metadata."""


class Archive:
    """Reads and writes segments. Only one process at a time may write: the one that holds the lock."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def segments(self) -> list[Segment]:
        """Return all segments in order of arrival."""
        return sorted(Segment.of_path(path) for path in self._storage.files(FOLDER, ".parquet"))

    def newest_event(self) -> datetime | None:
        """Return the time of the newest event of the newest round, as its files say; None if there is none."""
        segments = self.segments()
        newest = [self._newest_in(segment) for segment in segments if segment.round == segments[-1].round]
        return max((at for at in newest if at is not None), default=None)

    def _newest_in(self, segment: Segment) -> datetime | None:
        with self._errors_named(segment), self._storage.reading(segment.path) as file:
            found = pq.read_metadata(file)
        column = found.schema.to_arrow_schema().get_field_index("timestamp")
        statistics = [found.row_group(group).column(column).statistics for group in range(found.num_row_groups)]
        return max((one.max for one in statistics if one is not None and one.has_min_max), default=None)

    def positions(self, segments: Sequence[Segment] | None = None) -> dict[str, dict[int, int]]:
        """Return the next offset to archive by source and partition, as all segments say, or those given."""
        positions: dict[str, dict[int, int]] = defaultdict(dict)
        for segment in self.segments() if segments is None else segments:
            known = positions[segment.source].get(segment.partition, 0)
            positions[segment.source][segment.partition] = max(known, segment.last + 1)
        return dict(positions)

    def gaps(self) -> list[tuple[str, int, int, int]]:
        """Return (source, partition, first, last) of offsets between segments that no segment covers."""
        gaps = []
        covered: dict[tuple[str, int], int] = {}
        for segment in sorted(self.segments(), key=lambda segment: (segment.source, segment.partition, segment.first)):
            place = (segment.source, segment.partition)
            expected = covered.get(place, 1 if segment.source.startswith(IMPORT_PREFIX) else segment.first)
            if segment.first > expected:
                gaps.append((*place, expected, segment.first - 1))
            covered[place] = max(expected, segment.last + 1)
        return gaps

    def new_round(self, at: datetime) -> str:
        """Name a round that sorts after all before it, whatever the clock says."""
        name = at.astimezone(UTC).strftime(ROUND_FORMAT)
        newest = max((segment.round for segment in self.segments()), default="")
        if newest < name:
            return name
        before, _, count = newest.rpartition("~")
        if before and count.isdecimal():
            return f"{before}~{int(count) + 1:06d}"
        return f"{newest}~000001"

    def remove_temporaries(self) -> None:
        """Remove what crashed writes left; call it only while holding the lock."""
        self._storage.remove_temporaries(FOLDER)

    def write(
        self, segment: Segment, rows: Sequence[tuple[int, Event]], *, cleanup_policy: str = "", reading: str = ""
    ) -> None:
        """Write one segment; it is there completely or not at all.

        ``cleanup_policy`` is that of its topic while it was read; a compacted topic may have lost rows before.
        ``reading`` is the fingerprint of how its records were read: see `recsys.data.reading_history`.
        """
        table = event_table(rows)
        metadata = {name: value for name, value in ((_CLEANUP_POLICY, cleanup_policy), (_READING, reading)) if value}
        if metadata:
            table = table.replace_schema_metadata(metadata)
        self._storage.write_file(segment.path, _parquet(table), fail_point="in-segment")

    def cleanup_policy(self, segment: Segment) -> str:
        """Return what `write` was told; empty for segments from before it was recorded."""
        return self._noted(segment, _CLEANUP_POLICY)

    def reading(self, segment: Segment) -> str:
        """Return how its records were read, as `write` was told; empty for segments from before it was recorded."""
        return self._noted(segment, _READING)

    def _noted(self, segment: Segment, name: bytes) -> str:
        with self._errors_named(segment), self._storage.reading(segment.path) as file:
            metadata = pq.read_schema(file).metadata or {}
        return str(metadata.get(name, b"").decode())

    def remove(self, segment: Segment) -> None:
        """Remove a segment, whose purchases then never happened; call it only while holding the lock."""
        self._storage.delete(segment.path)

    def read(self, segment: Segment, columns: list[str] | None = None) -> pa.Table:
        """Return a segment's rows."""
        with self._errors_named(segment):
            content = io.BytesIO(self._storage.read_file(segment.path))
            return pq.read_table(content, columns=columns, page_checksum_verification=True)

    @contextmanager
    def _errors_named(self, segment: Segment) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, OSError) as error:
            raise DataDirError(
                f"{self._storage.uri(segment.path)}: cannot be read: {' '.join(str(error).split())}"
            ) from error

    def tables(self, columns: list[str], segments: Sequence[Segment] | None = None) -> Iterator[pa.Table]:
        """Yield the rows of all segments, or of those given, in order of arrival.

        Rows that an earlier segment covers are left out: two writers that did not know of each other wrote them.
        """
        for _, table in self._fresh(columns, self.segments() if segments is None else segments):
            yield table

    def _fresh(self, columns: list[str], segments: Sequence[Segment]) -> Iterator[tuple[Segment, pa.Table]]:
        """Yield segments with their rows, but those that an earlier one of these segments covers."""
        covered: dict[tuple[str, int], list[Segment]] = defaultdict(list)
        for segment in segments:
            earlier = covered[segment.source, segment.partition]
            overlapping = [part for part in earlier if part.first <= segment.last and segment.first <= part.last]
            earlier.append(segment)
            if not overlapping:
                yield segment, self.read(segment, columns)
                continue
            table = self.read(segment, [*columns, "offset"])
            offsets = table["offset"].to_numpy()
            fresh = np.ones(len(offsets), dtype=bool)
            for part in overlapping:
                fresh &= (offsets < part.first) | (offsets > part.last)
            yield segment, table.filter(pa.array(fresh)).select(columns)

    def erase_forgotten(self) -> int:
        """Carry out the `forget` events in the archive and return how many users were erased.

        Rows of the user that came before are removed, in the same partition by offset, elsewhere by round. Only
        when all of them are gone do the `forget` rows go: a crash on the way leaves the work to the next call.
        """
        segments = self.segments()
        forgets: dict[str, list[tuple[Segment, int]]] = defaultdict(list)
        for segment in segments:
            table = self.read(segment, ["type", "user_id", "offset"])
            asked = table.filter(pc.equal(table["type"], EventType.FORGET.value))
            for user, offset in zip(asked["user_id"].to_pylist(), asked["offset"].to_pylist(), strict=True):
                forgets[user].append((segment, offset))
        if not forgets:
            return 0
        for segment in segments:
            self._rewrite(segment, partial(_not_forgotten, segment=segment, forgets=forgets))
        for segment in sorted({segment for places in forgets.values() for segment, _ in places}):
            self._rewrite(segment, _no_forget)
        return len(forgets)

    def _rewrite(self, segment: Segment, choose: Callable[[pa.Table], NDArray[np.bool_]]) -> None:
        """Keep only the rows that ``choose`` says, whole or not at all."""
        table = self.read(segment)
        keep = choose(table)
        if not keep.all():
            self._storage.write_file(segment.path, _parquet(table.filter(pa.array(keep))), fail_point="in-segment")

    def events(self) -> EventLog:
        """Return all events about items, each event_id of a user once; times are bounded by the archive's clock."""
        columns = ["user_id", "item_id", "type", "quantity", "timestamp", "event_id"]
        clock = _Clock()
        parts = [_coded(table, *clock.bounds(segment)) for segment, table in self._fresh(columns, self.segments())]
        user_ids, user_codes = _unified([part.users for part in parts])
        item_ids, item_codes = _unified([part.items for part in parts])
        units, seconds = (
            np.concatenate([np.empty(0, np.int64), *column])
            for column in ((part.units for part in parts), (part.seconds for part in parts))
        )
        days = np.concatenate([np.empty(0, np.int32), *(part.days for part in parts)])
        counts = _first_of_each_id(user_codes, parts)
        del parts
        log = EventLog(user_ids, user_codes, item_ids, item_codes, units, seconds, days)
        return log if counts.all() else log.where(counts)


@dataclass(frozen=True, slots=True)
class _Coded:
    """Rows of a segment about items, each in a few bytes.

    Attributes
    ----------
    users, items : pa.DictionaryArray, (n,)
    units : int64, (n,); signed millionths
    seconds : int64, (n,); epoch seconds
    days : int32, (n,); see `EventLog`
    with_id : int64, (m,); which rows have an event id
    id_hashes : int64, (m,); its hash
    """

    users: pa.DictionaryArray
    items: pa.DictionaryArray
    units: NDArray[np.int64]
    seconds: NDArray[np.int64]
    days: NDArray[np.int32]
    with_id: NDArray[np.int64]
    id_hashes: NDArray[np.int64]


class _Clock:
    """What the archive knows about when events were made, from segments in order of arrival."""

    def __init__(self) -> None:
        self._read_before: dict[tuple[str, int], int] = {}

    def bounds(self, segment: Segment) -> tuple[int, int]:
        """Return between which moments the events of a segment came in, in epoch seconds.

        The first segment of a partition may hold purchases of years, and so may files, which an operator imports.
        """
        archived_s = segment.archived_s
        if archived_s is None:
            return 0, LAST_MS // 1000
        since_s = 0
        if not segment.source.startswith(IMPORT_PREFIX):
            place = (segment.source, segment.partition)
            since_s = self._read_before.get(place, 0)
            self._read_before[place] = archived_s
        return min(since_s, archived_s), archived_s


def _coded(table: pa.Table, since_s: int, archived_s: int) -> _Coded:
    table = table.filter(pc.is_valid(table["item_id"]))
    units = np.maximum(1, np.rint(table["quantity"].to_numpy() * UNITS_PER_QUANTITY)).astype(np.int64)
    is_return = pc.equal(table["type"], EventType.RETURN.value).to_numpy(zero_copy_only=False)
    units[is_return] *= -1
    seconds = np.minimum(table["timestamp"].cast("int64").to_numpy() // 1000, archived_s)
    days = (np.maximum(seconds, since_s) // _DAY_S).astype(np.int32)
    with_id = np.flatnonzero(pc.is_valid(table["event_id"]).to_numpy(zero_copy_only=False))
    event_ids = table["event_id"].drop_null().to_pylist()
    hashes = np.fromiter(map(hash, event_ids), np.int64, len(event_ids))
    users, items = (pc.dictionary_encode(table[name]).combine_chunks() for name in ("user_id", "item_id"))
    return _Coded(users, items, units, seconds, days, with_id, hashes)


def _unified(parts: Sequence[pa.DictionaryArray]) -> tuple[list[str], NDArray[np.int32]]:
    """Return the ids in all parts, and for each row its place among them: int32, (n,)."""
    if not parts:
        return [], np.empty(0, np.int32)
    chunks = pa.chunked_array(parts).unify_dictionaries().chunks
    codes = np.concatenate([chunk.indices.to_numpy() for chunk in chunks])
    return chunks[0].dictionary.to_pylist(), codes


def _parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
    return buffer.getvalue()


def _not_forgotten(
    table: pa.Table, segment: Segment, forgets: dict[str, list[tuple[Segment, int]]]
) -> NDArray[np.bool_]:
    """Say for each row whether it stays: all but those of a user who asked to be forgotten afterwards."""
    concerned = pc.is_in(table["user_id"], value_set=pa.array(list(forgets))).to_numpy(zero_copy_only=False)
    keep = np.ones(table.num_rows, dtype=bool)
    offsets, users, types = table["offset"].to_numpy(), table["user_id"], table["type"]
    for row in np.flatnonzero(concerned).tolist():
        keep[row] = types[row].as_py() == EventType.FORGET.value or not any(
            _precedes(segment, int(offsets[row]), forget, at) for forget, at in forgets[users[row].as_py()]
        )
    return keep


def _no_forget(table: pa.Table) -> NDArray[np.bool_]:
    rest: NDArray[np.bool_] = pc.not_equal(table["type"], EventType.FORGET.value).to_numpy(zero_copy_only=False)
    return rest


def _precedes(segment: Segment, offset: int, forget: Segment, forget_offset: int) -> bool:
    if (segment.source, segment.partition) == (forget.source, forget.partition):
        return offset < forget_offset
    return segment.round <= forget.round


def _first_of_each_id(user_codes: NDArray[np.int32], parts: Sequence[_Coded]) -> NDArray[np.bool_]:
    """Say for each row whether it counts: all but those whose event_id the same user had before.

    Ids are told apart by hashes of 64 bits; that two of one user have the same is less likely than a broken disk.
    """
    counts = np.ones(len(user_codes), dtype=bool)
    starts = accumulate((len(part.users) for part in parts), initial=0)
    rows = np.concatenate(
        [np.empty(0, np.int64), *(part.with_id + start for part, start in zip(parts, starts, strict=False))]
    )
    hashes = np.concatenate([np.empty(0, np.int64), *(part.id_hashes for part in parts)])
    # Stable: of rows with the same user and hash the first one comes first.
    order = np.lexsort((hashes, user_codes[rows]))
    users, hashes = user_codes[rows][order], hashes[order]
    again = np.flatnonzero((users[1:] == users[:-1]) & (hashes[1:] == hashes[:-1])) + 1
    counts[rows[order[again]]] = False
    return counts
