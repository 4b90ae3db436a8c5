"""Topics in Avro with a mapping: what is shown of them, what counts, and what each malformed record is told."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.schema_registry import SchemaRegistryClient

from recsys.errors import Reason
from recsys.redis import open_store
from tests.faults.ledger import read_topic
from tests.registries import AnsweringServer, client_of
from tests.schemas import avro_writer, json_writer
from tests.services import Shop, kept_port, wait_until

pytestmark = pytest.mark.real_kafka

ORDERS = """
where = "value.status == 'PAID'"
lines = "value.lines"
[fields]
user_id = "value.customer"
item_id = "line.sku"
quantity = "line.n"
event_id = ["value.id", "number"]
"""
LINE = {
    "type": "record",
    "name": "Line",
    "fields": [
        {"name": "sku", "type": {"type": "bytes", "logicalType": "decimal", "precision": 20}},
        {"name": "n", "type": "double"},
    ],
}
ORDER = {
    "type": "record",
    "name": "Order",
    "fields": [
        {"name": "customer", "type": ["null", "long", "string"]},
        {"name": "id", "type": "string"},
        {"name": "status", "type": {"type": "enum", "name": "Status", "symbols": ["OPEN", "PAID"]}},
        {"name": "lines", "type": {"type": "array", "items": LINE}},
    ],
}
OF_ANOTHER_KIND = {"$schema": "http://json-schema.org/draft-07/schema#", "title": "Order", "type": "object"}


@pytest.fixture
def client(registry_url: str) -> SchemaRegistryClient:
    """A producer's client."""
    return client_of(registry_url)


@pytest.fixture
def orders(shop: Shop, client: SchemaRegistryClient, registry_url: str) -> Callable[..., bytes]:
    """What writes orders of a shop whose services read them by a mapping."""
    (shop.folder / "orders.toml").write_text(ORDERS)
    shop.environment |= {
        "RECSYS_EVENTS__FORMAT": "avro",
        "RECSYS_EVENTS__REGISTRY_URL": registry_url,
        "RECSYS_EVENTS__MAPPING": str(shop.folder / "orders.toml"),
    }
    return writer(client, shop, ORDER)


def writer(client: SchemaRegistryClient, shop: Shop, schema: Mapping[str, Any]) -> Callable[..., bytes]:
    write = avro_writer(client, shop.topic, schema)

    def order(number: int, *skus: int, customer: Any = 42, n: float = 1, **more: Any) -> bytes:
        lines = [{"sku": Decimal(sku), "n": n} for sku in skus]
        return write({"customer": customer, "id": f"o{number}", "status": "PAID", "lines": lines, **more})

    return order


def publish(shop: Shop, values: Sequence[bytes]) -> None:
    """Publish records to one partition, so that they have an order."""
    producer = Producer({"bootstrap.servers": shop.kafka.address})
    for value in values:
        producer.produce(shop.topic, value, partition=0)
    assert producer.flush(240) == 0


def malformed_values(client: SchemaRegistryClient, shop: Shop, order: Callable[..., bytes]) -> dict[str, bytes]:
    """Return by the beginning of what is said of it a record of each kind that is malformed."""
    good = order(1, 7)
    other = json_writer(client, f"{shop.topic}-json", OF_ANOTHER_KIND)({"customer": 42})
    number = int.from_bytes(other[1:5], "big")
    url = shop.environment["RECSYS_EVENTS__REGISTRY_URL"]
    return {
        "does not fit its schema: Invalid magic byte": b'{"customer": 42}',
        "does not fit its schema: there are more bytes": good + b"\x00",
        "does not fit its schema: ": good[:-3],
        f"the schema registry at {url} does not know schema 999999": b"\x00" + (999_999).to_bytes(4, "big") + good[5:],
        f"schema {number} is of type JSON: RECSYS_EVENTS__FORMAT asks for AVRO": other,
        "line 1: user_id: is required": order(2, 7, customer=None),
        "line 1: quantity: must be a finite number": order(3, 7, 8, n=float("nan")),
    }


def test_each_malformed_kind_has_a_dead_letter_with_its_reason_and_all_else_counts(
    shop: Shop, client: SchemaRegistryClient, orders: Callable[..., bytes]
) -> None:
    malformed = malformed_values(client, shop, orders)
    evolved = {**ORDER, "fields": [*ORDER["fields"], {"name": "channel", "type": "string", "default": ""}]}
    later = writer(client, shop, evolved)
    good = [orders(10, 1, 2**60), orders(11, 3, status="OPEN"), later(12, 4, 5, 6, channel="app"), orders(13, 9)]
    consumer = shop.start_consumer()
    publish(shop, [good[0], *malformed.values(), *good[1:]])
    with open_store(shop.settings()) as store:
        items = {"1", str(2**60), "4", "5", "6", "9"}
        wait_until(lambda: set(store.users.read(["42"])["42"].history.entries) == items, "what counts is counted")
    assert consumer.stop() == 0, "it ends when the letters of what it has applied are sent"
    reasons: dict[bytes | None, str] = {}
    codes: list[str] = []
    for letter in read_topic(shop, f"{shop.topic}.dlq"):
        headers: dict[str, Any] = dict(letter.headers() or [])
        reasons[letter.value()] = headers["__recsys.errors.exception.message"].decode()
        codes.append(headers["__recsys.errors.reason.code"].decode())
    assert reasons.keys() == set(malformed.values())
    assert Counter(codes) == {Reason.SCHEMA: len(malformed) - 2, Reason.USER_ID_MISSING: 1, Reason.QUANTITY: 1}
    for beginning, raw in malformed.items():
        assert reasons[raw].startswith(beginning)
        assert "\n" not in reasons[raw]


def test_a_preview_shows_avro_as_json_beside_its_events(
    shop: Shop, client: SchemaRegistryClient, orders: Callable[..., bytes]
) -> None:
    malformed = malformed_values(client, shop, orders)
    publish(shop, [orders(10, 1, 2**60), *malformed.values()])
    first, *others = json.loads(shop.recsys("events", "preview", "--json").stdout)
    assert json.loads(first["value"])["lines"] == [{"sku": 1, "n": 1.0}, {"sku": 2**60, "n": 1.0}]
    assert [(event["item_id"], event["event_id"]) for event in first["events"]] == [
        ("1", "o10:1"),
        (str(2**60), "o10:2"),
    ]
    assert len(others) == len(malformed)
    for one, (beginning, raw) in zip(others, malformed.items(), strict=True):
        assert one["malformed"].startswith(beginning)
        assert one["value"] == raw.hex(" ") or json.loads(one["value"])["status"] == "PAID"
    shown = shop.recsys("events", "preview", "-n", "1", "--oldest").stdout
    assert '{"customer":42,"id":"o10","status":"PAID"' in shown
    assert "orders.toml, avro: 1 record, 2 events" in " ".join(shown.split())
    checked = json.loads(shop.recsys("events", "check", "--json", expect=1).stdout)
    assert (checked["records"], checked["events"]["purchase"]) == (1 + len(malformed), 2)


def test_files_are_what_they_are_whatever_format_the_topic_has(shop: Shop, orders: Callable[..., bytes]) -> None:
    order = {"customer": 42, "id": "o1", "status": "PAID", "lines": [{"sku": 1, "n": 1}], "at": "2026-11-22T10:00:00Z"}
    (shop.folder / "orders.jsonl").write_text(json.dumps(order))
    (shop.folder / "orders.toml").write_text(ORDERS + 'timestamp = "value.at"\n')
    done = shop.recsys("events", "preview", "orders.jsonl", "--json", RECSYS_EVENTS__REGISTRY_URL="http://127.0.0.1:1")
    assert [event["event_id"] for event in json.loads(done.stdout)[0]["events"]] == ["o1:1"]


@pytest.mark.parametrize(
    ("status", "said"), [(401, "refuses the login (401)"), (503, "answers 503"), (0, "does not answer: ")]
)
def test_a_registry_that_is_away_is_one_line_and_nothing_is_shown(
    shop: Shop, orders: Callable[..., bytes], status: int, said: str
) -> None:
    publish(shop, [orders(1, 7)])
    with AnsweringServer(status or 200) as server:
        url = server.url if status else f"http://127.0.0.1:{kept_port()}"
        for command in ("preview", "check"):
            done = shop.recsys("events", command, expect=1, RECSYS_EVENTS__REGISTRY_URL=url)
            (line,) = [line for line in done.stderr.splitlines() if "the schema registry at" in line]
            assert line.startswith(f"error: the schema registry at {url} {said}")
            assert "Traceback" not in done.stderr
            assert done.stdout == ""
