from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import pytest
from confluent_kafka import TIMESTAMP_CREATE_TIME, TIMESTAMP_NOT_AVAILABLE, Message

from consumer.batch import MessageBatch
from recsys.data.event import Event, EventReading
from recsys.errors import DecoderUnavailable
from recsys.kafka.decoder import JsonDecoder, PassedOver
from recsys.kafka.topics import Topic
from tests.builders import NOON_MS, make_event

TOPIC = Topic(name="purchases", id="8Jq4absFQfaeoSIaQnR8vw", partitions=(0, 1))


def record(partition: int, offset: int, value: bytes, *, timestamp_ms: int | None = NOON_MS) -> Message:
    kind = TIMESTAMP_NOT_AVAILABLE if timestamp_ms is None else TIMESTAMP_CREATE_TIME
    return Message(
        topic="purchases", partition=partition, offset=offset, value=value, timestamp=(kind, timestamp_ms or -1)
    )


def purchase(partition: int, offset: int, user: str, item: str = "a") -> Message:
    return record(partition, offset, json.dumps({"user_id": user, "item_id": item}).encode())


def batch(messages: Sequence[Message], held: Mapping[int, int]) -> MessageBatch:
    return MessageBatch(
        messages, held, TOPIC, JsonDecoder(EventReading(no_user=frozenset({"0", "null"})), on_cluster=True)
    )


def test_events_are_grouped_by_user_in_order_of_arrival() -> None:
    found = batch(
        [purchase(0, 7, "u", "x"), purchase(1, 3, "v", "y"), purchase(1, 4, "u", "z"), purchase(0, 8, "u", "x")],
        {0: 1, 1: 1},
    ).decode()
    assert {user: [(e.source, e.offset, e.event.item_id) for e in events] for user, events in found.events.items()} == {
        "u": [(f"{TOPIC.id}:0", 7, "x"), (f"{TOPIC.id}:1", 4, "z"), (f"{TOPIC.id}:0", 8, "x")],
        "v": [(f"{TOPIC.id}:1", 3, "y")],
    }
    assert found.next_offsets == {0: 9, 1: 5}
    assert found.malformed == {}
    assert found.timestamps_ms.tolist() == [NOON_MS] * 4


def test_malformed_records_are_set_aside_and_count_as_read() -> None:
    messages = [purchase(0, 5, "u"), record(0, 6, b"{"), purchase(0, 7, "}v"), record(0, 8, b"{}", timestamp_ms=None)]
    found = batch(messages, {0: 4}).decode()
    assert list(found.events) == ["u"]
    assert {place: (problem.location, problem.raw) for place, problem in found.malformed.items()} == {
        1: ("purchases[0] 6", b"{"),
        2: ("purchases[0] 7", b""),
        3: ("purchases[0] 8", b"{}"),
    }
    assert str(found.malformed[2]).startswith("purchases[0] 7: user_id: must not begin with }")
    assert found.next_offsets == {0: 9}
    assert len(found.timestamps_ms) == 1


def test_ids_that_are_no_users_are_passed_over_and_counted_and_so_are_prices_that_cannot_be_read() -> None:
    users = ("u", 0, "NULL", "null", "00", "u")
    messages = [
        record(0, offset, json.dumps({"user_id": user, "item_id": "a", "price": "free" if user == "u" else 1}).encode())
        for offset, user in enumerate(users)
    ]
    messages.append(record(0, 6, b'{"user_id": "0", "type": "forget"}'))
    read = batch(messages, {0: 1})
    for _ in range(2):  # decoded once, counted once
        found = read.decode()
        assert {user: len(events) for user, events in found.events.items()} == {"u": 2, "00": 1, "0": 1}
        assert (found.passed_over, found.malformed) == (PassedOver(no_user=3, prices=2), {})
        assert found.next_offsets == {0: 7}


@pytest.mark.parametrize(
    ("held_now", "left"),
    [
        ({0: 1, 1: 2}, [(0, 1), (1, 1), (0, 2)]),
        ({0: 1}, [(0, 1), (0, 2)]),
        ({1: 2, 2: 1}, [(1, 1)]),
        ({0: 3, 1: 2}, [(1, 1)]),
        ({}, []),
    ],
)
def test_what_was_given_up_since_is_left_out_also_if_it_came_back(
    held_now: dict[int, int], left: list[tuple[int, int]]
) -> None:
    read = batch([purchase(0, 1, "u"), purchase(1, 1, "v"), purchase(0, 2, "u")], {0: 1, 1: 2})
    found = read.without_lost(held_now)
    assert [(message.partition(), message.offset()) for message in found.messages] == left
    assert (found is read) == (len(left) == 3)


class LinesOfOrders:
    """A decoder of records that hold any number of events, and that needs something which is away at first."""

    def __init__(self) -> None:
        self.is_away = True
        self.passed_over = PassedOver()

    def events(self, record: Message) -> Sequence[Event]:
        if self.is_away:
            raise DecoderUnavailable("the registry is away")
        order = json.loads(record.value() or b"")
        return [make_event(order["user"], item) for item in order["items"]]


def test_a_record_may_hold_no_event_or_many_and_all_of_them_have_its_place() -> None:
    orders = [{"user": "u", "items": ["a", "b", "c"]}, {"user": "v", "items": []}]
    decoder = LinesOfOrders()
    read = MessageBatch(
        [record(0, offset, json.dumps(order).encode()) for offset, order in enumerate(orders)], {0: 1}, TOPIC, decoder
    )
    read.decode_early()  # too early: nothing is kept, nothing is lost
    with pytest.raises(DecoderUnavailable):
        read.decode()
    decoder.is_away = False
    found = read.decode()
    assert [(e.offset, e.event.item_id) for e in found.events["u"]] == [(0, "a"), (0, "b"), (0, "c")]
    assert list(found.events) == ["u"]
    assert (found.next_offsets, found.malformed) == ({0: 2}, {})
