"""Values in Avro, Protobuf and JSON with schemas of a real registry: they mean what the same JSON means."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import TIMESTAMP_CREATE_TIME, Message
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from recsys.data.epoch import OLDEST_MS
from recsys.data.event import Event, EventType
from recsys.errors import DecoderUnavailable, MalformedEvent, SettingsError
from recsys.kafka import registry
from recsys.kafka.decoder import EventDecoder, make_decoder
from recsys.settings import Settings
from tests.builders import NOON_MS, events, make_event
from tests.registries import client_of
from tests.schemas import (
    SCHEMAS,
    avro_writer,
    compiled,
    fields_of,
    json_writer,
    message_class,
    protobuf_class_writer,
    protobuf_writer,
    purchase_writer,
)

FORMATS = ("avro", "protobuf", "json-schema")
NAME = "of_formats"
PURCHASE = f"{NAME}_pb2:Purchase"
SHOP = "shop_of_formats"
ORDER = f"{SHOP}_pb2:Order"
ORDER_PROTO = """
syntax = "proto3";
package shop;
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";
import "google/protobuf/struct.proto";

message PageView { string customer = 1; }
message Order {
  enum Status { OPEN = 0; PAID = 1; }
  message Line {
    int64 sku = 1;
    uint32 quantity = 2;
    google.protobuf.DoubleValue price = 3;
    bytes code = 4;
  }
  google.protobuf.Int64Value customer = 1;
  uint64 id = 2;
  Status status = 3;
  google.protobuf.Timestamp at = 4;
  repeated Line lines = 5;
  map<int32, Line> gifts = 6;
  oneof paid_by { string card = 7; bool cash = 8; }
  google.protobuf.Struct extra = 9;
  repeated Status before = 10;
  Order instead_of = 11;
}
"""
ORDER_AVRO = {
    "type": "record",
    "name": "Order",
    "namespace": "shop",
    "fields": [
        {"name": "customer", "type": ["null", "string", "long"]},
        {"name": "id", "type": {"type": "string", "logicalType": "uuid"}},
        {"name": "status", "type": {"type": "enum", "name": "Status", "symbols": ["OPEN", "PAID"]}},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {
            "name": "lines",
            "type": {
                "type": "array",
                "items": {
                    "type": "record",
                    "name": "Line",
                    "fields": [
                        {"name": "sku", "type": {"type": "bytes", "logicalType": "decimal", "precision": 20}},
                        {"name": "quantity", "type": "int"},
                        {
                            "name": "price",
                            "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2},
                        },
                    ],
                },
            },
        },
    ],
}
JSON_SCHEMA = {"$schema": "http://json-schema.org/draft-07/schema#", "type": "object"}
ORDER_JSON = {**JSON_SCHEMA, "title": "Order", "required": ["customer", "lines"]}
MAPPING = """
where = "value.status == 'PAID'"
lines = "value.lines"
[fields]
user_id = "value.customer"
item_id = "line.sku"
quantity = "line.quantity"
price = "line.price"
timestamp = "value.at"
event_id = ["value.id", "number"]
"""
AT = "2026-11-22T12:00:00Z"
LINES = [{"sku": 11, "quantity": 2, "price": 12.5}, {"sku": 2**60, "quantity": 1, "price": 0.25}]


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry that is there answers in the end, however busy the machine is."""
    monkeypatch.setattr(registry, "_WAITS_S", 240.0)


@pytest.fixture(scope="module")
def client(registry_url: str) -> SchemaRegistryClient:
    """A producer's client."""
    return client_of(registry_url)


@pytest.fixture(scope="module", autouse=True)
def _compiled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The published messages and those of a shop, compiled, on the path."""
    folder = tmp_path_factory.mktemp("compiled")
    (folder / "order.proto").write_text(ORDER_PROTO)
    compiled(SCHEMAS / "purchase.proto", folder, NAME)
    compiled(folder / "order.proto", folder, SHOP)
    sys.path.insert(0, str(folder))
    yield
    sys.path.remove(str(folder))


@pytest.fixture
def topic() -> str:
    """A topic that no other test registers schemas for."""
    return f"t-{uuid.uuid4().hex[:8]}"


def settings(url: str, format_: str, **given: Any) -> Settings:
    message = {"protobuf_message": PURCHASE} if format_ == "protobuf" else {}
    return Settings.model_validate({"events": {"format": format_, "registry_url": url, **message, **given}})


def record(topic: str, raw: bytes, headers: Any = None) -> Message:
    timestamp = (TIMESTAMP_CREATE_TIME, NOON_MS)
    return Message(topic=topic, partition=0, offset=5, value=raw, timestamp=timestamp, headers=headers)


def _bounded(event: Event, timestamp_ms: int) -> Event:
    """Return an event in no future, as an integer in one unit only, that takes back no more than one return may."""
    quantity = min(event.quantity, 1_000) if event.type is EventType.RETURN else event.quantity
    return event.model_copy(update={"timestamp": timestamp_ms, "quantity": quantity})


@pytest.mark.parametrize("format_", FORMATS)
def test_events_of_the_published_schemas_come_back_as_they_are(
    client: SchemaRegistryClient, registry_url: str, topic: str, format_: str
) -> None:
    write = purchase_writer(format_, client, topic, PURCHASE)
    decoder = make_decoder(settings(registry_url, format_))

    @given(st.builds(_bounded, events(), st.integers(OLDEST_MS, NOON_MS)))
    @hypothesis_settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    def come_back(event: Event) -> None:
        assert decoder.events(record(topic, write(fields_of(event)))) == (event,)

    come_back()


@pytest.mark.parametrize("format_", FORMATS)
def test_what_is_not_set_has_the_defaults_of_the_contract(
    client: SchemaRegistryClient, registry_url: str, topic: str, format_: str
) -> None:
    fields = {"user_id": "u", "item_id": "a"}
    if format_ == "avro":
        schema = {"type": "record", "name": "P", "fields": [{"name": name, "type": "string"} for name in fields]}
        raw = avro_writer(client, topic, schema)(fields)
    elif format_ == "protobuf":
        raw = protobuf_writer(client, topic, PURCHASE)(fields)
    else:
        raw = json_writer(client, topic, {**JSON_SCHEMA, "title": "P"})(fields)
    assert make_decoder(settings(registry_url, format_)).events(record(topic, raw)) == (make_event(),)


@pytest.mark.parametrize("format_", FORMATS)
def test_what_breaks_the_contract_is_malformed_in_any_format(
    client: SchemaRegistryClient, registry_url: str, topic: str, format_: str
) -> None:
    write = purchase_writer(format_, client, topic, PURCHASE)
    decoder = make_decoder(settings(registry_url, format_, no_user=["guest"]))
    if format_ != "json-schema":  # whose schema says it already
        raw = write({"user_id": "", "item_id": "a"})
        with pytest.raises(MalformedEvent) as raised:
            decoder.events(record(topic, raw))
        assert (raised.value.reason, raised.value.raw) == ("user_id: must not be empty", raw)
        assert raised.value.location == f"{topic}[0] 5"
    with pytest.raises(MalformedEvent, match="timestamp: "):
        decoder.events(record(topic, write(fields_of(make_event(timestamp=NOON_MS * 2)))))
    assert decoder.events(record(topic, write(fields_of(make_event("Guest"))))) == ()
    assert decoder.passed_over.no_user == 1
    for empty in (b"", None):
        with pytest.raises(MalformedEvent, match="the record is empty"):
            decoder.events(record(topic, empty))  # type: ignore[arg-type]


def event_or_malformed(decoder: EventDecoder, message: Message) -> Event | MalformedEvent:
    """Decode; any other error fails the test."""
    try:
        (event,) = decoder.events(message)
    except MalformedEvent as error:
        return error
    return event


@pytest.mark.parametrize("format_", FORMATS)
def test_bytes_that_were_changed_are_events_or_malformed_and_nothing_else(
    client: SchemaRegistryClient, registry_url: str, topic: str, format_: str
) -> None:
    event = make_event("user-17", "item-4", 2.5, event_id="e", price=3.5)
    raw = purchase_writer(format_, client, topic, PURCHASE)(fields_of(event))
    decoder = make_decoder(settings(registry_url, format_))

    @given(st.integers(0, len(raw)), st.binary(max_size=6), st.integers(0, 6))
    @hypothesis_settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
    def decoded(at: int, other: bytes, left_out: int) -> None:
        changed = raw[:at] + other + raw[at + left_out :]
        found = event_or_malformed(decoder, record(topic, changed))
        assert isinstance(found, Event) or (found.raw == changed and "\n" not in found.reason)

    decoded()


def order_writer(format_: str, client: SchemaRegistryClient, topic: str) -> Callable[[Mapping[str, Any]], bytes]:
    """Return what writes an order, given its customer, id, status and lines."""
    if format_ == "avro":
        avro = avro_writer(client, topic, ORDER_AVRO)

        def write(order: Mapping[str, Any]) -> bytes:
            lines = [
                {**line, "sku": Decimal(line["sku"]), "price": Decimal(str(line["price"]))} for line in order["lines"]
            ]
            return avro({**order, "at": datetime(2026, 11, 22, 12, tzinfo=UTC), "lines": lines})

        return write
    if format_ == "protobuf":
        return protobuf_writer(client, topic, ORDER)
    return json_writer(client, topic, ORDER_JSON)


@pytest.mark.parametrize("format_", FORMATS)
def test_a_mapping_finds_lines_in_any_format(
    client: SchemaRegistryClient, registry_url: str, topic: str, format_: str, tmp_path: Path
) -> None:
    (tmp_path / "orders.toml").write_text(MAPPING)
    message = {"protobuf_message": ORDER} if format_ == "protobuf" else {}
    decoder = make_decoder(settings(registry_url, format_, mapping=str(tmp_path / "orders.toml"), **message))
    write = order_writer(format_, client, topic)
    number = str(uuid.UUID(int=7)) if format_ == "avro" else "7"
    order = {"customer": 42, "id": number, "status": "PAID", "at": AT, "lines": LINES}
    found = decoder.events(record(topic, write(order)))
    assert [event.model_dump(exclude={"line"}) for event in found] == [
        make_event("42", "11", 2, price=12.5, event_id=f"{number}:1").model_dump(),
        make_event("42", str(2**60), 1, price=0.25, event_id=f"{number}:2").model_dump(),
    ]
    assert decoder.events(record(topic, write({**order, "status": "OPEN"}))) == ()
    assert decoder.passed_over.records == 1


@pytest.mark.parametrize("format_", FORMATS)
def test_cloud_events_in_any_format(client: SchemaRegistryClient, registry_url: str, topic: str, format_: str) -> None:
    headers = [("ce_specversion", b"1.0"), ("ce_id", b"7"), ("ce_source", b"shop"), ("ce_type", b"purchase")]
    decoder = make_decoder(settings(registry_url, format_, envelope="cloudevents"))
    raw = purchase_writer(format_, client, topic, PURCHASE)(fields_of(make_event(event_id="e")))
    assert decoder.events(record(topic, raw, headers)) == [make_event(event_id="e")]


def test_structured_cloud_events_in_avro(client: SchemaRegistryClient, registry_url: str, topic: str) -> None:
    data = {
        "type": "record",
        "name": "Data",
        "fields": [{"name": name, "type": "string"} for name in ("user_id", "item_id")],
    }
    texts = [{"name": name, "type": "string"} for name in ("specversion", "id", "source", "type")]
    schema = {"type": "record", "name": "CloudEvent", "fields": [*texts, {"name": "data", "type": data}]}
    write = avro_writer(client, topic, schema)
    event = {"specversion": "1.0", "id": "7", "source": "shop", "type": "purchase"}
    decoder = make_decoder(settings(registry_url, "avro", envelope="cloudevents"))
    raw = write({**event, "data": {"user_id": "u", "item_id": "a"}})
    assert [(found.user_id, found.item_id) for found in decoder.events(record(topic, raw))] == [("u", "a")]


@pytest.mark.parametrize("format_", FORMATS)
def test_a_schema_that_gains_a_field_goes_on(
    client: SchemaRegistryClient, registry_url: str, topic: str, format_: str, tmp_path: Path
) -> None:
    write = purchase_writer(format_, client, topic, PURCHASE)
    decoder = make_decoder(settings(registry_url, format_))
    first = write(fields_of(make_event()))
    if format_ == "avro":
        fields = [
            {"name": "user_id", "type": "string"},
            {"name": "channel", "type": "string", "default": "web"},
            {"name": "item_id", "type": "string"},
        ]
        later = avro_writer(
            client, topic, {"type": "record", "name": "Purchase", "namespace": "recsys", "fields": fields}
        )
    elif format_ == "protobuf":
        proto = (SCHEMAS / "purchase.proto").read_text(encoding="utf-8")
        (tmp_path / "later.proto").write_text(proto.rstrip().removesuffix("}") + "optional string channel = 99;\n}\n")
        later = protobuf_class_writer(client, topic, message_class(tmp_path / "later.proto", "recsys.Purchase"))
    else:
        later = json_writer(client, topic, {**JSON_SCHEMA, "title": "Purchase", "required": ["channel"]})
    raw = later({"user_id": "u", "channel": "app", "item_id": "a"})
    assert raw[:5] != first[:5], "it is another schema"
    for value in (first, raw, first):
        assert decoder.events(record(topic, value)) == (make_event(),)


def test_protobuf_is_read_whole(client: SchemaRegistryClient, registry_url: str, topic: str) -> None:
    from recsys.kafka.registry_values import RegistryReader

    reader = RegistryReader(settings(registry_url, "protobuf", protobuf_message=ORDER).events)
    write = protobuf_writer(client, topic, ORDER)
    raw = write(
        {
            "customer": "9007199254740993",
            "id": "18446744073709551615",
            "status": "PAID",
            "at": "2026-11-22T12:00:00.5Z",
            "lines": [{"sku": "-1", "code": "AP8="}],
            "gifts": {"-3": {"sku": 5, "price": 1.5}},
            "cash": False,
            "extra": {"a": [1.5, None, "x"]},
            "before": ["OPEN", 7],
            "insteadOf": {"id": 1},
        }
    )
    empty = {"sku": 0, "quantity": 0, "code": ""}
    assert reader.read(record(topic, raw), raw) == {
        "customer": 9_007_199_254_740_993,
        "id": 18_446_744_073_709_551_615,
        "status": "PAID",
        "at": "2026-11-22T12:00:00.500Z",
        "lines": [{**empty, "sku": -1, "code": "AP8="}],
        "gifts": {"-3": {**empty, "sku": 5, "price": 1.5}},
        "cash": False,
        "extra": {"a": [1.5, None, "x"]},
        "before": ["OPEN", 7],
        "instead_of": {"id": 1, "status": "OPEN", "lines": [], "gifts": {}, "before": []},
    }


@pytest.mark.parametrize("is_text", [False, True])
def test_another_message_of_the_same_file_is_not_taken_for_the_class(
    client: SchemaRegistryClient, registry_url: str, topic: str, is_text: bool
) -> None:
    decoder = make_decoder(settings(registry_url, "protobuf", protobuf_message=ORDER, mapping="contract"))
    raw = protobuf_writer(client, topic, f"{SHOP}_pb2:PageView")({"customer": "u"})
    if is_text:  # as the Java clients register it
        number = client.register_schema(f"{topic}-text-value", Schema(ORDER_PROTO, "PROTOBUF"))
        raw = b"\x00" + number.to_bytes(4, "big") + raw[5:]
    with pytest.raises(
        MalformedEvent, match=r"it is a message shop\.PageView, and RECSYS_EVENTS__PROTOBUF_MESSAGE names"
    ):
        decoder.events(record(topic, raw))
    with pytest.raises(MalformedEvent, match="the mapping finds no user_id and no item_id"):
        decoder.events(record(topic, raw[:5] + b"\x02\x02"))  # message 1 is an Order, an empty one
    with pytest.raises(MalformedEvent, match="which the schema does not have"):
        decoder.events(record(topic, raw[:5] + b"\x02\x12"))


@pytest.mark.parametrize("format_", FORMATS)
def test_a_schema_id_may_be_in_a_header(
    client: SchemaRegistryClient, registry_url: str, topic: str, format_: str
) -> None:
    raw = purchase_writer(format_, client, topic, PURCHASE)(fields_of(make_event()))
    decoder = make_decoder(settings(registry_url, format_))
    head, body = (raw[:6], raw[6:]) if format_ == "protobuf" else (raw[:5], raw[5:])
    with pytest.raises(MalformedEvent):
        decoder.events(record(topic, body))
    assert decoder.events(record(topic, body, [("__value_schema_id", head)])) == (make_event(),)


@pytest.mark.parametrize("format_", FORMATS)
def test_an_id_that_the_registry_does_not_know_is_malformed(registry_url: str, topic: str, format_: str) -> None:
    decoder = make_decoder(settings(registry_url, format_))
    with pytest.raises(MalformedEvent, match=f"the schema registry at {registry_url} does not know schema 999999"):
        decoder.events(record(topic, b"\x00" + (999_999).to_bytes(4, "big") + b"\x00abc"))


def test_an_address_without_the_path_of_the_api_makes_nothing_malformed(registry_url: str, topic: str) -> None:
    decoder = make_decoder(settings(registry_url.removesuffix("/apis/ccompat/v7"), "avro"))
    with pytest.raises(DecoderUnavailable, match="answers 404: RECSYS_EVENTS__REGISTRY_URL must be the address"):
        decoder.events(record(topic, b"\x00\x00\x00\x00\x01abc"))


def test_a_schema_of_another_format_is_named(client: SchemaRegistryClient, registry_url: str, topic: str) -> None:
    raw = purchase_writer("json-schema", client, topic, PURCHASE)(fields_of(make_event()))
    with pytest.raises(MalformedEvent, match="is of type JSON: RECSYS_EVENTS__FORMAT asks for AVRO"):
        make_decoder(settings(registry_url, "avro")).events(record(topic, raw))


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("nowhere_pb2:Order", "cannot load nowhere_pb2:Order: No module named 'nowhere_pb2'"),
        (f"{SHOP}_pb2:Nothing", f"cannot load {SHOP}_pb2:Nothing: "),
        ("recsys.errors:MalformedEvent", "recsys.errors:MalformedEvent is no class of messages"),
    ],
)
def test_a_class_that_cannot_be_used_is_named_at_start(registry_url: str, message: str, said: str) -> None:
    with pytest.raises(SettingsError) as raised:
        make_decoder(settings(registry_url, "protobuf", protobuf_message=message))
    assert str(raised.value).startswith(f"RECSYS_EVENTS__PROTOBUF_MESSAGE: {said}")
