"""The schemas that are published in docs/schemas, and producers that use them as a shop's would."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.schema_registry.json_schema import JSONSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from google.protobuf import descriptor_pool, json_format, message_factory, timestamp_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.message import Message

from recsys.data.event import Event
from tests.services import PROJECT

SCHEMAS = PROJECT / "docs" / "schemas"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Write = Callable[[Mapping[str, Any]], bytes]
_BY_TOPIC = {"subject.name.strategy.type": "TOPIC"}


def compiled(proto: Path, folder: Path, name: str) -> str:
    """Compile a .proto file to a module of this name in a folder; return the name."""
    copy = folder / f"{name}.proto"
    copy.write_text(proto.read_text(encoding="utf-8"), encoding="utf-8")
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{folder}", f"--python_out={folder}", str(copy)]
    subprocess.run(command, check=True, capture_output=True)
    return f"{name}_pb2"


def imported(proto: Path, folder: Path, name: str) -> Any:
    """Compile a .proto file to a module of this name, and import it."""
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module(compiled(proto, folder, name))
    finally:
        sys.path.remove(str(folder))


def moment(timestamp_ms: int) -> datetime:
    """Return a time, to the millisecond."""
    return EPOCH + timedelta(milliseconds=timestamp_ms)


def fields_of(event: Event) -> dict[str, Any]:
    """Return an event as a producer names it, without what is not set."""
    return event.model_dump(mode="json", exclude_none=True)


def avro_writer(client: SchemaRegistryClient, topic: str, schema: Mapping[str, Any]) -> Write:
    """Return what turns fields into a value of a topic."""
    serializer = AvroSerializer(client, json.dumps(schema), conf=_BY_TOPIC)
    return _of_topic(serializer, topic)


def json_writer(client: SchemaRegistryClient, topic: str, schema: Mapping[str, Any]) -> Write:
    """Return what turns fields into a value of a topic."""
    return _of_topic(JSONSerializer(json.dumps(schema), client, conf=_BY_TOPIC), topic)


def protobuf_writer(client: SchemaRegistryClient, topic: str, message: str) -> Write:
    """Return what turns fields, as the JSON of Protobuf has them, into a value of a topic."""
    module, _, name = message.partition(":")
    return protobuf_class_writer(client, topic, getattr(importlib.import_module(module), name))


def protobuf_class_writer(client: SchemaRegistryClient, topic: str, kind: type[Message]) -> Write:
    """Return what turns fields, as the JSON of Protobuf has them, into a value of a topic."""
    write = _of_topic(ProtobufSerializer(kind, client, conf={**_BY_TOPIC, "use.deprecated.format": False}), topic)
    return lambda fields: write(json_format.ParseDict(dict(fields), kind()))


def _of_topic(serializer: Callable[..., Any], topic: str) -> Callable[[Any], bytes]:
    context = SerializationContext(topic, MessageField.VALUE)

    def write(value: Any) -> bytes:
        written: bytes = serializer(value, context)
        return written

    return write


def published(name: str) -> dict[str, Any]:
    """Return a published schema that is JSON."""
    found: dict[str, Any] = json.loads((SCHEMAS / name).read_text(encoding="utf-8"))
    return found


def purchase_writer(format_: str, client: SchemaRegistryClient, topic: str, message: str) -> Write:
    """Return what writes the contract's fields with a published schema; ``message`` is its class of Protobuf.

    Times are integers of milliseconds, and become what the schema has for times.
    """
    if format_ == "avro":
        avro = avro_writer(client, topic, published("purchase.avsc"))
        return lambda fields: avro({name: _time(name, value) for name, value in fields.items()})
    if format_ == "json-schema":
        return json_writer(client, topic, published("purchase.schema.json"))
    protobuf = protobuf_writer(client, topic, message)
    return lambda fields: protobuf({name: _time_text(name, value) for name, value in fields.items()})


def _time(name: str, value: Any) -> Any:
    return moment(value) if name == "timestamp" else value


def _time_text(name: str, value: Any) -> Any:
    return moment(value).isoformat() if name == "timestamp" else value


def message_class(proto: Path, name: str) -> type[Message]:
    """Compile a .proto file to a class that stands beside one of the same name, as that of another program."""
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(timestamp_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(compiled_descriptor(proto))
    found: type[Message] = message_factory.GetMessageClass(pool.FindMessageTypeByName(name))
    return found


def compiled_descriptor(proto: Path) -> FileDescriptorProto:
    """Compile a .proto file to what describes it."""
    with tempfile.TemporaryDirectory() as folder:
        described = Path(folder, "described")
        command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{proto.parent}", f"--descriptor_set_out={described}"]
        subprocess.run([*command, str(proto)], check=True, capture_output=True)
        (file,) = FileDescriptorSet.FromString(described.read_bytes()).file
        return file
