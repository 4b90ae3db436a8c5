"""The codes of malformed records: each means one kind of fault, and letters carry them."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import TIMESTAMP_CREATE_TIME, TIMESTAMP_NOT_AVAILABLE, Message
from hypothesis import given
from hypothesis import strategies as st

from recsys.data.event import EventReading, event_of
from recsys.data.mapping import EventMapping
from recsys.errors import MalformedEvent, Reason
from recsys.kafka.decoder import EventDecoder, JsonDecoder, MappedDecoder
from recsys.kafka.letters import UNKNOWN, FoundLetter, Letter
from tests.builders import NOON_MS

SALE: dict[str, Any] = {"user_id": "ann", "item_id": "sku", "timestamp": "2026-11-22T12:00:00Z"}
ORDERS = """
lines = "value.lines"
lines_that_are_good = "count"
[fields]
user_id = "value.user"
item_id = "line.item"
quantity = "line.quantity"
event_id = ["value.id", "line.item"]
"""


def plain(**options: Any) -> EventDecoder:
    return JsonDecoder(EventReading(), on_cluster=True, **options)


def mapped(text: str = ORDERS) -> EventDecoder:
    return MappedDecoder(EventMapping.parse(text, name="orders.toml"), EventReading())


def record(value: Any, *, sent: bool = True) -> Message:
    raw = value if value is None or isinstance(value, bytes) else json.dumps(value).encode()
    timestamp = (TIMESTAMP_CREATE_TIME, NOON_MS) if sent else (TIMESTAMP_NOT_AVAILABLE, 0)
    return Message(topic="purchases", partition=3, offset=17, key=b"k", value=raw, timestamp=timestamp)


def malformed(decoder: EventDecoder, message: Message) -> MalformedEvent:
    with pytest.raises(MalformedEvent) as caught:
        decoder.events(message)
    return caught.value


def without(name: str) -> dict[str, Any]:
    return {field: value for field, value in SALE.items() if field != name}


CASES: list[tuple[Reason, EventDecoder, Message]] = [
    (Reason.EMPTY, plain(), record(None)),
    (Reason.EMPTY, mapped(), record(b"")),
    (Reason.TOO_LARGE, plain(max_bytes=100), record({**SALE, "note": "x" * 100})),
    (Reason.TOO_LARGE, mapped(), record({"user": "ann", "id": 1, "lines": [{}] * 5_001})),
    (Reason.NOT_JSON, plain(), record(b"ann;sku;1")),
    (Reason.NOT_JSON, mapped(), record(b"{")),
    (Reason.OTHER_FORM, plain(), record([SALE])),
    (Reason.OTHER_FORM, plain(), record({"userId": "ann", "sku": "x"})),
    (Reason.OTHER_FORM, mapped(), record({"lines": [{"quantity": 1}]})),
    (Reason.NO_PURCHASE, plain(), record({**SALE, "event_type": "page_view"})),
    (Reason.MAPPING, mapped(), record({"user": "ann", "lines": "none"})),
    (Reason.USER_ID_MISSING, plain(), record(without("user_id"))),
    (Reason.USER_ID, plain(), record({**SALE, "user_id": ""})),
    (Reason.USER_ID, plain(), record({**SALE, "user_id": "}on a cluster"})),
    (Reason.ITEM_ID_MISSING, plain(), record(without("item_id"))),
    (Reason.ITEM_ID, plain(), record({**SALE, "item_id": ["sku"]})),
    (Reason.TYPE, plain(), record({**SALE, "type": "gift"})),
    (Reason.QUANTITY, plain(), record({**SALE, "quantity": -1})),
    (Reason.QUANTITY, plain(), record({**SALE, "type": "return", "quantity": 10_000_000})),
    (Reason.EVENT_ID, plain(), record({**SALE, "event_id": "x" * 129})),
    (Reason.EVENT_ID, mapped(), record({"user": "ann", "id": {}, "lines": [{"item": "sku"}]})),
    (Reason.TIMESTAMP_MISSING, plain(), record(without("timestamp"), sent=False)),
    (Reason.TIMESTAMP_UNIT, plain(), record({**SALE, "timestamp": 17})),
    (Reason.TIMESTAMP_FUTURE, plain(), record({**SALE, "timestamp": "2031-01-01T00:00:00Z"})),
    (Reason.TIMESTAMP, plain(), record({**SALE, "timestamp": "yesterday"})),
]
NOT_HERE = {Reason.SCHEMA, Reason.PRICE}
"""The first needs a registry: test_events_with_schemas.py. The second has a test of its own below."""


@pytest.mark.parametrize(("code", "decoder", "message"), CASES)
def test_each_kind_of_fault_has_its_code(code: Reason, decoder: EventDecoder, message: Message) -> None:
    assert malformed(decoder, message).code is code


def test_every_code_is_tested_and_described() -> None:
    assert {code for code, _, _ in CASES} | NOT_HERE == set(Reason)
    table = Path("docs/contract.md").read_text().partition("| code | the record |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, flags=re.MULTILINE) == [*map(str, Reason), UNKNOWN]


def test_a_price_that_only_binary_formats_can_hold_has_its_code() -> None:
    with pytest.raises(MalformedEvent) as caught:
        event_of({**SALE, "price": math.inf}, sent_ms=NOON_MS)
    assert caught.value.code is Reason.PRICE


def test_of_several_faults_the_first_has_the_word() -> None:
    assert malformed(plain(), record({"quantity": -1, "item_id": "sku"})).code is Reason.USER_ID_MISSING


@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from([*SALE, "type", "lines", "user", "id", "quantity"]), inner)
        ),
        max_leaves=8,
    )
    | st.binary(max_size=40)
)
def test_whatever_is_malformed_has_a_code(value: Any) -> None:
    for decoder in (plain(), mapped()):
        try:
            decoder.events(record(value))
        except MalformedEvent as error:
            assert error.code is not None  # noqa: PT017 - most of these values are malformed


def test_a_letter_says_where_its_record_was_and_gives_it_back() -> None:
    lines = [{"item": "a"}, {"item": "b", "quantity": "two"}, {"item": "c"}, {}]
    message = record({"user": "ann", "id": 7, "lines": lines})
    error = malformed(mapped(), message)
    letter = Letter.of(message, error, topic_id="8Jq4absFQfaeoSIaQnR8vw", group="shop")
    sent = Message(
        topic="purchases.dlq", partition=1, offset=5, key=letter.key, value=letter.value,
        headers=[*letter.headers, ("trace", b"7"), *letter.about], timestamp=(TIMESTAMP_CREATE_TIME, NOON_MS + 9),
    )  # fmt: skip
    found = FoundLetter.read(sent)
    assert (found.partition, found.offset, found.sent_ms) == (1, 5, NOON_MS + 9)
    assert (found.code, found.reason, found.lines) == ("quantity", error.reason, (2, 4))
    assert found.lines_of == EventMapping.parse(ORDERS, name="orders.toml").lines_of
    assert found.place == "3:17"
    assert found.record.topic() == "purchases"
    assert found.record.value() == message.value()
    assert found.record.headers() == [("trace", b"7")]
    assert found.record.timestamp() == message.timestamp()
    assert found.event_id(None) == "dead-letter:8Jq4absFQfaeoSIaQnR8vw:3:17"
    assert found.event_id(4) == "dead-letter:8Jq4absFQfaeoSIaQnR8vw:3:17:4"


def test_a_record_that_no_consumer_has_sent_is_a_letter_without_a_place() -> None:
    foreign = Message(
        topic="purchases.dlq", partition=0, offset=0, value=b"?", headers=[("__recsys.errors.topic", b"\xff")]
    )
    found = FoundLetter.read(foreign)
    assert (found.code, found.place, found.record.topic(), found.lines) == (UNKNOWN, "", None, ())


@pytest.mark.parametrize(
    ("name", "value"),
    [("offset", str(2**63)), ("offset", "9" * 20), ("partition", str(2**31)), ("offset", "١"), ("topic", "")],
)
def test_a_letter_whose_place_cannot_be_is_one_without_a_place(name: str, value: str) -> None:
    about = {"topic": "purchases", "partition": "0", "offset": "0", "timestamp": str(2**63), name: value}
    headers: list[tuple[str, str | bytes | None]] = [(f"__recsys.errors.{key}", held) for key, held in about.items()]
    headers.append(("__recsys.errors.reason.code", "\x1b[31m"))
    found = FoundLetter.read(Message(topic="dlq", partition=0, offset=0, headers=headers))
    assert (found.place, found.code) == ("", UNKNOWN)


def test_the_id_of_an_event_fits_whatever_the_broker_calls_its_topics() -> None:
    about = {
        "topic": "t" * 249,
        "topic.id": f"{'t' * 249}@cluster",
        "partition": "2147483647",
        "offset": str(2**63 - 1),
    }
    headers: list[tuple[str, str | bytes | None]] = [
        (f"__recsys.errors.{name}", value) for name, value in about.items()
    ]
    found = FoundLetter.read(Message(topic="dlq", partition=0, offset=0, headers=headers))
    assert len(found.event_id(5_000)) <= 128
