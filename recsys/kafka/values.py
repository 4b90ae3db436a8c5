"""What is in a record's bytes, before anything is looked for in it."""

from __future__ import annotations

from typing import Any, Protocol

import orjson

from recsys.data import envelopes
from recsys.errors import MalformedEvent, Reason, SettingsError
from recsys.kafka.clients import Message
from recsys.settings import EventsSettings


class ValueReader(Protocol):
    """Turns the bytes of a record's value into objects, lists, text, numbers, true, false and None."""

    def read(self, record: Message, raw: bytes) -> Any:
        """Return what the value holds.

        Parameters
        ----------
        record : Message
        raw : bytes
            Its value, which is not empty.

        Raises
        ------
        MalformedEvent
            When it is not of this format.
        DecoderUnavailable
            When something that is needed to say so is away.
        """
        ...

    def text(self, record: Message, raw: bytes) -> str:
        """Return the value as people read it, whatever it is.

        Raises
        ------
        DecoderUnavailable
            As `read`.
        """
        ...


class JsonReader:
    """JSON, in UTF-8."""

    def read(self, record: Message, raw: bytes) -> Any:
        """Return what the value holds."""
        try:
            return orjson.loads(raw)
        except ValueError as error:
            hint = envelopes.of_bytes(raw)
            reason = f"not JSON: {error}" + (f"; {hint}" if hint else "")
            raise MalformedEvent(reason, Reason.NOT_JSON) from None

    def text(self, record: Message, raw: bytes) -> str:
        """Return the text that the value is."""
        return raw.decode(errors="replace")


JSON = JsonReader()


def value_reader(format_: str, message: str, settings: EventsSettings) -> ValueReader:
    """Return what reads values of a format.

    Raises
    ------
    SettingsError
        When something that the format needs is not set, or cannot be read.
    """
    if format_ == "json":
        return JSON
    from recsys.kafka.registry_values import RegistryReader  # of the extra registry, which most have no use for

    if not settings.registry_url:
        raise SettingsError(f"RECSYS_EVENTS__REGISTRY_URL: is required: the topic has records in the format {format_}")
    return RegistryReader(settings.model_copy(update={"format": format_, "protobuf_message": message}))
