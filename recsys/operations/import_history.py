"""History from a file straight into the archive and Redis: a shop's first day."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from recsys.operations.purchase_files import PurchaseFile, RejectsFile
from recsys.redis import calls_by_user
from recsys.redis.users import UserStore
from recsys.runtime.progress import ProgressReporter
from recsys.storage.archive import Archive
from recsys.storage.segments import IMPORT_PREFIX, Segment


@dataclass(frozen=True, slots=True)
class ImportOutcome:
    """What an import did.

    Attributes
    ----------
    accepted, rejected : int
        Rows of the file.
    applied, duplicates : int
        Events that changed a history, and events that were there already.
    """

    accepted: int
    rejected: int
    applied: int
    duplicates: int


def import_file(
    file: PurchaseFile,
    archive: Archive,
    users: UserStore,
    *,
    rejects: Path,
    progress: ProgressReporter,
    clock: Callable[[], datetime],
    before_write: Callable[[], None] = lambda: None,
) -> ImportOutcome:
    """Import a file; running it again after any failure, or for no reason, counts nothing twice.

    The file is a source like a topic, named by its content, with rows for offsets: a part that is in the archive is
    not written again, and Redis recognizes rows it has applied. ``before_write`` is called before each segment; what it
    raises ends the import.
    """
    source = f"{IMPORT_PREFIX}{file.digest()}"
    archived = [segment for segment in archive.segments() if segment.source == source]
    accepted = applied = duplicates = 0
    round_ = archive.new_round(clock())
    with RejectsFile(rejects) as rejected, progress.stage(f"import {file.path.name}", file.rows) as advance:
        for batch in file.batches(users.ensure_can_hold):
            rejected.add(batch)
            there = any(part.first <= batch.last_row and batch.first_row <= part.last for part in archived)
            if batch.last_row >= batch.first_row and not there:
                before_write()
                archive.write(Segment(round_, source, 0, batch.first_row, batch.last_row), batch.events)
            for call in calls_by_user(f"{source}:0", batch.events, complete=True):
                new, old = users.apply_without_reading(call)
                applied += new
                duplicates += old
            accepted += len(batch.events)
            advance(batch.last_row - batch.first_row + 1)
    return ImportOutcome(accepted, rejected.count, applied, duplicates)
