"""Records of dead letters go back into the stream, as events of the contract's own form."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from hashlib import sha256
from types import TracebackType
from typing import Self

from recsys.data.event import Event, EventOfLine
from recsys.data.reserved import is_reserved
from recsys.errors import MalformedEvent, OffsetsLost, Reason, TopicMissing
from recsys.kafka.clients import Message, open_reader
from recsys.kafka.decoder import EventDecoder
from recsys.kafka.letters import UNKNOWN, FoundLetter
from recsys.kafka.producer import Publisher
from recsys.kafka.records import location, read_range
from recsys.kafka.topics import Topic, describe_topic, end_offsets
from recsys.operations.dead_letters import DeadLetterTopic, LetterFilter
from recsys.runtime import fail_points
from recsys.runtime.progress import ProgressReporter
from recsys.settings import KafkaSettings
from recsys.storage.handled_letters import Handled

_AT_ONCE = 1_000
"""Letters between two notes of how far it is."""


@dataclass(slots=True)
class Stays:
    """Letters that stay, of one kind.

    Attributes
    ----------
    letters : int
    example : str
        Of one of them, why, and where its record was.
    """

    letters: int
    example: str


@dataclass(slots=True)
class RedriveOutcome:
    """What became of the letters that were meant.

    Attributes
    ----------
    redriven : int
        Whose events were published, or would be.
    events : int
        These events.
    without_events : int
        Whose records hold no event that counts, as the mapping says; they are done with.
    stays : dict of str → Stays
        Those that are as they were, by what is wrong with the record now.
    """

    redriven: int = 0
    events: int = 0
    without_events: int = 0
    stays: dict[str, Stays] = field(default_factory=dict)

    @property
    def staying(self) -> int:
        """How many are as they were."""
        return sum(kind.letters for kind in self.stays.values())

    def note_staying(self, code: str, example: str) -> None:
        """Count a letter that stays."""
        if (kind := self.stays.get(code)) is not None:
            kind.letters += 1
        else:
            self.stays[code] = Stays(1, example)


class LetterReader:
    """Makes the events that a letter's record holds. Use it as a context manager.

    Parameters
    ----------
    settings : KafkaSettings
    decoder : EventDecoder
        Of a consumer, or with a mapping that mends.
    """

    def __init__(self, settings: KafkaSettings, decoder: EventDecoder) -> None:
        self._topic_name = settings.topic
        self._decoder = decoder
        self._source = _Source(settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._source.close()

    def events(self, letter: FoundLetter) -> Sequence[Event]:
        """Return the events of a record that do not count yet, each with an id: of whatever is redriven, one effect.

        Raises
        ------
        MalformedEvent
            When the record is still malformed, or is not there; the reason says what it lacks.
        DecoderUnavailable, KafkaUnavailable
            When that cannot be said for now.
        """
        record = letter.record
        if not record.topic():
            raise MalformedEvent("the letter does not say where its record was: no consumer has written it")
        if record.topic() != self._topic_name:
            raise MalformedEvent(
                f"its record is from topic {record.topic()}: redrive it with RECSYS_KAFKA__TOPIC={record.topic()}"
            )
        if letter.left_out:
            record = self._source.record(letter)
        events = self._decoder.events(record)
        if letter.lines:
            if not all(isinstance(event, EventOfLine) for event in events):
                raise MalformedEvent(
                    "its other lines count already, so what reads it must find lines as well", Reason.MAPPING
                )
            events = [event for event in events if isinstance(event, EventOfLine) and event.line in letter.lines]
        return [_with_id(event, letter) for event in events if not is_reserved(event.user_id)]


def _with_id(event: Event, letter: FoundLetter) -> Event:
    if event.event_id is not None:
        return event
    line = event.line if isinstance(event, EventOfLine) else None
    return event.model_copy(update={"event_id": letter.event_id(line)})


class _Source:
    """The topic that records came from: those that are too large for a letter are read there."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._opened: tuple[Topic, dict[int, tuple[int, int]]] | None = None
        self._reader = open_reader(settings, "redrive")

    def record(self, letter: FoundLetter) -> Message:
        """Return the whole record of a letter that was cut.

        Raises
        ------
        MalformedEvent
            When it is no longer there.
        """
        place = letter.record
        partition, offset = place.partition() or 0, place.offset() or 0
        try:
            topic, there = self._open()
        except TopicMissing:
            raise _gone(letter) from None
        first, end = there.get(partition, (0, 0))
        if not first <= offset < end or (letter.topic_id and letter.topic_id != topic.id):
            raise _gone(letter)
        try:
            for record in read_range(self._reader, self._settings, topic, {partition: (offset, offset + 1)}):
                if sha256(record.value() or b"").hexdigest() == letter.sha256:
                    return record
        except OffsetsLost:
            pass  # it has expired since
        raise _gone(letter)

    def close(self) -> None:
        """End."""
        self._reader.close()

    def _open(self) -> tuple[Topic, dict[int, tuple[int, int]]]:
        if self._opened is None:
            topic = describe_topic(self._settings, self._settings.topic)
            self._opened = topic, end_offsets(self._reader, self._settings, topic)
        return self._opened


def _gone(letter: FoundLetter) -> MalformedEvent:
    return MalformedEvent(
        f"the letter lacks {letter.left_out}, and {location(letter.record)} is no longer in the topic"
    )


def redrive_letters(
    topic: DeadLetterTopic,
    meant: LetterFilter,
    reader: LetterReader,
    progress: ProgressReporter,
    *,
    dry_run: bool,
    again: bool = False,
) -> RedriveOutcome:
    """Publish the events of the letters that are meant, and note that these letters are done with.

    An event is published at least once, and counts once: it has an id that follows from the first place of its record.
    After an interruption it goes on with what it had not noted.

    Parameters
    ----------
    topic : DeadLetterTopic
    meant : LetterFilter
    reader : LetterReader
    progress : ProgressReporter
    dry_run : bool
        Publish nothing, note nothing.
    again : bool
        Redrive those as well that are done with.

    Raises
    ------
    KafkaUnavailable, DecoderUnavailable, DataDirError
        When it cannot go on; all that is noted is published.
    """
    outcome = RedriveOutcome()
    done: list[FoundLetter] = []
    with ExitStack() as stack:
        publisher = None if dry_run else stack.enter_context(Publisher(topic.settings))

        def note() -> None:
            if publisher is None:
                return
            publisher.flush()
            fail_points.reach("redriven")
            for letter in done:
                topic.handled.add(Handled.REDRIVEN, letter.partition, letter.offset)
            done.clear()
            topic.keep()

        for letter in topic.letters(progress, since_ms=meant.since_ms):
            if not meant.takes(letter) or (topic.how(letter) is not None and not again):
                continue
            try:
                events = reader.events(letter)
            except MalformedEvent as error:
                outcome.note_staying(error.code or UNKNOWN, f"{location(letter.record)}: {error.reason}")
                continue
            outcome.redriven += bool(events)
            outcome.without_events += not events
            outcome.events += len(events)
            if publisher is not None:
                for event in events:
                    publisher.publish(event)
                done.append(letter)
                if len(done) == _AT_ONCE:
                    note()
        note()
    return outcome
