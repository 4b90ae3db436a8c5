"""Values in Confluent's wire format: a schema id, and what its schema of a registry says how to read."""

from __future__ import annotations

import json
from collections.abc import Callable
from io import BytesIO
from typing import Any

import orjson
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.schema_registry.json_schema import JSONDeserializer
from confluent_kafka.schema_registry.serde import SchemaId
from confluent_kafka.serialization import MessageField, SerializationContext
from fastavro import schemaless_reader

from recsys.data import envelopes
from recsys.data.plain_values import plain
from recsys.errors import DecoderUnavailable, MalformedEvent, Reason, SettingsError
from recsys.kafka.clients import Message
from recsys.kafka.protobuf_values import ProtobufValues
from recsys.kafka.registry import NO_SUBJECT, SchemaRegistry, one_line
from recsys.settings import EventsSettings

Values = Callable[[bytes, SerializationContext], Any]


def _of_value(headers: Any) -> SerializationContext:
    return SerializationContext("", MessageField.VALUE, headers)  # the topic names subjects, of which there are none


_WITHOUT_HEADERS = _of_value(None)
_HEAD_BYTES = 5
"""A zero and the id of a schema."""


class AvroReader(AvroDeserializer):
    """Confluent's deserializer, which leaves out what that does for each record and only rules of schemas need.

    That would double its time. It takes the same steps else: the head of the value, its schema, fastavro; and it also
    refuses values that go on behind what their schema describes.

    Parameters
    ----------
    registry : SchemaRegistry
    """

    def __init__(self, registry: SchemaRegistry) -> None:
        super().__init__(registry, conf=NO_SUBJECT)
        self._by_head: dict[bytes, Any] = {}
        """Schema by the head of a value that names it: nearly all values of a topic have the same."""

    def __call__(self, data: bytes | None, ctx: SerializationContext | None = None) -> Any:
        """Return what a value holds."""
        raw, has_headers = data or b"", ctx is not None and bool(ctx.headers)  # a schema may be named in those instead
        schema = None if has_headers else self._by_head.get(raw[:_HEAD_BYTES])
        if schema is None:
            schema_id = SchemaId("AVRO")
            rest = self._schema_id_deserializer(raw, ctx, schema_id)
            schema = self._get_parsed_schema(self._get_writer_schema(schema_id))
            if schema_id.id is not None and not has_headers:
                self._by_head[raw[:_HEAD_BYTES]] = schema
        else:
            rest = BytesIO(raw)
            rest.seek(_HEAD_BYTES)
        value = schemaless_reader(rest, schema, None)
        if rest.read(1):
            raise ValueError("there are more bytes than it describes")
        return value


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
        context = _of_value(headers) if headers else _WITHOUT_HEADERS
        try:
            return self._values(raw, context)
        except MalformedEvent:
            raise
        except DecoderUnavailable:
            self._renew_login()
            raise
        except Exception as error:  # whatever the libraries say of bytes that they cannot read
            hint = envelopes.without_magic_byte(raw)
            reason = f"does not fit its schema: {one_line(error)}" + (f"; {hint}" if hint else "")
            raise MalformedEvent(reason, Reason.SCHEMA) from None

    def text(self, record: Message, raw: bytes) -> str:
        """Return what the value holds as JSON, or its bytes in hexadecimal digits if it cannot be read."""
        try:
            return json.dumps(self.read(record, raw), ensure_ascii=False)
        except MalformedEvent:
            return raw.hex(" ")

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
        avro = AvroReader(SchemaRegistry(settings, "AVRO"))
        return lambda raw, context: plain(avro(raw, context))
    if settings.format == "json-schema":
        registry = SchemaRegistry(settings, "JSON")
        checked: Values = JSONDeserializer(
            None, schema_registry_client=registry, conf=NO_SUBJECT, json_decode=orjson.loads
        )
        return checked
    return ProtobufValues(SchemaRegistry(settings, "PROTOBUF"), settings.protobuf_message)
