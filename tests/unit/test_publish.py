from __future__ import annotations

import json
import time

import pytest
from hypothesis import given, settings

from recsys.data.epoch import LAST_MS
from recsys.data.event import MAX_RECORD_BYTES, Event, decode
from recsys.kafka import producer as module
from recsys.kafka.embedded import embedded_broker
from recsys.kafka.producer import Publisher, encode
from recsys.operations.publish import Pace
from recsys.settings import KafkaSettings
from tests.builders import NOON_MS, events, make_event, make_forget


@given(events())
@settings(max_examples=200, deadline=None)
def test_an_encoded_event_decodes_to_itself(event: Event) -> None:
    value = encode(event)
    assert len(value) <= MAX_RECORD_BYTES
    assert decode(value, record_timestamp_ms=LAST_MS) == event


def test_an_encoded_purchase_holds_the_fields_of_the_contract() -> None:
    event = make_event("42", "sku-9", 2.0, price=3.5, event_id="order-123:sku-9")
    assert json.loads(encode(event)) == {
        "type": "purchase",
        "user_id": "42",
        "item_id": "sku-9",
        "quantity": 2.0,
        "price": 3.5,
        "event_id": "order-123:sku-9",
        "timestamp": "2026-11-22T12:00:00Z",
    }


def test_absent_fields_are_left_out() -> None:
    assert json.loads(encode(make_forget("42"))) == {
        "type": "forget",
        "user_id": "42",
        "timestamp": "2026-11-22T12:00:00Z",
    }
    assert json.loads(encode(make_event("42", "a"))).keys() == {"type", "user_id", "item_id", "quantity", "timestamp"}


@pytest.mark.parametrize(
    ("pace", "place", "later_ms", "due_s"),
    [
        (Pace(), 1000, 3_600_000, 0.0),
        (Pace(rate=100.0), 0, 5000, 0.0),
        (Pace(rate=100.0), 250, 5000, 2.5),
        (Pace(rate=0.5), 3, 0, 6.0),
        (Pace(speedup=1.0), 7, 1500, 1.5),
        (Pace(speedup=3600.0), 7, 3_600_000, 1.0),
        (Pace(speedup=2.0), 7, 0, 0.0),
    ],
)
def test_an_event_is_due_by_its_place_or_by_its_time(pace: Pace, place: int, later_ms: int, due_s: float) -> None:
    first, event = make_event(timestamp=NOON_MS), make_event(timestamp=NOON_MS + later_ms)
    assert pace.due_s(place, event, first) == pytest.approx(due_s)


def test_a_process_that_was_held_up_does_not_take_kafka_for_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    with embedded_broker("purchases") as address:
        settings = KafkaSettings.model_validate({"bootstrap_servers": address})
        with Publisher(settings) as publisher:
            publisher._answered_at = time.monotonic()
            monkeypatch.setattr(module, "_LAST_CHANCE_S", 240.0)  # the machine may hold it up once more
            monkeypatch.setattr(module, "time", HeldUp(3 * settings.timeout_s, after_calls=1))
            publisher.publish(make_event("42", "a"))
    assert publisher.delivered == 1


class HeldUp:
    """A clock that jumps once, after some calls."""

    def __init__(self, seconds: float, *, after_calls: int) -> None:
        self._seconds = seconds
        self._left = after_calls

    def monotonic(self) -> float:
        """Return the time."""
        self._left -= 1
        return time.monotonic() + (self._seconds if self._left < 0 else 0.0)
