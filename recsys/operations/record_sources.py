"""Records to look at before anything counts: the rows of files, or those of a topic without joining a group."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from types import TracebackType
from typing import NamedTuple, Protocol, Self

from recsys.data.epoch import iso_time
from recsys.data.event import Event
from recsys.data.expressions import EVERY_NAME
from recsys.data.mapping import LeftOut
from recsys.errors import InputFileError, MalformedEvent
from recsys.files.batches import ReadRow
from recsys.files.event_file import CheckUser, EventFile, any_user
from recsys.files.remedies import TOPIC, Remedies
from recsys.files.row import Row
from recsys.kafka.clients import Message, open_reader
from recsys.kafka.decoder import ExplainingDecoder
from recsys.kafka.records import location, read_range, record_timestamp_ms
from recsys.kafka.topics import describe_topic, end_offsets
from recsys.operations.event_summary import EventSummary
from recsys.runtime.progress import ProgressReporter
from recsys.settings import KafkaSettings

_WIDER = 8
_LARGE_STEP = 1_000
_MOST_HELD_BYTES = 1 << 28
"""Of records to be shown."""
_EVENT_BYTES = 1 << 10
"""About what an event takes."""


class SeenRecord(NamedTuple):
    """A record, and what it would become.

    Attributes
    ----------
    place : str
        Where it is.
    key : str or None
    value : bytes or None
        As JSON, of whatever format it is; None is a tombstone.
    events : sequence of Event
        That would count.
    left_out : sequence of LeftOut
        What does not count, and why.
    malformed : str or None
        Why the record would be a dead letter, or the row be rejected.
    """

    place: str
    key: str | None
    value: bytes | None
    events: Sequence[Event]
    left_out: Sequence[LeftOut]
    malformed: str | None


class RecordSource(Protocol):
    """Where records are. Use it as a context manager.

    Attributes
    ----------
    name : str
        Of the topic or the files.
    remedies : Remedies
        What to do about what looks wrong with the events.
    most_ids : int or None
        Ids of a user by which who applies these events recognizes copies; None: all.
    names : frozenset of str
        The names that are looked up in a record, wherever in it; `EVERY_NAME` among them if others are as well.
    """

    name: str
    remedies: Remedies
    most_ids: int | None
    names: frozenset[str]

    def __enter__(self) -> Self:
        """Begin to read."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End."""
        ...

    def check(self, summary: EventSummary, progress: ProgressReporter) -> None:
        """Take all records that were there at the beginning into a summary."""
        ...

    def newest(self, n: int) -> list[SeenRecord]:
        """Return the last ones, in their order.

        Raises
        ------
        InputFileError
            When they take too much memory.
        """
        ...

    def oldest(self, n: int) -> list[SeenRecord]:
        """Return the first ones, in their order; raises as `newest`."""
        ...


class FileRecords:
    """Files of purchases or orders, read as an import reads them: their rows are the records.

    Parameters
    ----------
    file : EventFile
    check_user : callable
        As `EventFile.batches` takes it.
    """

    def __init__(self, file: EventFile, check_user: CheckUser = any_user) -> None:
        self._file = file
        self._check_user = check_user
        self.name = file.name
        self.remedies = file.remedies
        self.names = file.names_used
        self.most_ids: int | None = None  # an import finds those of all purchases in the archive

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End; the files are closed by then."""

    def check(self, summary: EventSummary, progress: ProgressReporter) -> None:
        """Take all rows into a summary."""
        with progress.stage(f"check {self.name}", self._file.rows, unit="rows") as advance:
            for batch in self._file.batches(self._check_user):
                summary.note_batch(batch)
                advance(batch.rows)

    def newest(self, n: int) -> list[SeenRecord]:
        """Return the last ones."""
        return self._seen(islice(self._file.table_rows(), max(0, self._file.rows - n), None))

    def oldest(self, n: int) -> list[SeenRecord]:
        """Return the first ones."""
        return self._seen(islice(self._file.table_rows(), n))

    def _seen(self, rows: Iterable[Row]) -> list[SeenRecord]:
        return _held((self._seen_row(self._file.read(row, 1, self._check_user)) for row in rows), self.name)

    def _seen_row(self, read: ReadRow) -> SeenRecord:
        place, events = read.row.place, [event for _, event in read.events]
        left_out = [LeftOut(line, why) for line, why in read.left_out]
        malformed = None if read.reject is None else read.reject.reason
        return SeenRecord(place, None, self._file.shown(read.row), events, left_out, malformed)


class TopicRecords:
    """A topic, as far as it reaches when the reading begins; nothing is committed.

    Parameters
    ----------
    settings : KafkaSettings
        Its topic is read.
    decoder : ExplainingDecoder
        Of a consumer. What it raises where it lacks something, is raised here.
    remedies : Remedies
    most_ids : int or None
    names : frozenset of str

    Raises
    ------
    KafkaUnavailable, TopicMissing
        When there is no broker, no right, or no topic.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        decoder: ExplainingDecoder,
        remedies: Remedies = TOPIC,
        most_ids: int | None = None,
        names: frozenset[str] = frozenset({EVERY_NAME}),
    ) -> None:
        self._settings = settings
        self._decoder = decoder
        self.name = settings.topic
        self.remedies = remedies
        self.most_ids = most_ids
        self.names = names
        self._topic = describe_topic(settings, settings.topic)
        self._reader = open_reader(settings, "events")
        self._there = end_offsets(self._reader, settings, self._topic)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._reader.close()

    def check(self, summary: EventSummary, progress: ProgressReporter) -> None:
        """Take the records of all partitions into a summary."""
        total = sum(end - first for first, end in self._there.values())
        before = self._decoder.passed_over.prices
        with progress.stage(f"check {self.name}", total, unit="records") as advance:
            for record in self._read(self._there):
                events, left_out, malformed = self._decoded(record)
                summary.note_record(events, left_out, malformed, place=_place(record))
                if summary.records % _LARGE_STEP == 0:
                    advance(_LARGE_STEP)
            advance(summary.records % _LARGE_STEP)
        summary.unread_prices += self._decoder.passed_over.prices - before

    def newest(self, n: int) -> list[SeenRecord]:
        """Return those with the newest timestamps."""
        return _held(map(self._seen, self._some(n, from_end=True)), self.name)

    def oldest(self, n: int) -> list[SeenRecord]:
        """Return those with the oldest timestamps."""
        return _held(map(self._seen, self._some(n, from_end=False)), self.name)

    def _decoded(self, record: Message) -> tuple[Sequence[Event], Sequence[LeftOut], str | None]:
        """Decode a record as a consumer does."""
        try:
            return self._decoder.events(record), self._decoder.left_out, None
        except MalformedEvent as error:
            return error.events, self._decoder.left_out, error.reason

    def _seen(self, record: Message) -> SeenRecord:
        key: bytes | str | None = record.key()
        text = key.decode(errors="replace") if isinstance(key, bytes) else key
        value = self._decoder.text(record)
        shown = None if value is None else value.encode(errors="replace")
        return SeenRecord(_place(record), text, shown, *self._decoded(record))

    def _some(self, n: int, *, from_end: bool) -> list[Message]:
        """Return so many records, if there are so many, from one end of the topic, in order of time.

        Not every offset holds a record, so it looks further as long as there are too few.
        """
        width = n
        while True:
            ranges = {
                partition: (max(first, end - width), end) if from_end else (first, min(end, first + width))
                for partition, (first, end) in self._there.items()
            }
            found = self._outermost(n, ranges, newest=from_end)
            if len(found) == n or ranges == self._there:
                return found
            width *= _WIDER

    def _outermost(self, n: int, ranges: dict[int, tuple[int, int]], *, newest: bool) -> list[Message]:
        """Return the newest records, or the oldest, in order of time; no others are held meanwhile."""
        sign = 1 if newest else -1
        heap: list[tuple[int, int, int, Message]] = []
        held = 0
        for number, record in enumerate(self._read(ranges)):
            moment, offset = record_timestamp_ms(record) or 0, record.offset() or 0
            heapq.heappush(heap, (sign * moment, sign * offset, number, record))
            held += _size(record)
            if len(heap) > n:
                held -= _size(heapq.heappop(heap)[-1])
            if held > _MOST_HELD_BYTES:
                raise _too_large(self.name)
        return [record for *_, record in sorted(heap, reverse=not newest)]

    def _read(self, ranges: dict[int, tuple[int, int]]) -> Iterator[Message]:
        return read_range(self._reader, self._settings, self._topic, ranges)


def _held(records: Iterable[SeenRecord], name: str) -> list[SeenRecord]:
    """Return records, unless they take too much memory."""
    held, size = [], 0
    for record in records:
        size += len(record.value or b"") + _EVENT_BYTES * len(record.events)
        if size > _MOST_HELD_BYTES:
            raise _too_large(name)
        held.append(record)
    return held


def _too_large(name: str) -> InputFileError:
    return InputFileError(
        f"{name}: the records take more than {_MOST_HELD_BYTES >> 20} MiB of memory; show fewer with -n"
    )


def _size(record: Message) -> int:
    return len(record.value() or b"")


def _place(record: Message) -> str:
    """Name partition, offset and time."""
    sent_ms = record_timestamp_ms(record)
    return location(record) + ("" if sent_ms is None else f", {iso_time(sent_ms)}")
