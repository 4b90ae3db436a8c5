"""Where records become events: one decoder, made from settings, for consumer, archiver and verification alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from recsys.data.event import Event, decode, ensure_fits_cluster
from recsys.errors import MalformedEvent
from recsys.kafka.clients import Message
from recsys.kafka.records import location, record_timestamp_ms
from recsys.settings import Settings


class EventDecoder(Protocol):
    """Turns a whole record (value, key, headers, timestamp, topic) into the events that it holds."""

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
    on_cluster : bool
        Refuse users whose keys a Redis Cluster could not keep together.
    """

    def __init__(self, *, on_cluster: bool) -> None:
        self._on_cluster = on_cluster

    def events(self, record: Message) -> Sequence[Event]:
        """Return the record's event."""
        try:
            event = decode(record.value(), record_timestamp_ms=record_timestamp_ms(record))
            if self._on_cluster:
                ensure_fits_cluster(event.user_id)
        except MalformedEvent as error:
            raise MalformedEvent(error.reason, error.raw, location(record)) from None
        return (event,)


def make_decoder(settings: Settings) -> EventDecoder:
    """Return the decoder that these settings ask for."""
    return JsonDecoder(on_cluster=settings.redis.cluster)
