"""Users who are set aside are made again from the archive, and from what the topic holds beyond it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from recsys.data.event import Event
from recsys.errors import RebuildWouldLoseData
from recsys.kafka.clients import open_reader
from recsys.kafka.decoder import counting_events
from recsys.kafka.records import read_range
from recsys.kafka.shared_reading import SharedReading
from recsys.kafka.topics import describe_topic, end_offsets
from recsys.lists.live_model import LoadedModel
from recsys.lists.refresh_all import refresh_users
from recsys.logger import logger
from recsys.operations.losses import all_losses
from recsys.redis import PlacedEvent, Store, calls_by_user
from recsys.redis.aside import Adoption
from recsys.runtime import fail_points
from recsys.runtime.progress import ProgressReporter
from recsys.settings import Settings
from recsys.storage.data_dir import DataDir
from recsys.storage.segments import IMPORT_PREFIX, Segment, events_of, in_order_of_application

log = logger(__name__)
_MOST_ROUNDS = 3  # for those who were set aside meanwhile, or whose new keys Redis has lost
_MOST_TRIES = 20  # the stream is read on for those who buy meanwhile
Calls = Iterator[dict[str, list[PlacedEvent]]]


def make_again(
    settings: Settings,
    store: Store,
    data_dir: DataDir,
    progress: ProgressReporter,
    *,
    before_write: Callable[[], None],
    accept_loss: bool = False,
) -> int:
    """Make all users again who are set aside, while holding the trainer's lock; return how many. Consumers may run.

    Their events are applied, from the first one on, to keys of their own. These take the place of what was left of the
    user unless consumers have passed over events meanwhile: then the stream is read on. So nobody ever sees half a
    history, and what is interrupted leaves users set aside, to be made again.

    Raises
    ------
    RebuildWouldLoseData
        Unless ``accept_loss``, when neither the archive nor Kafka can bring back what Redis has held.
    KafkaUnavailable
        When Kafka is away.
    """
    made = 0
    for _ in range(_MOST_ROUNDS):
        if not (users := store.aside.users()):
            break
        if not accept_loss and (lost := all_losses(settings, store, data_dir)):
            raise RebuildWouldLoseData(f"not everything could be brought back: {'; '.join(lost)}. Nothing was changed")
        made += len(_make_again(settings, store, data_dir, users, progress, before_write=before_write))
    return made


def _make_again(
    settings: Settings,
    store: Store,
    data_dir: DataDir,
    users: list[str],
    progress: ProgressReporter,
    *,
    before_write: Callable[[], None],
) -> list[str]:
    """Make these users again; return those of whom it is done."""
    archive = data_dir.archive
    before_write()
    archive.erase_forgotten()  # a wish to be erased must not be carried out after what has come since
    segments = archive.segments()
    store.users.set_aside(users)  # they are, but Redis may have lost the mark of some since
    store.aside.begin(users)
    made: list[str] = []
    with progress.stage("make users again", len(segments)) as advance:
        for segment in in_order_of_application(segments):
            before_write()
            for call in calls_of_segment(data_dir, segment, users):
                store.aside.apply(call)
            advance(1)
        fail_points.reach("made-again")
        with StreamBeyond(settings, store, archive.positions(segments)) as stream:
            pending = users
            for _ in range(_MOST_TRIES):
                before_write()
                pending = _adopt(store, stream, pending, made)
                if not pending:
                    break
    fail_points.reach("adopted")
    _refresh(settings, store, data_dir, made, progress)
    store.aside.leave(made)  # of the others Redis has lost the mark, or what was made: they are made again once more
    log.info("users_made_again", "{users} users were made again from the archive and the topic", users=len(made))
    return made


def calls_of_segment(data_dir: DataDir, segment: Segment, users: Collection[str]) -> Calls:
    """Yield the events of users in a segment, for `UserStore.apply`."""
    table = data_dir.archive.read(segment)
    rows = events_of(table.filter(pc.is_in(table["user_id"], value_set=pa.array(users, pa.string()))))
    complete = segment.source.startswith(IMPORT_PREFIX)
    return calls_by_user(f"{segment.source}:{segment.partition}", rows, complete=complete)


def _adopt(store: Store, stream: StreamBeyond, users: Sequence[str], made: list[str]) -> list[str]:
    """Let what was made take its place, once the stream has been read to its end; return for whom to try again."""
    # Seen before the end of the stream is: what is passed over later changes it, what was passed over earlier is read.
    seen = store.aside.states(users)
    for call in stream.calls(frozenset(users).__contains__):
        store.aside.apply(call)
    outcomes = store.aside.adopt(seen)
    done = [user for user, outcome in outcomes.items() if outcome is Adoption.DONE]
    made += done
    return [user for user, outcome in outcomes.items() if outcome is Adoption.MOVED]


def _refresh(
    settings: Settings, store: Store, data_dir: DataDir, users: Sequence[str], progress: ProgressReporter
) -> None:
    pointer = store.pointer.read_unless_damaged()
    if pointer is None or not users:
        return  # the first model's full refresh makes the lists
    live = LoadedModel(pointer, data_dir.models.load(pointer.version, manifest_sha256=pointer.manifest_sha256))
    with progress.stage("refresh their lists", len(users)) as advance:
        for start in range(0, len(users), settings.trainer.refresh_batch):
            part = users[start : start + settings.trainer.refresh_batch]
            refresh_users(settings, store, live, part)
            advance(len(part))


class StreamBeyond:
    """What the topic holds beyond the archive, read bit by bit; use it as a context manager."""

    def __init__(self, settings: Settings, store: Store, positions: dict[str, dict[int, int]]) -> None:
        self._settings = settings.kafka
        self._reading = SharedReading(settings, store.readings, store.applied_offsets.read)
        self._topic = describe_topic(settings.kafka, settings.kafka.topic)
        self._next = dict(positions.get(self._topic.id, {}))

    def __enter__(self) -> StreamBeyond:
        self._reader = open_reader(self._settings, "make-again")
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()

    def calls(self, wanted: Callable[[str], bool]) -> Calls:
        """Yield the events of wanted users that have come since the last call, for `UserStore.apply`."""
        ranges = {
            partition: (max(self._next.get(partition, low), low), end)
            for partition, (low, end) in end_offsets(self._reader, self._settings, self._topic).items()
        }
        self._reading.claim(self._topic, {partition: end for partition, (_, end) in ranges.items()})
        rows: dict[int, list[tuple[int, Event]]] = {}
        for message in read_range(self._reader, self._settings, self._topic, ranges):
            for event in counting_events(self._reading.decoder, message):
                if wanted(event.user_id):
                    rows.setdefault(message.partition() or 0, []).append((message.offset() or 0, event))
        self._next = {partition: end for partition, (_, end) in ranges.items()}
        for partition, found in rows.items():
            yield from calls_by_user(self._topic.source(partition), found, complete=False)
