"""Taking an import back: its purchases leave the archive, and the users concerned are made again from what is left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from recsys.errors import InputFileError, RebuildWouldLoseData
from recsys.operations.losses import all_losses
from recsys.operations.make_again import make_again
from recsys.redis import Store
from recsys.runtime import fail_points
from recsys.runtime.progress import ProgressReporter
from recsys.settings import Settings
from recsys.storage.data_dir import DataDir
from recsys.storage.imports import ImportRecord, Undoing
from recsys.storage.segments import IMPORT_PREFIX


@dataclass(frozen=True, slots=True)
class Undone:
    """What was taken back.

    Attributes
    ----------
    purchases : int
        That left the archive.
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
    before_write: Callable[[], None],
    accept_loss: bool = False,
) -> Undone:
    """Take an import back while holding the trainer's lock; consumers may run. An interrupted undo goes on.

    Nothing is subtracted: histories have limits, so only what is left tells what they would be without the import. The
    users are set aside and made again (`make_again`).

    Raises
    ------
    InputFileError
        When there is no such import.
    RebuildWouldLoseData
        Unless ``accept_loss``, when Redis holds purchases that neither the archive nor Kafka can bring back; nothing
        has changed.
    KafkaUnavailable
        When Kafka is away; nothing has changed if it was away from the beginning.
    """
    archive = data_dir.archive
    lost = all_losses(settings, store, data_dir)
    if lost and not accept_loss:
        raise RebuildWouldLoseData(
            f"not everything could be brought back: {'; '.join(lost)}. Nothing was changed; with --accept-loss the "
            f"import is taken back all the same, and its users lose that"
        )
    own = [segment for segment in archive.segments() if segment.source == f"{IMPORT_PREFIX}{import_id}"]
    undoing = next((undoing for undoing in data_dir.imports.undoing() if undoing.id == import_id), None)
    if undoing is None:
        if not own and import_id not in data_dir.imports.records():
            raise InputFileError(f"{import_id}: there is no such import; recsys imports list shows them all")
        users: set[str] = set()
        for segment in own:
            users.update(archive.read(segment, ["user_id"])["user_id"].to_pylist())
        undoing = Undoing(import_id, frozenset(users))
        data_dir.imports.begin_undo(undoing)
    fail_points.reach("undo-begun")
    purchases = 0
    for segment in own:
        before_write()
        purchases += archive.read(segment, ["offset"]).num_rows
        archive.remove(segment)
    fail_points.reach("undo-archived")
    store.users.set_aside(sorted(filter(store.users.can_hold, undoing.users)))
    fail_points.reach("undo-set-aside")
    make_again(settings, store, data_dir, progress, before_write=before_write, accept_loss=accept_loss)
    data_dir.imports.remove(import_id)
    data_dir.imports.end_undo(import_id)
    relying = [record for record in data_dir.imports.records().values() if import_id in record.relies_on]
    return Undone(purchases, len(undoing.users), relying)
