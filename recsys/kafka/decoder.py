"""Where records become events: one decoder, made from settings, for consumer, archiver and verification alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from recsys.data import cloud_events
from recsys.data.epoch import EpochUnit
from recsys.data.event import (
    MAX_RECORD_BYTES,
    Event,
    EventReading,
    EventType,
    decode,
    ensure_fits_cluster,
    event_of_value,
    too_large,
)
from recsys.data.mapped_events import mapped_record, reading_with
from recsys.data.mapping import NO_USER, NO_USER_OF_RETURN, OF_NOBODY, EventMapping, LeftOut
from recsys.data.reading_history import Reading
from recsys.data.reserved import is_reserved
from recsys.errors import MalformedEvent, Reason
from recsys.kafka.clients import Message
from recsys.kafka.producer import is_own
from recsys.kafka.readings import reading_of
from recsys.kafka.records import location, record_timestamp_ms
from recsys.kafka.values import JSON, ValueReader, value_reader
from recsys.settings import Settings

MAX_MAPPED_BYTES = 2**20
"""Of a record with a mapping, unless a setting says otherwise: an order of a thousand lines."""


@dataclass(slots=True)
class PassedOver:
    """What a decoder has left out so far, of records that are not malformed.

    Attributes
    ----------
    no_user : int
        Events of a user who is none.
    prices : int
        Prices that could not be read.
    records : int
        Records that do not count, as the mapping says.
    lines : int
        Lines of records that count, left out by other rules of the mapping.
    """

    no_user: int = 0
    prices: int = 0
    records: int = 0
    lines: int = 0

    def since(self, before: PassedOver) -> PassedOver:
        """Return what has been left out since."""
        return PassedOver(
            self.no_user - before.no_user,
            self.prices - before.prices,
            self.records - before.records,
            self.lines - before.lines,
        )


class EventDecoder(Protocol):
    """Turns a whole record (value, key, headers, timestamp, topic) into the events that it holds."""

    passed_over: PassedOver

    def events(self, record: Message) -> Sequence[Event]:
        """Return none, one or many events.

        The same record gives the same events whenever it is decoded: what a decoder says follows from the record and
        the settings alone.

        Raises
        ------
        MalformedEvent
            When the record breaks a rule, with the one reason and the record's place.
        DecoderUnavailable
            When something that the decoder needs is away: the record may be decoded later.
        """
        ...


class ExplainingDecoder(EventDecoder, Protocol):
    """Says as well what it has left out, for people who look at records."""

    left_out: Sequence[LeftOut]
    """What does not count of the record that was decoded last, and why."""
    lines_of: str
    """What finds and numbers the lines of a record, as `EventMapping.lines_of`; empty where nothing does."""

    def text(self, record: Message) -> str | None:
        """Return the record's value as people read it, malformed or not; None if it has none.

        Raises
        ------
        DecoderUnavailable
            As `EventDecoder.events`.
        """
        ...


def counting_events(decoder: EventDecoder, record: Message) -> Sequence[Event]:
    """Return the events of a record that count; of a malformed one none, or those of its good lines.

    Those of reserved users count nowhere but in Redis, where they expire.

    Raises
    ------
    DecoderUnavailable
        As `EventDecoder.events`.
    """
    try:
        events = decoder.events(record)
    except MalformedEvent as error:
        events = error.events
    if any(is_reserved(event.user_id) for event in events):
        return [event for event in events if not is_reserved(event.user_id)]
    return events


class JsonDecoder:
    """The contract's own format: the value is one JSON object, and one event.

    Parameters
    ----------
    reading : EventReading
    on_cluster : bool
        Refuse users whose keys a Redis Cluster could not keep together.
    max_bytes : int
        A longer value is malformed.
    """

    def __init__(self, reading: EventReading, *, on_cluster: bool, max_bytes: int = MAX_RECORD_BYTES) -> None:
        self._reading = reading
        self._on_cluster = on_cluster
        self._max_bytes = max_bytes
        self.passed_over = PassedOver()
        self.left_out: Sequence[LeftOut] = ()
        self.lines_of = ""

    def events(self, record: Message) -> Sequence[Event]:
        """Return the record's event; none if its user is none."""
        self.left_out = ()
        try:
            event = self._event(record)
            if self._on_cluster:
                ensure_fits_cluster(event.user_id)
        except MalformedEvent as error:
            raise error.at(location(record), error.raw) from None
        if self._reading.is_no_user(event.user_id) and event.type is not EventType.FORGET:
            self.passed_over.no_user += 1
            self.left_out = (LeftOut(None, NO_USER_OF_RETURN if event.type is EventType.RETURN else NO_USER),)
            return ()
        return (event,)

    def text(self, record: Message) -> str | None:
        """Return the record's value as people read it."""
        return _text_of(record, JSON)

    def _event(self, record: Message) -> Event:
        return decode(
            record.value(),
            record_timestamp_ms=record_timestamp_ms(record),
            reading=self._reading,
            on_unread_price=self._note_price,
            max_bytes=self._max_bytes,
        )

    def _note_price(self) -> None:
        self.passed_over.prices += 1


class ContractDecoder(JsonDecoder):
    """The contract's own fields in another format: the value is one object, and one event.

    Events that our own programs have written are JSON here as well.

    Parameters
    ----------
    reading, on_cluster, max_bytes
        As those of `JsonDecoder`.
    values : ValueReader
        The format.
    """

    def __init__(
        self, reading: EventReading, values: ValueReader, *, on_cluster: bool, max_bytes: int = MAX_RECORD_BYTES
    ) -> None:
        super().__init__(reading, on_cluster=on_cluster, max_bytes=max_bytes)
        self._values = values

    def text(self, record: Message) -> str | None:
        """Return the record's value as people read it."""
        return _text_of(record, self._values)

    def _event(self, record: Message) -> Event:
        if is_own(record):
            return super()._event(record)
        raw = record.value() or b""
        try:
            if not raw:
                raise MalformedEvent("the record is empty", Reason.EMPTY)
            _ensure_not_longer(raw, self._max_bytes)
            value = self._values.read(record, raw)
            sent_ms = record_timestamp_ms(record)
            return event_of_value(value, sent_ms=sent_ms, reading=self._reading, on_unread_price=self._note_price)
        except MalformedEvent as error:
            raise error.at("", raw) from None


class MappedDecoder:
    """A shop's own form: a mapping finds events in the value.

    In the same topic are events that the HTTP API and ``recsys publish`` have written: their header says that they are
    of the contract's form, wishes to be forgotten among them.

    Parameters
    ----------
    mapping : EventMapping
    reading : EventReading
    values : ValueReader
        The format of values.
    on_cluster : bool
        Refuse users whose keys a Redis Cluster could not keep together.
    max_bytes : int
        A longer value is malformed.
    is_wrapped : bool
        Whether records are CloudEvents, and the mapping looks at their data.
    """

    def __init__(
        self,
        mapping: EventMapping,
        reading: EventReading,
        values: ValueReader = JSON,
        *,
        on_cluster: bool = False,
        max_bytes: int = MAX_MAPPED_BYTES,
        is_wrapped: bool = False,
    ) -> None:
        self._mapping = mapping
        self._contract = JsonDecoder(reading, on_cluster=on_cluster)
        self._reading = reading
        self._values = values
        self._on_cluster = on_cluster
        self._max_bytes = max_bytes
        self._needs_key = "key" in mapping.roots
        self._needs_headers = is_wrapped or "headers" in mapping.roots
        self._is_wrapped = is_wrapped
        self.passed_over = PassedOver()
        self.left_out: Sequence[LeftOut] = ()
        self.lines_of = mapping.lines_of

    def events(self, record: Message) -> Sequence[Event]:
        """Return the events in the record's lines; of what our own programs have written, its event."""
        if is_own(record):
            self._contract.passed_over = self.passed_over
            events = self._contract.events(record)
            self.left_out = self._contract.left_out
            return events
        self.left_out = ()
        raw = record.value() or b""
        try:
            scope = self._scope(record, raw)
        except MalformedEvent as error:
            raise error.at(location(record), raw) from None
        found = mapped_record(
            self._mapping,
            scope,
            reading=self._reading,
            on_cluster=self._on_cluster,
            on_unread_price=self._note_price,
        )
        self.left_out = found.left_out
        for left_out in found.left_out:
            self._note_left_out(left_out.number, left_out.why)
        if found.problems:
            raise found.malformed(self._mapping).at(location(record), raw)
        return found.events

    def text(self, record: Message) -> str | None:
        """Return the record's value as people read it."""
        return _text_of(record, self._values)

    def _scope(self, record: Message, raw: bytes) -> dict[str, Any]:
        if not raw and self._mapping.file.where is None:
            raise MalformedEvent("the record is empty", Reason.EMPTY)
        _ensure_not_longer(raw, self._max_bytes)
        value = self._values.read(record, raw) if raw else None
        headers = _headers(record) if self._needs_headers else {}
        attributes = None
        if self._is_wrapped and raw:
            try:
                value, attributes = cloud_events.unwrap(value, headers)
            except ValueError as error:
                raise MalformedEvent(str(error), Reason.OTHER_FORM) from None
        return {
            "value": value,
            "key": _text(record.key()) if self._needs_key else None,
            "headers": headers,
            "timestamp": record_timestamp_ms(record),
            "topic": record.topic(),
            "cloudevent": attributes,
        }

    def _note_price(self) -> None:
        self.passed_over.prices += 1

    def _note_left_out(self, line: int | None, why: str) -> None:
        if why in OF_NOBODY:
            self.passed_over.no_user += 1
        elif line is None:
            self.passed_over.records += 1
        else:
            self.passed_over.lines += 1


def _ensure_not_longer(raw: bytes, max_bytes: int) -> None:
    if len(raw) > max_bytes:
        raise too_large(raw, max_bytes)


def _text_of(record: Message, values: ValueReader) -> str | None:
    raw = record.value()
    if raw is None:
        return None
    return (JSON if is_own(record) else values).text(record, raw)


def _text(value: bytes | str | None) -> str | None:
    """Return what bytes say in UTF-8, None if they do not."""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return None
    return value


def _headers(record: Message) -> dict[str, str | None]:
    """Return the headers that are text, by name; of several with one name the last one."""
    headers: Any = record.headers() or ()
    return {name: _text(value) for name, value in headers}


def decoder_of(reading: Reading, settings: Settings) -> ExplainingDecoder:
    """Return the decoder that reads records so.

    Parameters
    ----------
    reading : Reading
    settings : Settings
        Say how the registry of schemas is reached, and whether keys of users must fit a Redis Cluster.

    Raises
    ------
    SettingsError
        When something that the format needs is not set, or cannot be read.
    """
    described: Any = reading.description
    unit = described["unit"]
    events = EventReading(
        unit=EpochUnit(unit) if unit else None,
        oldest_ms=described["oldest_ms"],
        no_user=frozenset(described["no_user"]),
        max_return=described["max_return"],
    )
    on_cluster = settings.redis.cluster
    values = value_reader(described.get("format", "json"), described.get("message", ""), settings.events)
    if described["mapping"] is None:
        max_bytes = described["max_bytes"] or MAX_RECORD_BYTES
        if values is JSON:
            return JsonDecoder(events, on_cluster=on_cluster, max_bytes=max_bytes)
        return ContractDecoder(events, values, on_cluster=on_cluster, max_bytes=max_bytes)
    mapping = EventMapping.of(described["mapping"])
    return MappedDecoder(
        mapping,
        reading_with(mapping, events),
        values,
        on_cluster=on_cluster,
        max_bytes=described["max_bytes"] or MAX_MAPPED_BYTES,
        is_wrapped=described["envelope"] == "cloudevents",
    )


def make_decoder(settings: Settings) -> ExplainingDecoder:
    """Return the decoder that these settings ask for.

    Raises
    ------
    SettingsError
        When the mapping, or something that the format needs, cannot be read.
    """
    return decoder_of(reading_of(settings.events), settings)
