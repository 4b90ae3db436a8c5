"""Where records become events: one decoder, made from settings, for consumer, archiver and verification alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from recsys.data.epoch import EpochUnit
from recsys.data.event import Event, EventReading, EventType, decode, ensure_fits_cluster
from recsys.errors import MalformedEvent
from recsys.kafka.clients import Message
from recsys.kafka.records import location, record_timestamp_ms
from recsys.settings import EventsSettings, Settings


@dataclass(slots=True)
class PassedOver:
    """What a decoder has left out so far, of records that are not malformed.

    Attributes
    ----------
    no_user : int
        Events of a user who is none.
    prices : int
        Prices that could not be read.
    """

    no_user: int = 0
    prices: int = 0


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


class JsonDecoder:
    """The contract's own format: the value is one JSON object, and one event.

    Parameters
    ----------
    reading : EventReading
    on_cluster : bool
        Refuse users whose keys a Redis Cluster could not keep together.
    """

    def __init__(self, reading: EventReading, *, on_cluster: bool) -> None:
        self._reading = reading
        self._on_cluster = on_cluster
        self.passed_over = PassedOver()

    def events(self, record: Message) -> Sequence[Event]:
        """Return the record's event; none if its user is none."""
        try:
            event = decode(
                record.value(),
                record_timestamp_ms=record_timestamp_ms(record),
                reading=self._reading,
                on_unread_price=self._note_price,
            )
            if self._on_cluster:
                ensure_fits_cluster(event.user_id)
        except MalformedEvent as error:
            raise MalformedEvent(error.reason, error.raw, location(record)) from None
        if self._reading.is_no_user(event.user_id) and event.type is not EventType.FORGET:
            self.passed_over.no_user += 1
            return ()
        return (event,)

    def _note_price(self) -> None:
        self.passed_over.prices += 1


def event_reading(settings: EventsSettings) -> EventReading:
    """Return how these settings ask to read events."""
    oldest = datetime(settings.oldest.year, settings.oldest.month, settings.oldest.day, tzinfo=UTC)
    return EventReading(
        unit=None if settings.timestamp_unit == "auto" else EpochUnit(settings.timestamp_unit),
        oldest_ms=round(oldest.timestamp() * 1000),
        no_user=frozenset(word.lower() for word in settings.no_user),
        max_return=settings.max_return,
    )


def make_decoder(settings: Settings) -> EventDecoder:
    """Return the decoder that these settings ask for."""
    return JsonDecoder(event_reading(settings.events), on_cluster=settings.redis.cluster)
