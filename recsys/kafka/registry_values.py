"""Values in Confluent's wire format: a schema id, and what its schema of a registry says how to read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.schema_registry.json_schema import JSONDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

from recsys.data.plain_values import plain
from recsys.errors import DecoderUnavailable, MalformedEvent, SettingsError
from recsys.kafka.clients import Message
from recsys.kafka.protobuf_values import ProtobufValues
from recsys.kafka.registry import NO_SUBJECT, SchemaRegistry, one_line
from recsys.settings import EventsSettings

Values = Callable[[bytes, SerializationContext], Any]


class RegistryReader:
    """Avro, Protobuf and JSON with schemas of a registry.

    Parameters
    ----------
    settings : EventsSettings

    Raises
    ------
    SettingsError
        When a file for TLS, or the class of Protobuf messages, cannot be used.
    """

    def __init__(self, settings: EventsSettings) -> None:
        self._settings = settings
        self._values = _values(settings)

    def read(self, record: Message, raw: bytes) -> Any:
        """Return what the value holds."""
        headers: Any = record.headers()
        try:
            return self._values(raw, SerializationContext(record.topic() or "", MessageField.VALUE, headers))
        except MalformedEvent:
            raise
        except DecoderUnavailable:
            self._renew_login()
            raise
        except Exception as error:  # whatever the libraries say of bytes that they cannot read
            raise MalformedEvent(f"does not fit its schema: {one_line(error)}") from None

    def _renew_login(self) -> None:
        """Use the password that its file holds now, from the next try on."""
        renewed = self._settings.reread()
        if renewed != self._settings:
            try:
                self._values = _values(renewed)
            except SettingsError as error:
                raise DecoderUnavailable(str(error)) from None
            self._settings = renewed


def _values(settings: EventsSettings) -> Values:
    if settings.format == "avro":
        avro = AvroDeserializer(SchemaRegistry(settings, "AVRO"), conf=NO_SUBJECT)
        return lambda raw, context: plain(avro(raw, context))
    if settings.format == "json-schema":
        registry = SchemaRegistry(settings, "JSON")
        checked: Values = JSONDeserializer(
            None, schema_registry_client=registry, conf=NO_SUBJECT, json_decode=orjson.loads
        )
        return checked
    return ProtobufValues(SchemaRegistry(settings, "PROTOBUF"), settings.protobuf_message)
