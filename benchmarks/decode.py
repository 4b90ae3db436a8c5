"""What it costs to make events of records: µs of one core an event."""

from __future__ import annotations

import io
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from confluent_kafka import TIMESTAMP_CREATE_TIME, Message
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext
from fastavro import parse_schema, schemaless_writer

from benchmarks.results import Measured
from recsys.data.event import EventReading
from recsys.data.plain_values import plain
from recsys.kafka.decoder import ContractDecoder, EventDecoder, JsonDecoder, MappedDecoder, make_decoder
from recsys.kafka.readings import load_mapping
from recsys.kafka.registry import NO_SUBJECT, SchemaRegistry
from recsys.settings import EventsSettings, Settings
from tests.registries import AnsweringServer
from tests.schemas import SCHEMAS, imported, published

_NOW_MS = 1_795_000_000_000
_AT = datetime(2026, 11, 8, 10, 11, 12, tzinfo=UTC)
_RECORDS, _ROUNDS = 2_000, 15
_MOST_US = {"the contract's own": 7.0, "a line of an order of 10": 15.0, "Avro": 15.0, "Protobuf": 15.0}


def _record(value: dict[str, Any], offset: int) -> Message:
    return _raw_record(json.dumps(value).encode(), offset)


def _raw_record(value: bytes, offset: int) -> Message:
    timestamp = (TIMESTAMP_CREATE_TIME, _NOW_MS)
    return Message(topic="purchases", partition=0, offset=offset, value=value, timestamp=timestamp)


def _purchase(number: int) -> dict[str, Any]:
    return {
        "event_id": f"order-{number}:sku-9", "type": "purchase", "user_id": str(number % 900), "item_id": "sku-9",
        "quantity": 1, "price": 3.5, "timestamp": "2026-11-08T10:11:12Z",
    }  # fmt: skip


def _order(number: int, lines: int) -> dict[str, Any]:
    """Return an order as Shopify sends it, with the fields that matter here."""
    return {
        "id": 820_982_911_946_154_000 + number,
        "financial_status": "paid",
        "created_at": "2026-11-08T10:11:12-05:00",
        "processed_at": "2026-11-08T10:11:12-05:00",
        "customer": {"id": 115_310_627_314_723_000 + number % 900, "email": "john@example.com"},
        "line_items": [
            {"id": number * 100 + line, "variant_id": 808_950_810 + line, "quantity": 1, "price": "199.00"}
            for line in range(lines)
        ],
    }  # fmt: skip


class _AvroAsTheLibraryReadsIt:
    """What `recsys.kafka.registry_values.AvroReader` is measured against."""

    def __init__(self, url: str) -> None:
        settings = EventsSettings.model_validate({"format": "avro", "registry_url": url})
        self._read = AvroDeserializer(SchemaRegistry(settings, "AVRO"), conf=NO_SUBJECT)
        self._context = SerializationContext("", MessageField.VALUE)

    def read(self, record: Message, raw: bytes) -> Any:
        return plain(self._read(raw, self._context))

    def text(self, record: Message, raw: bytes) -> str:
        return json.dumps(self.read(record, raw))


def _with_schemas() -> dict[str, tuple[EventDecoder, Sequence[Message], int]]:
    """Return formats with schemas; each decoder has fetched its schema, and asks no more."""
    head = b"\x00\x00\x00\x00\x07"
    purchases = [{**_purchase(number), "timestamp": _AT} for number in range(_RECORDS)]
    schema = parse_schema(published("purchase.avsc"))
    avro = [_raw_record(head + _avro(schema, fields), number) for number, fields in enumerate(purchases)]
    with AnsweringServer(200) as server, tempfile.TemporaryDirectory() as folder:
        kind = imported(SCHEMAS / "purchase.proto", Path(folder), "bench_purchase").Purchase
        values = [b"\x00" + kind(**fields).SerializeToString() for fields in purchases]
        protobuf = [_raw_record(head + value, number) for number, value in enumerate(values)]
        server.answer_schema(published("purchase.avsc"))
        by_the_library = ContractDecoder(EventReading(), _AvroAsTheLibraryReadsIt(server.url), on_cluster=False)
        found: dict[str, tuple[EventDecoder, Sequence[Message], int]] = {
            "Avro": (_decoder(server, "avro"), avro, 1),
            "Avro, by the library alone": (by_the_library, avro, 1),
        }
        for decoder, records, _ in found.values():
            decoder.events(records[0])
        server.answer_proto((SCHEMAS / "purchase.proto").read_text(encoding="utf-8"))
        found["Protobuf"] = (_decoder(server, "protobuf", "bench_purchase_pb2:Purchase"), protobuf, 1)
        found["Protobuf"][0].events(protobuf[0])
        server.answer_json_schema(published("purchase.schema.json"))
        checked = [_raw_record(head + json.dumps(_purchase(n)).encode(), n) for n in range(_RECORDS // 10)]
        found["JSON, checked against its schema"] = (_decoder(server, "json-schema"), checked, 1)
        found["JSON, checked against its schema"][0].events(checked[0])
    return found


def _avro(schema: Any, fields: dict[str, Any]) -> bytes:
    written = io.BytesIO()
    schemaless_writer(written, schema, fields)
    return written.getvalue()


def _decoder(server: AnsweringServer, format_: str, message: str = "") -> EventDecoder:
    events = {"format": format_, "registry_url": server.url, "protobuf_message": message}
    return make_decoder(Settings.model_validate({"events": events}))


def cases() -> dict[str, tuple[EventDecoder, Sequence[Message], int]]:
    """Return by name a decoder, records, and how many events each record holds."""
    shopify = load_mapping("shopify-orders-paid")
    return {
        "the contract's own": (
            JsonDecoder(EventReading(), on_cluster=False),
            [_record(_purchase(number), number) for number in range(_RECORDS)],
            1,
        ),
        "a line of an order of 10": (
            MappedDecoder(shopify, EventReading()),
            [_record(_order(number, 10), number) for number in range(_RECORDS // 10)],
            10,
        ),
        **_with_schemas(),
    }


def measure(*, quick: bool = False) -> list[Measured]:
    """Measure each case in turns."""
    found = cases()
    took: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(3 if quick else _ROUNDS):
        for name, (decoder, records, each) in found.items():
            started = time.process_time()
            for record in records:
                if len(decoder.events(record)) != each:
                    raise RuntimeError(f"{name}: a record has not {each} events")
            took[name].append((time.process_time() - started) / (len(records) * each) * 1e6)
    return [
        Measured("decode", name, "CPU time an event", statistics.median(times), "µs", at_most=_MOST_US.get(name))
        for name, times in took.items()
    ]
