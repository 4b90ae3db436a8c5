"""Protobuf messages as JSON has them: fields by the names of the .proto file, and integers as integers.

Protobuf's own JSON writes 64-bit integers as text, for JavaScript; ids and times are to stay what they are.
"""

from __future__ import annotations

import base64
import binascii
import importlib
import re
from collections.abc import Callable
from typing import Any
from uuid import UUID

from confluent_kafka.schema_registry import Schema, dual_schema_id_deserializer
from confluent_kafka.schema_registry.protobuf import ProtobufDeserializer
from confluent_kafka.schema_registry.serde import SchemaId
from confluent_kafka.serialization import SerializationContext
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto
from google.protobuf.message import DecodeError, Message

from recsys.data.plain_values import text_of_bytes
from recsys.errors import MalformedEvent, Reason, SettingsError
from recsys.kafka.registry import NO_SUBJECT, SchemaRegistry, one_line

Convert = Callable[[Any], Any]
Nested = dict[str, "Nested"]
"""The messages of a file, in their order, each with those that are declared in it."""
_AS_DESCRIPTOR = "serialized"
_VARIABLE = "RECSYS_EVENTS__PROTOBUF_MESSAGE"
_WRAPPERS = frozenset(
    f"google.protobuf.{name}Value"
    for name in ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String")
)
_OF_JSON = frozenset(f"google.protobuf.{name}" for name in ("Struct", "Value", "ListValue", "Any", "FieldMask"))
_OF_TIME = frozenset({"google.protobuf.Timestamp", "google.protobuf.Duration"})


class ProtobufValues:
    """Reads values of one compiled class of messages.

    Parameters
    ----------
    registry : SchemaRegistry
    message : str
        Module and class, as in ``shop_pb2:Purchase``.

    Raises
    ------
    SettingsError
        When there is no such class.
    """

    def __init__(self, registry: SchemaRegistry, message: str) -> None:
        kind = compiled_class(message)
        self._registry = registry
        self._name = kind.DESCRIPTOR.full_name
        # Without a client: it asks for schemas in a form that not all registries have, and reads by the class anyway.
        self._deserialize = ProtobufDeserializer(kind, conf={**NO_SUBJECT, "schema.id.deserializer": self._checked})
        self._to_plain = MessageShapes().of(kind.DESCRIPTOR)
        self._names: dict[tuple[int | None, UUID | None, tuple[int, ...]], str] = {}

    def __call__(self, raw: bytes, context: SerializationContext) -> Any:
        """Return what a value holds."""
        return self._to_plain(self._deserialize(raw, context))

    def _checked(self, raw: bytes, context: SerializationContext, schema_id: SchemaId) -> Any:
        """Read the head of the value; the rest must be a message of the class: others could be read as one as well."""
        rest = dual_schema_id_deserializer(raw, context, schema_id)
        place = (schema_id.id, schema_id.guid, tuple(schema_id.message_indexes or (0,)))
        if (name := self._names.get(place)) is None:
            schema = self._schema(schema_id)
            name = self._names[place] = message_name(schema.schema_str or "", place[2])
        if name != self._name:
            raise MalformedEvent(f"it is a message {name}, and {_VARIABLE} names {self._name}", Reason.SCHEMA)
        return rest

    def _schema(self, schema_id: SchemaId) -> Schema:
        if schema_id.id is not None:
            return self._registry.get_schema(schema_id.id, fmt=_AS_DESCRIPTOR)
        return self._registry.get_schema_by_guid(str(schema_id.guid), fmt=_AS_DESCRIPTOR)


def compiled_class(message: str) -> type[Message]:
    """Return a compiled class of messages, given its module and its name.

    Raises
    ------
    SettingsError
        When there is none.
    """
    module, _, name = message.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except Exception as error:  # a module of somebody else's can raise anything
        raise SettingsError(
            f"{_VARIABLE}: cannot load {message}: {one_line(error)}; the module that protoc made must be on PYTHONPATH"
        ) from None
    if not isinstance(found, type) or not issubclass(found, Message):
        raise SettingsError(f"{_VARIABLE}: {message} is no class of messages that protoc made")
    return found


class MessageShapes:
    """How messages become objects, worked out once for each kind of message."""

    def __init__(self) -> None:
        self._known: dict[str, Convert] = {}

    def of(self, descriptor: Descriptor) -> Convert:
        """Return a function from a message of this kind to what JSON has for it.

        Fields that are `optional`, in a `oneof` or messages are left out where they are not set; all others have their
        default value then, because Protobuf does not tell that from one that was set.
        """
        name = descriptor.full_name
        if name in _OF_TIME:
            return lambda message: message.ToJsonString()
        if name in _WRAPPERS:
            return lambda message: message.value
        if name == "google.protobuf.BytesValue":
            return lambda message: text_of_bytes(message.value)
        if name in _OF_JSON:
            return lambda message: json_format.MessageToDict(message, preserving_proto_field_name=True)
        if name not in self._known:
            fields: list[tuple[str, bool, Convert | None]] = []
            self._known[name] = lambda message: _object(message, fields)  # known before its fields: they may hold it
            fields += [(field.name, field.has_presence, self._of_field(field)) for field in descriptor.fields]
        return self._known[name]

    def _of_field(self, field: FieldDescriptor) -> Convert | None:
        """Return how a field becomes what JSON has; None if it is that already."""
        kind = field.message_type
        if kind is not None and kind.GetOptions().map_entry:
            convert = self._of_one(kind.fields_by_name["value"]) or _itself
            return lambda values: {_text_of_key(key): convert(values[key]) for key in values}
        convert_one = self._of_one(field)
        if field.is_repeated:
            convert = convert_one or _itself
            return lambda values: [convert(value) for value in values]
        return convert_one

    def _of_one(self, field: FieldDescriptor) -> Convert | None:
        if field.message_type is not None:
            return self.of(field.message_type)
        if field.enum_type is not None:
            names = {number: value.name for number, value in field.enum_type.values_by_number.items()}
            return lambda number: names.get(number, number)
        return text_of_bytes if field.type == FieldDescriptor.TYPE_BYTES else None


def _object(message: Message, fields: list[tuple[str, bool, Convert | None]]) -> dict[str, Any]:
    found = {}
    for name, has_presence, convert in fields:
        if not has_presence or message.HasField(name):
            value = getattr(message, name)
            found[name] = value if convert is None else convert(value)
    return found


def _itself(value: Any) -> Any:
    return value


def _text_of_key(key: Any) -> str:
    return str(key).lower() if isinstance(key, bool) else str(key)


def message_name(schema: str, place: tuple[int, ...]) -> str:
    """Return the full name of a message, given its place in the file of a schema: (2, 0) is the first in the third.

    Parameters
    ----------
    schema : str
        A file descriptor in base64, as Confluent's registry gives it; or the text of a .proto file, as Apicurio does if
        that was registered.
    place : tuple of int

    Raises
    ------
    ValueError
        When there is no message in this place.
    """
    package, messages = _described(schema)
    names = [package] if package else []
    for index in place:
        if not 0 <= index < len(messages):
            raise ValueError(f"its head names message {place}, which the schema does not have")
        name = list(messages)[index]
        names.append(name)
        messages = messages[name]
    return ".".join(names)


def _described(schema: str) -> tuple[str, Nested]:
    try:
        file = FileDescriptorProto.FromString(base64.b64decode(schema, validate=True))
        return file.package, _nested(file.message_type)
    except (binascii.Error, DecodeError):
        return _declared(schema)


def _nested(messages: Any) -> Nested:
    found: list[DescriptorProto] = list(messages)
    return {message.name: _nested(message.nested_type) for message in found}


_WORD = re.compile(r"""//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|[\w.]+|[^\s]""", re.DOTALL)
_COMMENT_OR_TEXT = ("//", "/*", '"', "'")


def _declared(text: str) -> tuple[str, Nested]:
    """Return the package of a .proto file, and its messages."""
    words = (word for word in _WORD.findall(text) if not word.startswith(_COMMENT_OR_TEXT))
    package = ""
    messages: Nested = {}
    open_blocks = [messages]
    before: tuple[str, str] = ("", "")
    for word in words:
        if word == "{":
            is_message = before[0] == "message"
            open_blocks.append(open_blocks[-1].setdefault(before[1], {}) if is_message else {})
        elif word == "}":
            open_blocks.pop()
        elif before[1] == "package" and len(open_blocks) == 1:
            package = word
        before = (before[1], word)
    return package, messages
