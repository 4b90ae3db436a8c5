"""History from files straight into the archive and Redis: a shop's first day, and corrections later on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa

from recsys.data.event import Event
from recsys.errors import InputFileError, advised
from recsys.files.batches import Batch, RowCounts
from recsys.files.event_file import EventFile
from recsys.operations.hash_runs import HashRuns
from recsys.operations.known_rows import NEW, REPEATED, Identities, KnownRows, hashes_of
from recsys.redis import calls_by_user
from recsys.redis.users import UserStore
from recsys.runtime import fail_points
from recsys.runtime.clock import json_time
from recsys.runtime.progress import ProgressReporter
from recsys.storage.archive import Archive
from recsys.storage.data_dir import DataDir
from recsys.storage.imports import ImportRecord
from recsys.storage.segments import IMPORT_PREFIX, Segment, events_of, in_order_of_application


@dataclass(slots=True)
class ImportOutcome:
    """What an import did.

    Attributes
    ----------
    id : str
        Of the import.
    rows : RowCounts
        Of the file; its lines that are valid are new or known.
    new, known : int
        Purchases that count because of this import, and those that the archive holds already.
    repeated_ids : int
        Of the known ones, rows with the event_id of an earlier row of the file.
    alike : int
        Of the known ones, rows without event_id that another import has brought: they may be other purchases that look
        the same.
    like_stream : int
        New purchases that equal one of the topic, and have no event_id: they may count twice.
    dates_only : bool
        Whether no time of the file has a time of day.
    """

    id: str
    rows: RowCounts = field(default_factory=RowCounts)
    new: int = 0
    known: int = 0
    repeated_ids: int = 0
    alike: int = 0
    like_stream: int = 0
    dates_only: bool = True


def import_file(
    file: EventFile,
    data_dir: DataDir,
    users: UserStore,
    *,
    rejects: Path,
    progress: ProgressReporter,
    clock: Callable[[], datetime],
    as_new: bool = False,
    before_write: Callable[[], None] = lambda: None,
    on_batch: Callable[[Batch], None] = lambda _: None,
) -> ImportOutcome:
    """Import a file, or several as one; purchases that the archive holds already are found there, and count once.

    The file is a source like a topic, with rows for offsets, or lines where a row has several. Purchases that another
    import has brought are applied again as what they are there, by source and offset, which Redis recognizes. So an
    import that was interrupted between archive and Redis is completed by any later one that holds the same purchases.

    Parameters
    ----------
    as_new : bool
        Take all purchases without event_id for new ones.
    before_write : callable
        Called before each segment; what it raises ends the import.
    on_batch : callable
        Takes each batch of rows once it is read.

    Raises
    ------
    InputFileError
        When the file cannot be read, or was imported with other options.
    DataDirError, RedisError
        When one is away or full; what is on the way may be imported in part, and the text says so.
    """
    data_dir.storage.check_writable()
    record = _new_record(file, data_dir, clock(), as_new=as_new)
    with advised(
        "part of the file may be imported: run the same command again to complete it, nothing is counted twice"
    ):
        return _import(
            file, record, data_dir, users, rejects=rejects, progress=progress, clock=clock, as_new=as_new,
            before_write=before_write, on_batch=on_batch,
        )  # fmt: skip


def _import(
    file: EventFile,
    record: ImportRecord,
    data_dir: DataDir,
    users: UserStore,
    *,
    rejects: Path,
    progress: ProgressReporter,
    clock: Callable[[], datetime],
    as_new: bool,
    before_write: Callable[[], None],
    on_batch: Callable[[Batch], None],
) -> ImportOutcome:
    archive, outcome = data_dir.archive, ImportOutcome(record.id)
    segments = archive.segments()
    with progress.stage("look for known purchases", len(segments)) as advance:
        known = KnownRows(archive, segments, advance, only_ids_but_of=record.source if as_new else None)
    data_dir.imports.write(record)
    own = [segment for segment in segments if segment.source == record.source]
    _apply_again(archive, own, users, lambda segment: None)
    covered = [segment for segment in own if segment.partition == record.run]
    # Rows of offsets that were written before, and are not known all the same: they were rejected then, or erased.
    later = max([_milliseconds(clock()), record.run + 1, *(segment.partition + 1 for segment in own)])
    round_, written_to = archive.new_round(clock()), {record.run: 0, later: 0}
    met: dict[str, HashRuns] = defaultdict(HashRuns)  # source → users of whom the file has a purchase that it brought
    with (
        file.rejects_file(rejects) as rejected,
        progress.stage(f"import {file.name}", file.rows, unit="rows") as advance,
    ):
        for batch in file.batches(users.ensure_can_hold):
            rejected.add(batch.rejects)
            on_batch(batch)
            fresh = _new_events(batch, known, segments, met, outcome, own=record.source)
            for run, part in zip((record.run, later), _by_whether_covered(fresh, covered), strict=True):
                if part:
                    before_write()
                    archive.write(Segment(round_, record.source, run, written_to[run] + 1, batch.last_row), part)
                    written_to[run] = batch.last_row
                    fail_points.reach("in-import")
                    for call in calls_by_user(f"{record.source}:{run}", part, complete=True):
                        users.apply_without_reading(call)
            advance(batch.rows)
    _apply_again(archive, [s for s in segments if s.source in met], users, lambda segment: met[segment.source])
    rows = outcome.rows
    if rows.valid:
        new = known.rows_of[record.source] + outcome.new
        changes = {
            "finished_at": json_time(clock()), "read": rows.read, "new": new, "known": max(0, rows.valid - new),
            "rejected": rows.rejected, "no_user": rows.no_user, "left_out": rows.left_out,
            "relies_on": sorted({*record.relies_on, *(source.removeprefix(IMPORT_PREFIX) for source in met)}),
        }  # fmt: skip
        data_dir.imports.write(record.model_copy(update=changes))
    elif not own:
        data_dir.imports.remove(record.id)
    return outcome


def _new_record(file: EventFile, data_dir: DataDir, at: datetime, *, as_new: bool) -> ImportRecord:
    """Return the record of this import: that of the same file and options, if it was imported before."""
    options = file.options() | ({"as_new": "True"} if as_new else {})
    import_id, content = file.digest(sorted(options.items())), file.content_digest
    records = data_dir.imports.records()
    for pending in data_dir.imports.undoing():
        raise InputFileError(f"recsys imports undo {pending.id} was interrupted; run it again before the next import")
    for record in records.values():
        if record.content_sha256 == content and record.id != import_id:
            raise InputFileError(
                f"{file.label}: the same file was imported on {record.started_at[:10]} with other options "
                f"({_difference(record.options, options)}); recsys imports undo {record.id} takes that back, then "
                f"import it again"
            )
    return records.get(import_id) or ImportRecord(
        id=import_id,
        file=file.name,
        content_sha256=content,
        options=options,
        started_at=json_time(at),
        run=_milliseconds(at),
    )


def _milliseconds(at: datetime) -> int:
    return round(at.timestamp() * 1000)


def _difference(before: dict[str, str], now: dict[str, str]) -> str:
    names = [name for name in (before | now) if before.get(name) != now.get(name)]
    return "; ".join(f"{name}: {before.get(name, 'default')}, now {now.get(name, 'default')}" for name in names)


def _new_events(
    batch: Batch,
    known: KnownRows,
    segments: Sequence[Segment],
    met: dict[str, HashRuns],
    outcome: ImportOutcome,
    *,
    own: str,
) -> list[tuple[int, Event]]:
    """Count a batch's rows and return those that are new."""
    outcome.rows.note(batch)
    outcome.dates_only &= not batch.with_time_of_day
    identities = Identities.of_events([event for _, event in batch.events])
    found = known.find(identities)
    users: dict[str, list[str]] = defaultdict(list)
    for at in np.flatnonzero(found >= 0).tolist():
        source = segments[found[at]].source
        if source != own:
            users[source].append(batch.events[at][1].user_id)
            outcome.alike += not identities.have_id[at]
    for source, user_ids in users.items():
        met[source].meet(hashes_of(user_ids))
    is_new = found == NEW
    outcome.like_stream += int((is_new & known.like_stream(identities)).sum())
    outcome.repeated_ids += int((found == REPEATED).sum())
    new = [row for row, fresh in zip(batch.events, is_new.tolist(), strict=True) if fresh]
    outcome.new += len(new)
    outcome.known += len(batch.events) - len(new)
    return new


def _by_whether_covered(
    rows: Sequence[tuple[int, Event]], covered: Sequence[Segment]
) -> tuple[list[tuple[int, Event]], list[tuple[int, Event]]]:
    """Return the rows that no segment covers, and the others."""
    numbers = np.array([row for row, _ in rows], np.int64)
    inside = np.zeros(len(rows), bool)
    for segment in covered:
        inside |= (segment.first <= numbers) & (numbers <= segment.last)
    parts: tuple[list[tuple[int, Event]], list[tuple[int, Event]]] = ([], [])
    for row, is_inside in zip(rows, inside.tolist(), strict=True):
        parts[is_inside].append(row)
    return parts


def _apply_again(
    archive: Archive,
    segments: Sequence[Segment],
    users: UserStore,
    only: Callable[[Segment], HashRuns | None],
) -> None:
    """Apply purchases that are in the archive: of a segment those of some users, or all.

    All of a user's are applied, in the order of their rows: a row that Redis lacks must come before later ones.
    """
    for segment in in_order_of_application(segments):
        chosen, table = only(segment), archive.read(segment)
        if chosen is not None:
            table = table.filter(pa.array(chosen.contains(hashes_of(table["user_id"].to_pylist()))))
        events = [row for row in events_of(table) if users.can_hold(row[1].user_id)]
        for call in calls_by_user(f"{segment.source}:{segment.partition}", events, complete=True):
            users.apply_without_reading(call)
