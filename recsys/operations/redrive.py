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
from recsys.errors import CannotRedrive, MalformedEvent, OffsetsLost, TopicMissing
from recsys.kafka.clients import Message, open_reader
from recsys.kafka.decoder import make_decoder
from recsys.kafka.letters import FoundLetter
from recsys.kafka.producer import Publisher
from recsys.kafka.readings import reading_of
from recsys.kafka.records import read_range
from recsys.kafka.topics import Topic, describe_topic, end_offsets
from recsys.operations.dead_letters import DeadLetterTopic, LetterFilter
from recsys.runtime import fail_points
from recsys.runtime.progress import ProgressReporter
from recsys.settings import KafkaSettings, Settings
from recsys.storage.handled_letters import Handled, Mark

_LETTERS_AT_ONCE, _EVENTS_AT_ONCE = 1_000, 10_000
"""Between two notes of how far it is."""


@dataclass(slots=True)
class Stays:
    """Letters of one code that stay.

    Attributes
    ----------
    letters : int
    example : str
        Which is the first of them, and why it stays.
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
        Whose records hold no event that counts, as the mapping says.
    done_before : int
        That were redriven or purged before.
    stays : dict of str → Stays
        Those that are as they were, by code, the first ones first.
    """

    redriven: int = 0
    events: int = 0
    without_events: int = 0
    done_before: int = 0
    stays: dict[str, Stays] = field(default_factory=dict)

    @property
    def staying(self) -> int:
        """How many are as they were."""
        return sum(kind.letters for kind in self.stays.values())

    def note_staying(self, letter: FoundLetter, why: str) -> None:
        """Count a letter that stays."""
        if (kind := self.stays.get(letter.code)) is not None:
            kind.letters += 1
        else:
            self.stays[letter.code] = Stays(1, f"{letter.place or 'a record of unknown place'}: {why}")


class LetterReader:
    """Makes the events that a letter's record holds. Use it as a context manager.

    Parameters
    ----------
    settings : Settings
        Those of the services, or with a mapping that mends.

    Attributes
    ----------
    reading : str
        How records are read: `Reading.fingerprint`.

    Raises
    ------
    SettingsError
        When the mapping, or something that the format needs, cannot be read.
    """

    def __init__(self, settings: Settings) -> None:
        self._topic_name = settings.kafka.topic
        self._decoder = make_decoder(settings)
        self.reading = reading_of(settings.events).fingerprint
        self._source = _Source(settings.kafka)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._source.close()

    def events(self, letter: FoundLetter) -> Sequence[Event]:
        """Return the events of a record that do not count yet, each with an id, so that each counts once.

        Raises
        ------
        CannotRedrive
            When the record is still malformed, or is not there.
        DecoderUnavailable, KafkaUnavailable
            When that cannot be said for now.
        """
        record = letter.record
        if not record.topic():
            raise CannotRedrive("the letter does not say where its record was: no consumer has written it")
        if record.topic() != self._topic_name:
            raise CannotRedrive(
                f"its record is from topic {record.topic()}: redrive it with RECSYS_KAFKA__TOPIC={record.topic()}"
            )
        if letter.lines and letter.lines_of != self._decoder.lines_of:
            raise CannotRedrive(
                "its other lines count already: a mapping that mends it must have the same lines and orders as the one "
                "that has read it, so that lines keep their numbers"
            )
        if letter.left_out:
            record = self._source.record(letter)
        try:
            events = self._decoder.events(record)
        except MalformedEvent as error:
            raise CannotRedrive(error.reason) from None
        if letter.lines:
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
        CannotRedrive
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


def _gone(letter: FoundLetter) -> CannotRedrive:
    return CannotRedrive(
        f"the letter holds a part of its record only, and the record is no longer in the topic (missing: "
        f"{letter.left_out})"
    )


class _Publishing:
    """Publishes the events of many letters at a time, and notes before that it begins, and then that it is done.

    An interruption in between leaves letters of which nobody knows whether their events arrived. They are redriven in
    the same way again: the same ids make each event count once.
    """

    def __init__(self, topic: DeadLetterTopic, publisher: Publisher, reading: str) -> None:
        self._topic = topic
        self._publisher = publisher
        self._reading = reading
        self._letters: list[FoundLetter] = []
        self._events: list[Event] = []

    def add(self, letter: FoundLetter, events: Sequence[Event]) -> None:
        """Publish these events, now or with those of other letters."""
        self._letters.append(letter)
        self._events.extend(events)
        if len(self._letters) >= _LETTERS_AT_ONCE or len(self._events) >= _EVENTS_AT_ONCE:
            self.publish()

    def publish(self) -> None:
        """Publish what is held."""
        if not self._letters:
            return
        self._note(Handled.BEGUN)
        for event in self._events:
            self._publisher.publish(event)
        self._publisher.flush()
        fail_points.reach("redriven")
        self._note(Handled.REDRIVEN)
        self._letters.clear()
        self._events.clear()

    def _note(self, how: Handled) -> None:
        for letter in self._letters:
            self._topic.handled.add(Mark(how, self._reading), letter.partition, letter.offset)
        self._topic.keep()


def redrive_letters(
    topic: DeadLetterTopic,
    meant: LetterFilter,
    reader: LetterReader,
    progress: ProgressReporter,
    *,
    dry_run: bool,
    again: bool = False,
) -> RedriveOutcome:
    """Publish the events of the letters that are meant.

    An event is published at least once, and counts once: it has an id that follows from its record. That holds as long
    as the record is read in the same way, so a letter that was redriven in another way stays.

    Parameters
    ----------
    topic : DeadLetterTopic
    meant : LetterFilter
    reader : LetterReader
    progress : ProgressReporter
    dry_run : bool
        Publish nothing, note nothing.
    again : bool
        Redrive those as well that were redriven or purged.

    Raises
    ------
    KafkaUnavailable, DecoderUnavailable, DataDirError
        When it cannot go on; run it again. The last one also when another process is at it.
    """
    outcome = RedriveOutcome()
    with ExitStack() as stack:
        publishing = None
        if not dry_run:
            stack.enter_context(topic.handled.exclusively())
            publishing = _Publishing(topic, stack.enter_context(Publisher(topic.settings)), reader.reading)
        for letter in topic.letters(progress, since_ms=meant.since_ms):
            if not meant.takes(letter):
                continue
            if topic.is_done(letter) and not again:
                outcome.done_before += 1
                continue
            try:
                _ensure_read_as_before(topic, letter, reader.reading)
                events = reader.events(letter)
            except CannotRedrive as error:
                outcome.note_staying(letter, str(error))
                continue
            outcome.redriven += bool(events)
            outcome.without_events += not events
            outcome.events += len(events)
            if publishing is not None:
                publishing.add(letter, events)
        if publishing is not None:
            publishing.publish()
    return outcome


def _ensure_read_as_before(topic: DeadLetterTopic, letter: FoundLetter, reading: str) -> None:
    """Refuse a letter whose record was read in another way before: its events would have other ids, and count twice."""
    if topic.handled.readings(letter.partition, letter.offset) - {reading}:
        raise CannotRedrive(
            "it was redriven with another mapping or other settings, or that was begun; use those again. What was "
            "wrong with them is corrected by returns and purchases"
        )
