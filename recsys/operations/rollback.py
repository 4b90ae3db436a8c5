"""Making an earlier model live again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from recsys.errors import LockLost, NoModel
from recsys.lists.live_model import LoadedModel
from recsys.lists.refresh_all import Written, refresh_all_lists
from recsys.redis import HeldLock, Store
from recsys.runtime.clock import json_time
from recsys.runtime.progress import ProgressReporter
from recsys.settings import Settings
from recsys.storage.data_dir import DataDir
from recsys.storage.rounds import RoundRecord


@dataclass(frozen=True, slots=True)
class RolledBack:
    """What a rollback did."""

    version: str
    live_before: str
    written: Written


def previous_version(data_dir: DataDir, *, live: str) -> str:
    """Return the version that was live before this one, if it is still there.

    Raises
    ------
    NoModel
        When there is none.
    """
    kept = set(data_dir.models.versions())
    records = list(data_dir.rounds.publications())
    began = next((at for at, record in enumerate(records) if record.version == live), None)
    earlier = records if began is None else [record for record in records[began:] if record.kind != "refresh"]
    for record in earlier:
        for version in (record.version, record.live_before):
            if version in kept and version != live:
                return version
    raise NoModel("no earlier model is kept that was live; recsys models lists those that can be named")


def roll_back(
    settings: Settings,
    store: Store,
    data_dir: DataDir,
    lock: HeldLock,
    progress: ProgressReporter,
    version: str,
    *,
    live_before: str,
    clock: Callable[[], datetime],
    asked_by: str = "operator",
) -> RolledBack:
    """Point at an earlier version and refresh every list with it, while holding the trainer's lock.

    The pointer moves at once, when the model has been checked; consumers follow it, and a list of the model before is
    never written over one of the model that is live now. Whoever interrupts it calls it again with the same version.
    With the version that is live every list is written anew, as after a change of what lists look like.

    Parameters
    ----------
    version : str
    live_before : str
        The live version when the operator decided, empty if there was none.

    Raises
    ------
    InvalidModel
        When there is no such version, or it is damaged, or the live one is not what was published any more: nothing has
        happened then.
    LockLost
        When another process moved the pointer, also between the decision and the lock.
    """
    started_at = json_time(clock())
    models, rounds = data_dir.models, data_dir.rounds
    seen = store.pointer.value()
    pointer = store.pointer.read_unless_damaged()
    if pointer is not None and pointer.version not in (live_before, version):
        raise LockLost(
            f"model {pointer.version} went live while the rollback waited for the trainer, in place of "
            f"{live_before or 'none'}; nothing was rolled back: run it again with the version"
        )
    with progress.stage("check the model"):
        models.manifest(version)
        uri, manifest_sha256 = models.address(version)
        if pointer is not None and pointer.version == version:
            manifest_sha256 = pointer.manifest_sha256  # what was published, and not what stands there now
        model = models.load(version, manifest_sha256=manifest_sha256)
    record = RoundRecord(
        kind="rollback",
        asked_by=asked_by,
        started_at=started_at,
        finished_at=started_at,
        state="failed",
        error="interrupted",
        published=True,
        version=version,
        live_before=live_before,
    )
    lock.ensure_held()
    # Before the pointer moves: it is what keeps the next round from undoing this unjudged, should this process die.
    path = rounds.add(record, at=clock())
    # Also if this version is live: a new sequence makes every list one of an older model, to be written anew.
    pointer = store.pointer.move(version, uri, manifest_sha256, seen=seen, at=clock())
    if pointer is None:
        rounds.write(path, record.model_copy(update={"published": False}))
        raise LockLost("another process moved the model pointer at the same time; nothing was rolled back")
    live = LoadedModel(pointer, model)
    popularity = models.popularity(version, manifest_sha256=manifest_sha256)
    written = refresh_all_lists(settings, store, data_dir, live, popularity, users=None, progress=progress, clock=clock)
    if store.pointer.read() != pointer:
        raise LockLost(
            f"the pointer to model {version} was moved by another process, or lost by Redis, during the rollback"
        )
    done = {"state": "succeeded", "error": "", "finished_at": json_time(clock()), "durations_s": progress.durations_s}
    rounds.write(path, record.model_copy(update=done))
    return RolledBack(version, live_before, written)
