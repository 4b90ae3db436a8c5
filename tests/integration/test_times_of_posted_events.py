"""Times of events that are posted over HTTP: the request is to them what the record is to events over Kafka."""

from __future__ import annotations

import pytest

from api.purchases import RejectedEventError, read_event
from recsys.data.epoch import DAY_MS, EpochUnit
from recsys.data.event import Event, EventReading, decode
from recsys.kafka.producer import encode
from recsys.redis import Store
from tests.builders import NOON_MS


def posted_at_noon(store: Store, unit: EpochUnit | None = None, **fields: object) -> Event:
    return read_event(
        {"user_id": "u", "item_id": "i", **fields},
        store.users,
        reading=EventReading(unit=unit),
        now_ms=NOON_MS,
        idempotency_key="",
        place=0,
        may_forget=True,
    )


@pytest.mark.parametrize("unit", [None, EpochUnit.SECONDS])
@pytest.mark.parametrize(
    "at", ["2026-11-23T12:00:00.001Z", "9999-12-31T23:59:59Z", NOON_MS // 1000 + 86_401, 4_070_908_800]
)
def test_a_time_later_than_a_day_after_the_request_is_refused_however_it_is_written(
    store: Store, at: str | int, unit: EpochUnit | None
) -> None:
    with pytest.raises(RejectedEventError) as told:
        posted_at_noon(store, unit, timestamp=at)
    assert [broken.field for broken in told.value.errors] == ["timestamp"]
    assert "2026-11-23" in told.value.errors[0].message
    assert posted_at_noon(store, unit, type="forget", timestamp=at).timestamp == NOON_MS


@pytest.mark.parametrize("at", ["2026-11-23T12:00:00Z", NOON_MS // 1000 + 86_400, NOON_MS + DAY_MS, None])
def test_what_is_accepted_with_a_time_is_read_by_the_consumer_too(store: Store, at: str | int | None) -> None:
    event = posted_at_noon(store, timestamp=at)
    assert decode(encode(event), record_timestamp_ms=NOON_MS) == event
