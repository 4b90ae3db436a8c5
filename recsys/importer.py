"""History from a file straight into the archive and Redis: a shop's first day."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from recsys.archive import Archive, Segment
from recsys.input_files import Batch, PurchaseFile, RejectsFile
from recsys.progress import ProgressReporter
from recsys.store import PlacedEvent
from recsys.store.users import UserStore

_USERS_PER_CALL = 500


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
) -> ImportOutcome:
    """Import a file; running it again after any failure, or for no reason, counts nothing twice.

    The file is a source like a topic, named by its content, with rows for offsets: a part that is in the archive is
    not written again, and Redis recognizes rows it has applied.
    """
    source = f"import-{file.digest()}"
    archived_to = archive.positions().get(source, {}).get(0, 0)
    accepted = applied = duplicates = 0
    round_ = archive.new_round(clock())
    with RejectsFile(rejects) as rejected, progress.stage(f"import {file.path.name}", file.rows) as advance:
        for batch in file.batches():
            rejected.add(batch)
            if batch.last_row >= max(batch.first_row, archived_to):
                archive.write(Segment(round_, source, 0, batch.first_row, batch.last_row), batch.events)
            for chunk in _by_user(source, batch):
                new, old = users.apply_without_reading(chunk)
                applied += new
                duplicates += old
            accepted += len(batch.events)
            advance(batch.last_row - batch.first_row + 1)
    return ImportOutcome(accepted, rejected.count, applied, duplicates)


def _by_user(source: str, batch: Batch) -> list[dict[str, list[PlacedEvent]]]:
    events: dict[str, list[PlacedEvent]] = defaultdict(list)
    for row, event in batch.events:
        events[event.user_id].append(PlacedEvent(f"{source}:0", row, event, complete=True))
    users = list(events)
    return [
        {user: events[user] for user in users[start : start + _USERS_PER_CALL]}
        for start in range(0, len(users), _USERS_PER_CALL)
    ]
