"""Redis from the archive and the model: after a server lost its data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

from recsys.errors import DataDirError, InvalidModel, LockLost, RebuildWouldLoseData, WritesLost
from recsys.kafka.clients import open_consumer, open_reader
from recsys.kafka.start_offsets import start_offsets
from recsys.kafka.topics import Topic, describe_topic, end_offsets, ensure_group
from recsys.lists.live_model import LoadedModel
from recsys.lists.refresh_all import refresh_all_lists
from recsys.logger import logger
from recsys.operations.amend import Amended, amend
from recsys.operations.hidden_items import HiddenItems
from recsys.operations.losses import compacted_away, purchases_lost
from recsys.redis import HeldLock, ModelPointer, RebuildStage, Store, calls_by_user
from recsys.runtime import fail_points
from recsys.runtime.progress import ProgressReporter
from recsys.settings import Settings
from recsys.storage.archive import Archive
from recsys.storage.data_dir import DataDir
from recsys.storage.models import ModelStore
from recsys.storage.rounds import RoundLog
from recsys.storage.segments import IMPORT_PREFIX, Segment, events_of, in_order_of_application

log = logger(__name__)


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What a rebuild did.

    Attributes
    ----------
    histories : Amended
    lists, similar : int
        Lists written.
    model : str
        Version of the live model; empty if there is none.
    to_read : int or None
        Records beyond the archive that the consumers read again; None if they were not held up.
    """

    histories: Amended
    lists: int
    similar: int
    model: str
    to_read: int | None


def rebuild(
    settings: Settings,
    store: Store,
    data_dir: DataDir,
    lock: HeldLock,
    progress: ProgressReporter,
    *,
    wipe: bool,
    accept_loss: bool = False,
    clock: Callable[[], datetime],
) -> Rebuilt:
    """Bring histories and lists back while holding the trainer's lock.

    If Redis does not hold what the consumers have written, or with ``wipe``, consumers wait, what Redis still holds of
    users is removed, the archive is applied, and consumers read on from where it ends. Otherwise the archive is
    applied to what is there, which changes nothing that is there already.

    An interrupted rebuild goes on where it was; every step may be repeated.

    Raises
    ------
    RebuildWouldLoseData
        Unless ``accept_loss``, when something would be removed that neither archive nor Kafka can bring back.
    WritesLost
        When Redis was emptied meanwhile.
    """
    archive, models = data_dir.archive, data_dir.models
    topic = describe_topic(settings.kafka, settings.kafka.topic)
    segments = archive.segments()
    watermarks = _watermarks(settings, topic)
    positions = archive.positions(segments)
    here = positions.get(topic.id, {})
    starts = {topic.source(p): max(here.get(p, low), low) for p, (low, _) in watermarks.items()}
    versions, pointer = models.versions(), store.pointer.read_unless_damaged()
    losses = list(_losses(store, archive, versions, pointer, positions, topic, watermarks))
    losses += compacted_away(settings.kafka, archive, positions, topic, watermarks)
    stage = store.rebuilding.resume()
    if pointer is not None and pointer.version not in versions and not accept_loss:
        raise _would_lose_data(losses, data_dir)
    if wipe or (stage is not RebuildStage.APPLY and _consumers_wait(settings, topic, store)):
        stage = RebuildStage.WIPE
        if losses and not accept_loss:
            raise _would_lose_data(losses, data_dir)
        with progress.stage("check the archive", len(segments)) as advance:
            for segment in segments:  # before anything is removed
                archive.read(segment)
                advance(1)
        store.rebuilding.begin(stage)
    elif stage is None:
        stage = RebuildStage.AMEND
        store.rebuilding.begin(stage)
    else:
        log.warning("rebuild_continued", "continuing a rebuild that was interrupted")
    for loss in losses:
        log.warning("purchases_missing", "{loss}", loss=loss)
    if stage is RebuildStage.WIPE:
        store.applied_offsets.remove()
        with progress.stage("remove the old data") as advance:
            for users in store.users.user_ids(with_any_key=True):
                lock.ensure_held()
                store.users.remove(users)
                store.aside.leave(users)
                advance(len(users))
        stage = RebuildStage.APPLY
        store.rebuilding.enter(stage)
    while True:
        epoch = store.connection.epoch
        if stage is RebuildStage.APPLY:
            amended = _apply(store, archive, segments, lock, progress)
        else:
            may_lose = accept_loss or not losses
            amended = amend(settings, store, data_dir, segments, lock, progress, may_lose=may_lose)
        if store.connection.epoch == epoch:
            break
        log.warning(
            "redis_replaced", "another Redis server answers now, and may lack the newest writes; everything once more"
        )
        store.rebuilding.forget_segments()
    store.rebuilding.ensure_whole()
    store.applied_offsets.write_missing(starts)
    try:
        store.rebuilding.ensure_whole()
    except WritesLost:
        store.applied_offsets.remove()
        raise
    store.rebuilding.end()
    beyond = sum(max(0, end - starts[topic.source(p)]) for p, (_, end) in watermarks.items())
    to_read = beyond if stage is RebuildStage.APPLY else None
    _restore_catalogue(store, data_dir)
    HiddenItems(store, data_dir).restore()
    pointer = store.pointer.read_unless_damaged() or _newest_model(store, models, data_dir.rounds, clock)
    if pointer is None:
        return Rebuilt(amended, 0, 0, "", to_read)
    try:
        model = models.load(pointer.version, manifest_sha256=pointer.manifest_sha256)
    except InvalidModel as error:
        raise InvalidModel(
            f"{error}; the histories are restored. For the lists, restore the files of the model "
            f"or let the trainer make a new one"
        ) from error
    live = LoadedModel(pointer, model)
    popularity = models.popularity(pointer.version, manifest_sha256=pointer.manifest_sha256)
    written = refresh_all_lists(
        settings, store, data_dir, live, popularity, users=None, progress=progress, clock=clock, also_current=True
    )
    return Rebuilt(amended, written.lists, written.similar, live.stamp.version, to_read)


def _restore_catalogue(store: Store, data_dir: DataDir) -> None:
    try:
        catalogue = data_dir.catalogue.read()
    except DataDirError as error:
        log.warning("catalogue_not_restored", "titles and availability were not restored: {error}", error=error)
        return
    store.catalogue.write(catalogue.titles(), catalogue.unavailable())


def _consumers_wait(settings: Settings, topic: Topic, store: Store) -> bool:
    """Whether Redis lacks what the consumers have written, so that they wait."""
    consumer = open_consumer(settings.kafka, settings.kafka.group_id)
    try:
        ensure_group(settings.kafka, consumer)
        marks = store.applied_offsets.read(topic.sources(topic.partitions))
        start_offsets(consumer, settings.kafka, topic, topic.partitions, marks=marks)
    except WritesLost:
        return True
    finally:
        consumer.close()
    return False


def _watermarks(settings: Settings, topic: Topic) -> dict[int, tuple[int, int]]:
    reader = open_reader(settings.kafka, "rebuild")
    try:
        return end_offsets(reader, settings.kafka, topic)
    finally:
        reader.close()


def _would_lose_data(losses: list[str], data_dir: DataDir) -> RebuildWouldLoseData:
    return RebuildWouldLoseData(
        f"not everything can be brought back: {'; '.join(losses)}. Is RECSYS_DATA_DIR ({data_dir.url}) right? "
        f"With --accept-loss the rebuild goes on without that"
    )


def _losses(
    store: Store,
    archive: Archive,
    versions: list[str],
    pointer: ModelPointer | None,
    positions: dict[str, dict[int, int]],
    topic: Topic,
    watermarks: dict[int, tuple[int, int]],
) -> Iterator[str]:
    """Yield what neither the archive nor Kafka can bring back."""
    if pointer is not None and pointer.version not in versions:
        yield f"the live model {pointer.version} is not in data_dir"
    elif not positions and not versions:
        yield "there is neither an archive nor a model in data_dir"
    for source, partition, first, last in archive.gaps():
        yield f"the archive lacks {source}, partition {partition}, {first} to {last}"
    yield from purchases_lost(store, positions, topic, watermarks)


def _apply(
    store: Store, archive: Archive, segments: list[Segment], lock: HeldLock, progress: ProgressReporter
) -> Amended:
    """Apply the segments that this rebuild has not applied yet, in order of arrival."""
    amended = Amended()
    done = store.rebuilding.segments_done()
    with progress.stage("apply the archive", len(segments)) as advance:
        for segment in in_order_of_application(segments):
            if segment.path not in done:
                lock.ensure_held()
                # Those that cannot be held are in the archive from before Redis became a cluster.
                events = [row for row in events_of(archive.read(segment)) if store.users.can_hold(row[1].user_id)]
                complete = segment.source.startswith(IMPORT_PREFIX)
                for call in calls_by_user(f"{segment.source}:{segment.partition}", events, complete=complete):
                    amended.note(*store.users.apply_without_reading(call))
                fail_points.reach("in-rebuild")
                store.rebuilding.ensure_whole()
                store.rebuilding.note_done(segment.path)
            advance(1)
    return amended


def _newest_model(
    store: Store, models: ModelStore, rounds: RoundLog, clock: Callable[[], datetime]
) -> ModelPointer | None:
    """Make the model live again that was live last, or else the newest one; None if there is none."""
    seen, kept = store.pointer.value(), models.versions()
    were_live = [record.version for record in rounds.publications() if record.version in kept]
    others = [version for version in reversed(kept) if not models.is_rejected(version)]
    for version in dict.fromkeys((*were_live, *others)):
        uri, manifest_sha256 = models.address(version)
        try:
            models.load(version, manifest_sha256=manifest_sha256)
        except InvalidModel as error:
            log.warning("model_passed_over", "skipped a model: {error}", error=error)
            continue
        pointer = store.pointer.move(version, uri, manifest_sha256, seen=seen, at=clock())
        if pointer is None:
            raise LockLost("another process moved the model pointer during the rebuild; run it again")
        return pointer
    return None
