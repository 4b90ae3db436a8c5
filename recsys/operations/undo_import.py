"""Taking an import back: its purchases leave the archive, and the users concerned are made again from what is left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from recsys.errors import InputFileError, RebuildWouldLoseData, advised
from recsys.operations.losses import all_losses
from recsys.operations.make_again import make_again
from recsys.redis import Store
from recsys.runtime import fail_points
from recsys.runtime.clock import json_time
from recsys.runtime.progress import ProgressReporter
from recsys.settings import Settings
from recsys.storage.data_dir import DataDir
from recsys.storage.imports import ImportRecord, Undoing
from recsys.storage.segments import IMPORT_PREFIX, Segment


@dataclass(frozen=True, slots=True)
class Undone:
    """What was taken back.

    Attributes
    ----------
    purchases : int
        That left the archive, before an interruption as well.
    users : int
        Whose histories were made again.
    relying : list of ImportRecord
        Later imports that held some of these purchases as well, and did not bring them.
    """

    purchases: int
    users: int
    relying: list[ImportRecord]


def imports(data_dir: DataDir) -> list[ImportRecord]:
    """Return the imports, the oldest first; of one from before there were records, what its segments say."""
    records = data_dir.imports.records()
    without = sorted(
        {segment.source for segment in data_dir.archive.segments() if segment.source.startswith(IMPORT_PREFIX)}
        - {record.source for record in records.values()}
    )
    unknown = [
        ImportRecord(id=source.removeprefix(IMPORT_PREFIX), file="", content_sha256="", started_at="", finished_at="-")
        for source in without
    ]
    return [*unknown, *records.values()]


def undo_import(
    settings: Settings,
    store: Store,
    data_dir: DataDir,
    progress: ProgressReporter,
    import_id: str,
    *,
    clock: Callable[[], datetime],
    before_write: Callable[[], None],
    accept_loss: bool = False,
) -> Undone:
    """Take an import back while holding the trainer's lock; consumers may run. An interrupted undo goes on.

    Nothing is subtracted: histories have limits, so only what is left tells what they would be without the import. The
    users are set aside and made again (`make_again`).

    Raises
    ------
    InputFileError
        When there is no such import, or it was taken back already.
    RebuildWouldLoseData
        Unless ``accept_loss``, when Redis holds purchases that neither the archive nor Kafka can bring back; nothing
        has changed.
    KafkaUnavailable
        When Kafka is away; nothing has changed if it was away from the beginning, else the text says to run it again.
    """
    archive = data_dir.archive
    own = [segment for segment in archive.segments() if segment.source == f"{IMPORT_PREFIX}{import_id}"]
    undoing = next((undoing for undoing in data_dir.imports.undoing() if undoing.id == import_id), None)
    if undoing is None and not own and import_id not in data_dir.imports.records():
        raise InputFileError(_why_there_is_none(data_dir, import_id))
    data_dir.storage.check_writable()
    lost = all_losses(settings, store, data_dir)
    if lost and not accept_loss:
        raise RebuildWouldLoseData(
            f"not everything could be brought back: {'; '.join(lost)}. Nothing was changed; with --accept-loss the "
            f"import is taken back all the same, and its users lose that"
        )
    removed = 0
    with advised(f"the import is not taken back yet: run recsys imports undo {import_id} again"):
        if undoing is None:
            undoing = _begun(data_dir, import_id, own)
        fail_points.reach("undo-begun")
        for segment in own:
            before_write()
            removed += archive.read(segment, ["offset"]).num_rows
            archive.remove(segment)
        fail_points.reach("undo-archived")
        store.users.set_aside(sorted(filter(store.users.can_hold, undoing.users)))
        fail_points.reach("undo-set-aside")
        make_again(settings, store, data_dir, progress, before_write=before_write, accept_loss=accept_loss)
        data_dir.imports.end_undo(import_id, json_time(clock()))
    relying = [record for record in data_dir.imports.records().values() if import_id in record.relies_on]
    return Undone(removed if undoing.purchases is None else undoing.purchases, len(undoing.users), relying)


def _begun(data_dir: DataDir, import_id: str, own: Sequence[Segment]) -> Undoing:
    """Write down what an undo needs to go on after an interruption."""
    users: set[str] = set()
    purchases = 0
    for segment in own:
        found = data_dir.archive.read(segment, ["user_id"])["user_id"].to_pylist()
        users.update(found)
        purchases += len(found)
    undoing = Undoing(import_id, frozenset(users), purchases)
    data_dir.imports.begin_undo(undoing)
    return undoing


def _why_there_is_none(data_dir: DataDir, import_id: str) -> str:
    if at := data_dir.imports.undone_at(import_id):
        return f"{import_id}: this import was taken back already, on {at[:10]} at {at[11:16]} UTC"
    return f"{import_id}: there is no such import; recsys imports list shows them all"
