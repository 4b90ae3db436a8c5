"""Records to look at before anything counts: those of a file, or of a topic without joining a group."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple, Protocol, Self

import orjson

from recsys.data.epoch import iso_time
from recsys.data.event import Event
from recsys.data.mapping import LeftOut
from recsys.errors import InputFileError, MalformedEvent
from recsys.kafka.clients import Message, open_reader
from recsys.kafka.decoder import ExplainingDecoder
from recsys.kafka.records import location, read_range, record_timestamp_ms, record_with
from recsys.kafka.topics import describe_topic, end_offsets
from recsys.settings import KafkaSettings
from recsys.settings.regular_files import open_regular

_LONGEST_LINE = 2**26 + 1
"""No record may be as long."""
_FIRST_LINES = 20
_WIDER = 8


class SeenRecord(NamedTuple):
    """A record, and what a consumer would make of it.

    Attributes
    ----------
    record : Message
    events : sequence of Event
        That would count.
    left_out : sequence of LeftOut
        What does not count, and why.
    malformed : str or None
        Why the record would be a dead letter.
    """

    record: Message
    events: Sequence[Event]
    left_out: Sequence[LeftOut]
    malformed: str | None


def seen(decoder: ExplainingDecoder, record: Message) -> SeenRecord:
    """Decode a record as a consumer does.

    Raises
    ------
    DecoderUnavailable
        As `EventDecoder.events`.
    """
    try:
        return SeenRecord(record, decoder.events(record), decoder.left_out, None)
    except MalformedEvent as error:
        return SeenRecord(record, error.events, decoder.left_out, error.reason)


class RecordSource(Protocol):
    """Where records are. Use it as a context manager.

    Attributes
    ----------
    name : str
        Of the topic or the file.
    total : int or None
        How many records there are at most, if that is known.
    """

    name: str
    total: int | None

    def __enter__(self) -> Self:
        """Begin to read."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End."""
        ...

    def all(self) -> Iterator[Message]:
        """Yield all records that were there at the beginning."""
        ...

    def newest(self, n: int) -> list[Message]:
        """Return the last ones, in their order."""
        ...

    def oldest(self, n: int) -> list[Message]:
        """Return the first ones, in their order."""
        ...

    def place(self, record: Message) -> str:
        """Name the place of a record in it."""
        ...


class FileRecords:
    """A file of JSON Lines: each line is the value of a record that is published now, without key and headers.

    Parameters
    ----------
    path : Path
        ``-`` is standard input.
    topic : str
        To which they would be published.
    now_ms : int

    Raises
    ------
    InputFileError
        When the file cannot be read, or is another kind of file: then none of its first lines is JSON.
    """

    total: int | None = None

    def __init__(self, path: Path, *, topic: str, now_ms: int) -> None:
        self._path = path
        self._topic = topic
        self._now_ms = now_ms
        self.name = "standard input" if str(path) == "-" else path.name

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End; the file is closed by then."""

    def all(self) -> Iterator[Message]:
        """Yield a record for each line that is not empty."""
        with self._opened() as file:
            lines = self._lines(file)
            first = list(islice(lines, _FIRST_LINES))
            if first and not any(_is_json(line) for _, line in first):
                raise InputFileError(
                    f"{self.name}: is no file of records: none of its first lines is JSON; each line must be one "
                    f"record's value, on a line of its own"
                )
            for number, line in first:
                yield self._record(number, line)
            for number, line in lines:
                yield self._record(number, line)

    def newest(self, n: int) -> list[Message]:
        """Return the last ones."""
        return list(deque(self.all(), maxlen=n))

    def oldest(self, n: int) -> list[Message]:
        """Return the first ones."""
        return list(islice(self.all(), n))

    def place(self, record: Message) -> str:
        """Name the line."""
        return f"line {record.offset():,}"

    @contextmanager
    def _opened(self) -> Iterator[BinaryIO]:
        if str(self._path) == "-":
            yield sys.stdin.buffer
            return
        try:
            file = open_regular(self._path)
        except OSError as error:
            raise InputFileError(f"{self._path}: {error.strerror or error}") from None
        with file:
            yield file

    def _lines(self, file: BinaryIO) -> Iterator[tuple[int, bytes]]:
        """Yield the lines that are not empty, with their numbers; of one that is too long the beginning."""
        number = 0
        try:
            while line := file.readline(_LONGEST_LINE):
                number += 1
                rest = line
                while len(rest) == _LONGEST_LINE and not rest.endswith(b"\n"):
                    rest = file.readline(_LONGEST_LINE)
                if line := line.strip():
                    yield number, line
        except OSError as error:
            raise InputFileError(f"{self._path}: {error.strerror or error}") from None

    def _record(self, number: int, line: bytes) -> Message:
        return record_with(line, topic=self._topic, offset=number, timestamp_ms=self._now_ms)


def _is_json(line: bytes) -> bool:
    try:
        orjson.loads(line)
    except ValueError:
        return False
    return True


class TopicRecords:
    """A topic, as far as it reaches when the reading begins; nothing is committed.

    Parameters
    ----------
    settings : KafkaSettings
        Its topic is read.

    Raises
    ------
    KafkaUnavailable, TopicMissing
        When there is no broker, no right, or no topic.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self.name = settings.topic
        self._topic = describe_topic(settings, settings.topic)
        self._reader = open_reader(settings, "events")
        self._there = end_offsets(self._reader, settings, self._topic)
        self.total: int | None = sum(end - first for first, end in self._there.values())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._reader.close()

    def all(self) -> Iterator[Message]:
        """Yield the records of all partitions."""
        return self._read(self._there)

    def newest(self, n: int) -> list[Message]:
        """Return those with the newest timestamps."""
        return self._some(n, from_end=True)[-n:]

    def oldest(self, n: int) -> list[Message]:
        """Return those with the oldest timestamps."""
        return self._some(n, from_end=False)[:n]

    def place(self, record: Message) -> str:
        """Name partition, offset and time."""
        sent_ms = record_timestamp_ms(record)
        return location(record) + ("" if sent_ms is None else f", {iso_time(sent_ms)}")

    def _some(self, n: int, *, from_end: bool) -> list[Message]:
        """Return at least so many records, if there are so many, from one end of each partition, in order of time.

        Not every offset holds a record, so it looks further as long as there are too few.
        """
        width = n
        while True:
            ranges = {
                partition: (max(first, end - width), end) if from_end else (first, min(end, first + width))
                for partition, (first, end) in self._there.items()
            }
            found = list(self._read(ranges))
            if len(found) >= n or ranges == self._there:
                return sorted(found, key=lambda record: (record_timestamp_ms(record) or 0, record.offset() or 0))
            width *= _WIDER

    def _read(self, ranges: dict[int, tuple[int, int]]) -> Iterator[Message]:
        return read_range(self._reader, self._settings, self._topic, ranges)
