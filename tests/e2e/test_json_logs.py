"""Logs of services that no terminal shows: each line is a JSON object, with the fields that programs look for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.planted import event_json, item_name
from tests.prepared import train_planted
from tests.services import Service, Shop, wait_until
from tests.stream import publish

pytestmark = pytest.mark.kafka


def lines_of(service: Service) -> list[dict[str, Any]]:
    """Return the whole lines of a log so far; each must be JSON, whoever logged it."""
    return [json.loads(line) for line in service.said().rpartition("\n")[0].splitlines()]


def await_event(service: Service, event: str, **fields: object) -> dict[str, Any]:
    def found() -> dict[str, Any] | None:
        for line in lines_of(service):
            if line["event"] == event and fields.items() <= line.items():
                return line
        return None

    return wait_until(found, f"the log has the event {event}")


def test_every_line_of_the_services_is_json_with_event_and_fields(shop: Shop) -> None:
    train_planted(shop)
    json_lines = {"RECSYS_LOG__FORMAT": "auto", "RECSYS_LOG__HASH_USER_IDS": "true", "RECSYS_LOG__HASH_KEY": "k" * 16}
    talkative = {"session.timeout.ms": 6000, "debug": "cgrp"}  # what librdkafka says has the same form
    consumer = shop.start_consumer(
        **json_lines, RECSYS_LOG__LEVEL="DEBUG", RECSYS_KAFKA__LIBRDKAFKA=json.dumps(talkative)
    )
    consumer.await_assigned()
    broken = json.dumps({"user_id": "ann@shop.example", "item_id": "a", "timestamp": "ann@shop.example"}).encode()
    publish(shop, [("u", event_json("u", item_name(0, 1))), ("u", broken)])

    letter = await_event(consumer, "dead_letter", level="warning", logger="consumer.dead_letters", topic=shop.topic)
    assert isinstance(letter["partition"], int)
    assert isinstance(letter["offset"], int)
    assert letter["reason"].startswith("timestamp: ")
    loaded = await_event(consumer, "model_loaded", level="info")
    assert isinstance(loaded["items"], int)
    assert f"model {loaded['model']} " in loaded["message"]
    assert await_event(consumer, "librdkafka")["message"]
    progress = await_event(consumer, "progress")
    assert isinstance(progress["latency_p99_ms"], float)
    assert consumer.stop() == 0

    api = shop.start_api(**json_lines)
    assert await_event(api, "uvicorn", logger="uvicorn.error", level="info")["message"]
    assert api.stop() == 0
    for service in (consumer, api):
        lines = lines_of(service)
        assert lines[-1]["event"] == "stopped"
        assert all(line.keys() >= {"time", "level", "logger", "event", "message"} for line in lines)
        assert "ann@shop.example" not in service.said()
