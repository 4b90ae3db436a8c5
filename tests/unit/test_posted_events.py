"""Events that are posted over HTTP, before they are published."""

from __future__ import annotations

from typing import Any

import pytest

from api.problems import without_places
from api.purchases import scoped
from recsys.data.event import LONGEST_EVENT_ID, Event, decode
from recsys.kafka.producer import encode

SALE: dict[str, Any] = {"user_id": "u", "item_id": "i", "timestamp": 1_790_000_000_000}


def published(client: str, event_id: str | None) -> str | None:
    """Return the id with which a consumer reads what a client has posted."""
    event = scoped(Event(**SALE, event_id=event_id), client)
    return decode(encode(event)).event_id


def test_ids_of_one_key_are_never_those_of_another_or_of_a_producer() -> None:
    clients = ["shop", "shop.a", "s", "n" * 64]
    ids = [
        "order-900:item-001",
        "a/order",
        "shop/a",
        "http:shop/a",
        "x" * 128,
        "x" * 127 + "y",
        "http:shop#" + "0" * 32,
    ]
    found = {published(client, event_id) for client in clients for event_id in ids}
    assert len(found) == len(clients) * len(ids)
    assert published("shop", "order-900:item-001") == "http:shop/order-900:item-001"
    assert all(event_id is not None and event_id.startswith("http:") for event_id in found)
    assert found.isdisjoint(set(ids))


@pytest.mark.parametrize("client", ["s", "n" * 64])
def test_every_id_that_an_event_may_have_fits_with_any_name_of_a_key(client: str) -> None:
    found = [published(client, "\N{SNOWMAN}" * length) for length in range(1, LONGEST_EVENT_ID + 1)]
    assert len(set(found)) == LONGEST_EVENT_ID
    assert max(len(event_id or "") for event_id in found) <= LONGEST_EVENT_ID


def test_the_same_id_from_the_same_key_stays_the_same_and_no_id_stays_none() -> None:
    assert len({published("shop", "x" * 128) for _ in range(3)}) == 1
    assert published("shop", None) is None


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("there is no model v1 in /var/lib/recsys; the newest is v2", "there is no model v1 in …; the newest is v2"),
        ("cannot read s3://bucket/recsys/models: denied", "cannot read …: denied"),
        ("[Errno 13] Permission denied: '/data/archive'", "[Errno 13] Permission denied: '…'"),
        ("segment data/archive/purchases/1.parquet is damaged", "segment … is damaged"),
        ("Redis at cache-1.internal:6379 is unavailable", "Redis at … is unavailable"),
        ("Kafka at b1:9092,10.0.0.7:9092,[::1]:9092: no answer", "Kafka at …,…,…: no answer"),
        ("no route to 10.0.0.7", "no route to …"),
        ("since 2026-11-22T10:15:02Z 1,000 events, NDCG 0.12", "since 2026-11-22T10:15:02Z 1,000 events, NDCG 0.12"),
        ("", ""),
    ],
)
def test_errors_of_other_processes_are_told_without_where_things_are(text: str, shown: str) -> None:
    assert without_places(text) == shown


def test_what_is_told_of_an_error_has_a_length() -> None:
    shown = without_places("no place, " + "x" * 1_000_000)
    assert len(shown) == 2_001
    assert shown.startswith("no place, xxx")
    assert shown.endswith("x…")
