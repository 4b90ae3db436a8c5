"""What it costs to make events of records: µs of one core an event."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Sequence
from typing import Any

from confluent_kafka import TIMESTAMP_CREATE_TIME, Message

from benchmarks.results import Measured
from recsys.data.event import EventReading
from recsys.kafka.decoder import EventDecoder, JsonDecoder, MappedDecoder, load_mapping

_NOW_MS = 1_795_000_000_000
_RECORDS, _ROUNDS = 2_000, 15
_MOST_US = {"the contract's own": 7.0, "a line of an order of 10": 15.0}


def _record(value: dict[str, Any], offset: int) -> Message:
    return Message(
        topic="purchases", partition=0, offset=offset, value=json.dumps(value).encode(),
        timestamp=(TIMESTAMP_CREATE_TIME, _NOW_MS),
    )  # fmt: skip


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
        Measured("decode", name, "CPU time an event", statistics.median(times), "µs", at_most=_MOST_US[name])
        for name, times in took.items()
    ]
