"""Taking an import back: its purchases leave the archive, and the users concerned are made again from what is left."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from recsys.data.event import Event
from recsys.errors import InputFileError, MalformedEvent, RebuildWouldLoseData
from recsys.kafka.clients import open_reader
from recsys.kafka.decoder import make_decoder
from recsys.kafka.records import read_range
from recsys.kafka.topics import describe_topic, end_offsets
from recsys.lists.live_model import LoadedModel
from recsys.lists.refresh_all import refresh_users
from recsys.operations.rebuild import purchases_lost
from recsys.redis import Store, calls_by_user
from recsys.runtime import fail_points
from recsys.runtime.progress import ProgressReporter
from recsys.settings import Settings
from recsys.storage.artifact import load_model
from recsys.storage.data_dir import DataDir
from recsys.storage.imports import ImportRecord, Undoing
from recsys.storage.segments import IMPORT_PREFIX, events_of, in_order_of_application

_USERS_PER_CALL = 500


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
) -> Undone:
    """Take an import back while holding the trainer's lock; consumers may run. An interrupted undo goes on.

    Nothing is subtracted: histories have limits, so only what is left tells what they would be without the import. The
    users' histories are erased and made again from the archive, and from what the topic holds beyond it. What consumers
    apply meanwhile is recognized, as always, by source and offset.

    Raises
    ------
    InputFileError
        When there is no such import.
    RebuildWouldLoseData
        When Redis holds purchases that neither the archive nor Kafka can bring back; nothing has changed.
    KafkaUnavailable
        When Kafka is away; nothing has changed if it was away from the beginning.
    """
    archive = data_dir.archive
    _ensure_nothing_is_lost(settings, store, data_dir)
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
    while True:
        epoch = store.connection.epoch
        make_again(settings, store, data_dir, undoing.users, progress, before_write=before_write)
        if store.connection.epoch == epoch:
            break
    data_dir.imports.remove(import_id)
    data_dir.imports.end_undo(import_id)
    relying = [record for record in data_dir.imports.records().values() if import_id in record.relies_on]
    return Undone(purchases, len(undoing.users), relying)


def _ensure_nothing_is_lost(settings: Settings, store: Store, data_dir: DataDir) -> None:
    topic = describe_topic(settings.kafka, settings.kafka.topic)
    reader = open_reader(settings.kafka, "undo")
    try:
        watermarks = end_offsets(reader, settings.kafka, topic)
    finally:
        reader.close()
    lost = list(purchases_lost(store, data_dir.archive.positions(), topic, watermarks))
    if lost:
        raise RebuildWouldLoseData(f"not everything could be brought back: {'; '.join(lost)}. Nothing was changed")


def make_again(
    settings: Settings,
    store: Store,
    data_dir: DataDir,
    users: Collection[str],
    progress: ProgressReporter,
    *,
    before_write: Callable[[], None],
) -> None:
    """Make users' histories again from the archive and from what the topic holds beyond it, then their lists."""
    users = sorted(user for user in users if store.users.can_hold(user))
    archive = data_dir.archive
    before_write()
    archive.erase_forgotten()  # a wish to be erased must not be carried out after what has come since
    segments = archive.segments()
    for start in range(0, len(users), _USERS_PER_CALL):
        before_write()
        store.users.reset(users[start : start + _USERS_PER_CALL])
    fail_points.reach("undo-erased")
    chosen = pa.array(users, pa.string())
    with progress.stage("apply the archive", len(segments)) as advance:
        for segment in in_order_of_application(segments):
            before_write()
            table = archive.read(segment)
            rows = events_of(table.filter(pc.is_in(table["user_id"], value_set=chosen)))
            complete = segment.source.startswith(IMPORT_PREFIX)
            for call in calls_by_user(f"{segment.source}:{segment.partition}", rows, complete=complete):
                store.users.apply_without_reading(call)
            advance(1)
    with progress.stage("apply what the topic holds beyond it") as advance:
        # Twice: a forget that is carried out now erases also what consumers have applied since it was sent.
        for _ in range(2):
            for source, beyond in _stream_rows(settings, archive.positions(segments), frozenset(users)):
                for call in calls_by_user(source, beyond, complete=False):
                    store.users.apply_without_reading(call)
                advance(len(beyond))
    pointer = store.pointer.read()
    if pointer is None:
        return  # the first model's full refresh makes the lists
    live = LoadedModel(pointer, load_model(pointer.uri, manifest_sha256=pointer.manifest_sha256))
    with progress.stage("refresh the lists", len(users)) as advance:
        for start in range(0, len(users), settings.trainer.refresh_batch):
            part = users[start : start + settings.trainer.refresh_batch]
            refresh_users(settings, store, live, part)
            advance(len(part))


def _stream_rows(
    settings: Settings, positions: dict[str, dict[int, int]], users: frozenset[str]
) -> Iterator[tuple[str, Sequence[tuple[int, Event]]]]:
    """Yield (source, rows) of users' events that are in the topic and not in the archive."""
    decoder = make_decoder(settings)
    topic = describe_topic(settings.kafka, settings.kafka.topic)
    reader = open_reader(settings.kafka, "undo")
    try:
        here = positions.get(topic.id, {})
        ranges = {
            partition: (max(here.get(partition, low), low), end)
            for partition, (low, end) in end_offsets(reader, settings.kafka, topic).items()
        }
        rows: dict[int, list[tuple[int, Event]]] = {}
        for message in read_range(reader, settings.kafka, topic, ranges):
            with suppress(MalformedEvent):
                for event in decoder.events(message):
                    if event.user_id in users:
                        rows.setdefault(message.partition() or 0, []).append((message.offset() or 0, event))
    finally:
        reader.close()
    for partition, found in rows.items():
        yield topic.source(partition), found
