from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from recsys.data.epoch import DAY_MS, LAST_MS, NEWEST_MS, OLDEST_MS, EpochUnit
from recsys.data.event import MAX_RECORD_BYTES, Event, EventReading, EventType, decode
from recsys.errors import MalformedEvent
from recsys.kafka.readings import event_reading
from recsys.settings import EventsSettings
from tests.builders import NOON_MS, make_event, make_forget
from tests.malformed import malformed_records


def decoded(**fields: object) -> Event:
    return decode(json.dumps({"user_id": "42", "item_id": "sku-9", "timestamp": NOON_MS, **fields}).encode())


def refusal(**fields: object) -> str:
    with pytest.raises(MalformedEvent) as caught:
        decoded(**fields)
    return caught.value.reason


def test_the_example_of_the_contract_decodes_field_by_field() -> None:
    event = decode(
        b'{"event_id": "order-123:sku-9", "type": "purchase", "user_id": "42", "item_id": "sku-9", "quantity": 1, '
        b'"price": 3.5, "timestamp": "2026-11-22T10:11:12Z"}'
    )
    assert event.event_id == "order-123:sku-9"
    assert event.type is EventType.PURCHASE
    assert (event.user_id, event.item_id) == ("42", "sku-9")
    assert (event.quantity, event.price) == (1.0, 3.5)
    assert event.timestamp == 1_795_342_272_000


def test_defaults_are_one_purchase_at_the_time_of_the_record() -> None:
    event = decode(b'{"user_id": "42", "item_id": "sku-9"}', record_timestamp_ms=1234)
    assert event == make_event("42", "sku-9", 1.0, timestamp=1234)


def test_null_optional_fields_mean_absent() -> None:
    fields = {"type": None, "quantity": None, "price": None, "event_id": None, "timestamp": None}
    value = json.dumps({"user_id": "42", "item_id": "sku-9", **fields}).encode()
    assert decode(value, record_timestamp_ms=1234) == make_event("42", "sku-9", 1.0, timestamp=1234)


@pytest.mark.parametrize("field", ["user_id", "item_id"])
def test_null_required_fields_are_missing(field: str) -> None:
    assert field in refusal(**{field: None})


def test_the_own_timestamp_wins_over_the_record() -> None:
    assert (
        decode(b'{"user_id": 1, "item_id": 2, "timestamp": 1795348799999}', record_timestamp_ms=NOON_MS).timestamp
        == NOON_MS - 1
    )


def test_an_event_without_any_timestamp_is_malformed() -> None:
    with pytest.raises(MalformedEvent, match="timestamp"):
        decode(b'{"user_id": 1, "item_id": 2}')


@pytest.mark.parametrize(("field", "limit"), [("user_id", 256), ("item_id", 256), ("event_id", 128)])
@pytest.mark.parametrize("character", ["x", "é", "😀"])
def test_ids_may_be_as_long_as_the_limit_and_no_longer(field: str, limit: int, character: str) -> None:
    assert getattr(decoded(**{field: character * limit}), field) == character * limit
    assert refusal(**{field: character * (limit + 1)}).startswith(f"{field}: ")


@pytest.mark.parametrize("field", ["user_id", "item_id", "event_id"])
@pytest.mark.parametrize("value", ["", True, False, 1.0, 1.5, [], {}, ["a"], 2**64])
def test_ids_that_are_neither_text_nor_integers_are_malformed(field: str, value: object) -> None:
    assert refusal(**{field: value}).startswith(f"{field}: ")


@pytest.mark.parametrize("field", ["user_id", "item_id", "event_id"])
@pytest.mark.parametrize("character", ["\0", "\n", "\r", "\t", "\x1b", "\x1f", "\x7f", "\x80", "\x85", "\x9f"])
@pytest.mark.parametrize("form", ["{}b", "a{}", "a{}b", "{}"])
def test_control_characters_in_ids_are_malformed(field: str, character: str, form: str) -> None:
    assert refusal(**{field: form.format(character)}).startswith(f"{field}: ")


@pytest.mark.parametrize("text", [" ", "~", "\xa0", "\u2028", "{42}", "a b", "🛒", "00123", "-0"])
def test_other_characters_in_ids_stay_as_they_are(text: str) -> None:
    event = decoded(user_id=text, item_id=text, event_id=text)
    assert (event.user_id, event.item_id, event.event_id) == (text, text, text)


@pytest.mark.parametrize(("value", "text"), [(0, "0"), (42, "42"), (-5, "-5"), (2**64 - 1, "18446744073709551615")])
def test_integer_ids_become_decimal_strings(value: int, text: str) -> None:
    event = decoded(user_id=value, item_id=value, event_id=value)
    assert (event.user_id, event.item_id, event.event_id) == (text, text, text)


@pytest.mark.parametrize("quantity", [1e6, 1_000_000, 999_999.999, 1e-6, 1e-300, 5e-324, 0.5])
def test_quantities_up_to_a_million_are_taken(quantity: float) -> None:
    assert decoded(quantity=quantity).quantity == quantity


@pytest.mark.parametrize("quantity", [0, -1, -0.0, 1_000_000.0001, 1_000_001, 10**18, 1e300, "1", True, [], {}])
def test_other_quantities_are_malformed(quantity: object) -> None:
    assert refusal(quantity=quantity).startswith("quantity: ")


@pytest.mark.parametrize("price", [0, 0.0, 3.5, 1e308])
def test_prices_from_zero_on_are_taken(price: float) -> None:
    assert decoded(price=price).price == price


@pytest.mark.parametrize("price", [-0.01, -1, "3.50", "", True, [], {}])
def test_a_price_that_is_none_costs_no_purchase_and_is_counted(price: object) -> None:
    unread = []
    value = json.dumps({"user_id": "42", "item_id": "sku-9", "timestamp": NOON_MS, "price": price}).encode()
    event = decode(value, on_unread_price=lambda: unread.append(price))
    assert (event.price, unread) == (None, [price])


@pytest.mark.parametrize("token", ["NaN", "Infinity", "-Infinity", "1e400", "-1e400", "nan", "inf"])
@pytest.mark.parametrize("field", ["quantity", "price", "timestamp", "unknown"])
def test_numbers_that_are_not_finite_are_malformed(token: str, field: str) -> None:
    with pytest.raises(MalformedEvent):
        decode(f'{{"user_id": "42", "item_id": "sku-9", "timestamp": {NOON_MS}, "{field}": {token}}}'.encode())


@pytest.mark.parametrize("type_", ["Purchase", "refund", "", 1, True, [], {}])
def test_unknown_types_are_malformed(type_: object) -> None:
    assert refusal(type=type_).startswith("type: ")


@pytest.mark.parametrize("type_", ["purchase", "return"])
def test_only_forget_may_come_without_an_item(type_: str) -> None:
    assert "item_id is required" in refusal(type=type_, item_id=None)


def test_forget_needs_only_a_user() -> None:
    assert decode(b'{"type": "forget", "user_id": "42"}', record_timestamp_ms=7) == make_forget("42", timestamp=7)
    assert make_forget().units == 0


def test_an_item_named_by_a_forget_is_dropped() -> None:
    assert decoded(type="forget").item_id is None


@pytest.mark.parametrize(
    ("text", "epoch_ms"),
    [
        ("2026-11-22T10:11:12Z", 1_795_342_272_000),
        ("2026-11-22t10:11:12z", 1_795_342_272_000),
        ("2026-11-22 10:11:12Z", 1_795_342_272_000),
        ("2026-11-22T10:11:12+00:00", 1_795_342_272_000),
        ("2026-11-22T10:11:12-00:00", 1_795_342_272_000),
        ("2026-11-22T15:41:12+05:30", 1_795_342_272_000),
        ("2026-11-22T00:11:12-10:00", 1_795_342_272_000),
        ("2026-11-22T10:11:12.5Z", 1_795_342_272_500),
        ("2026-11-22T10:11:12.123Z", 1_795_342_272_123),
        ("2026-11-22T10:11:12.123456789Z", 1_795_342_272_123),
        ("1970-01-01T00:00:00Z", 0),
        ("2016-12-31T23:59:60Z", 1_483_228_799_000),
        ("2016-12-31T23:59:60.25Z", 1_483_228_799_250),
        ("2017-01-01T05:29:60+05:30", 1_483_228_799_000),
        ("2100-01-01T00:00:00Z", NEWEST_MS),
    ],
)
def test_rfc_3339_times_are_read(text: str, epoch_ms: int) -> None:
    assert decoded(timestamp=text).timestamp == epoch_ms


@pytest.mark.parametrize("timestamp", [OLDEST_MS, 1_795_342_272_000, NEWEST_MS])
def test_epoch_milliseconds_are_taken(timestamp: int) -> None:
    assert decoded(timestamp=timestamp).timestamp == timestamp


@pytest.mark.parametrize(
    ("written", "epoch_ms"),
    [
        (631_152_000, OLDEST_MS),
        (1_790_000_000, 1_790_000_000_000),
        (1_790_000_000_123, 1_790_000_000_123),
        (1_790_000_000_123_456, 1_790_000_000_123),
        (1_790_000_000_123_456_789, 1_790_000_000_123),
    ],
)
def test_the_unit_of_an_integer_is_the_only_one_that_fits(written: int, epoch_ms: int) -> None:
    value = json.dumps({"user_id": "42", "item_id": "sku-9", "timestamp": written}).encode()
    assert decode(value, record_timestamp_ms=NOON_MS).timestamp == epoch_ms
    assert decode(value).timestamp == epoch_ms


@pytest.mark.parametrize(
    "written", [0, 1, 20_669, 20_261_122, 202_611_221_011, 20_261_122_101_112, 631_151_999, 10**17, -1]
)
def test_an_integer_that_fits_no_unit_is_malformed_and_the_reason_says_what_to_do(written: int) -> None:
    assert refusal(timestamp=written) == (
        f"timestamp: {written} is no time from 1990-01-01 to 2100-01-01, in s, ms, us or ns since 1970; "
        f"send RFC 3339, or set RECSYS_EVENTS__TIMESTAMP_UNIT"
    )


@pytest.mark.parametrize("per_s", [1, 1000, 10**6, 10**9])
def test_an_integer_later_than_a_day_after_its_record_is_malformed(per_s: int) -> None:
    newest = NOON_MS // 1000 + 86_400
    for written, is_taken in ((newest * per_s, True), ((newest + 1) * per_s, False), (4_070_908_800 * per_s, False)):
        value = json.dumps({"user_id": "42", "item_id": "sku-9", "timestamp": written}).encode()
        if is_taken:
            assert decode(value, record_timestamp_ms=NOON_MS).timestamp == newest * 1000
        else:
            with pytest.raises(MalformedEvent, match="from 1990-01-01 to 2026-11-23"):
                decode(value, record_timestamp_ms=NOON_MS)


@pytest.mark.parametrize(
    ("text", "is_taken"),
    [
        ("2026-11-23T12:00:00Z", True),
        ("2026-11-23T17:30:00+05:30", True),
        ("2026-11-23T12:00:00.001Z", False),
        ("2026-11-23T12:00:00-00:01", False),
        ("2027-11-22T10:00:00Z", False),
        ("9999-12-31T23:59:59.999Z", False),
    ],
)
def test_a_text_later_than_a_day_after_its_record_is_malformed(text: str, is_taken: bool) -> None:
    value = json.dumps({"user_id": "42", "item_id": "sku-9", "timestamp": text}).encode()
    if is_taken:
        assert decode(value, record_timestamp_ms=NOON_MS).timestamp == NOON_MS + DAY_MS
        return
    with pytest.raises(MalformedEvent) as caught:
        decode(value, record_timestamp_ms=NOON_MS)
    assert caught.value.reason.startswith("timestamp: ")
    assert caught.value.reason.endswith("is in the future: later than 2026-11-23T12:00:00Z, a day after it was sent")


def test_no_time_is_later_than_what_can_be_said_where_the_record_has_none_or_an_absurd_one() -> None:
    late = b'{"user_id": "42", "item_id": "sku-9", "timestamp": "9999-12-31T23:59:59.999Z"}'
    with pytest.raises(MalformedEvent, match=r"9999.* is in the future: later than 2100-01-01T00:00:00Z$"):
        decode(late)
    assert decode(late, record_timestamp_ms=LAST_MS).timestamp == LAST_MS
    assert decode(late, record_timestamp_ms=2**63 - 1).timestamp == LAST_MS
    with pytest.raises(MalformedEvent, match="later than 1970-01-02T00:00:00Z, a day after it was sent"):
        decode(late, record_timestamp_ms=0)


def test_a_text_of_long_ago_is_a_time_also_before_the_oldest_of_integers() -> None:
    value = b'{"user_id": "42", "item_id": "sku-9", "timestamp": "1970-01-01T00:00:00Z"}'
    assert decode(value, reading=EventReading(oldest_ms=OLDEST_MS), record_timestamp_ms=NOON_MS).timestamp == 0


def test_the_unit_can_be_set_and_then_any_time_up_to_a_day_after_the_record_is_taken() -> None:
    def read(written: int, unit: EpochUnit) -> int:
        value = json.dumps({"user_id": "42", "item_id": "sku-9", "timestamp": written}).encode()
        return decode(value, reading=EventReading(unit=unit), record_timestamp_ms=NOON_MS).timestamp

    assert read(86_400, EpochUnit.SECONDS) == 86_400_000
    assert read(1_790_000_000, EpochUnit.MILLISECONDS) == 1_790_000_000
    assert read(NOON_MS // 1000 + 86_400, EpochUnit.SECONDS) == NOON_MS + DAY_MS
    with pytest.raises(MalformedEvent, match="1790000000000 is no time from 1970 to 9999 in seconds"):
        read(1_790_000_000_000, EpochUnit.SECONDS)
    with pytest.raises(MalformedEvent, match="2099-01-01T00:00:00Z is in the future: later than 2026-11-23T12:00:00Z"):
        read(4_070_908_800, EpochUnit.SECONDS)


def test_with_an_older_oldest_time_two_units_may_fit_and_then_none_is_chosen() -> None:
    value = b'{"user_id": "42", "item_id": "sku-9", "timestamp": 1000000000}'  # 2001 in seconds, January 1970 in ms
    with pytest.raises(MalformedEvent) as caught:
        decode(value, reading=EventReading(oldest_ms=0), record_timestamp_ms=NOON_MS)
    assert "2001-09-09T01:46:40Z in seconds or 1970-01-12T13:46:40Z in milliseconds" in caught.value.reason


@pytest.mark.parametrize(
    "written", [0, 5, 20_261_122, -1, 2**63 - 1, 4_070_908_800, "2027-01-01T00:00:00Z", "9999-12-31T23:59:59Z"]
)
def test_no_wish_to_be_erased_is_lost_over_its_time(written: int | str) -> None:
    value = json.dumps({"type": "forget", "user_id": "42", "timestamp": written}).encode()
    assert decode(value, record_timestamp_ms=NOON_MS) == make_forget("42", timestamp=NOON_MS)
    unit = EpochUnit.SECONDS
    assert decode(value, reading=EventReading(unit=unit), record_timestamp_ms=NOON_MS).timestamp <= NOON_MS + DAY_MS


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (b'{"schema": {}, "payload": {"user_id": "u"}}', "Kafka Connect's JSON with schema: the event is in payload"),
        (b'{"schema": {}, "payload": {"before": null, "after": {}, "op": "c"}}', "the row is in payload.after"),
        (b'{"before": null, "after": {"user_id": "u"}, "op": "c"}', "a Debezium envelope: the row is in after"),
        (b'{"specversion": "1.0", "data": {"user_id": "u"}}', "a CloudEvents envelope: the event is in data"),
        (b'{"data": {"user_id": "u", "item_id": "i"}}', "an envelope: the event may be in data"),
        (b'{"id": 1, "customer": {"id": 2}, "line_items": [{"sku": "A"}]}', "a whole order: each of its lines"),
        (b'{"event_name": "purchase", "user_id": "u", "items": [{"item_id": "A"}]}', "an event with several items"),
        (
            b'{"client_id": "1.2", "user_id": "u", "events": [{"name": "purchase"}]}',
            "a request of Google Analytics 4: the",
        ),
        (b'{"events": [{"user_id": "u", "item_id": "A"}]}', "a batch: each of its events must be a record of its own"),
        (b'{"type": "track", "event": "Order Completed", "properties": {"products": []}}', "a Segment event"),
        (b'{"userId": "u", "itemId": "i"}', "other names of fields (userId, itemId)"),
        (b'"{\\"user_id\\": 1}"', "it was encoded twice"),
        (b'[{"user_id": "u", "item_id": "i"}]', "a list of events"),
        (b'\x00\x00\x00\x00\x07{"user_id": "u", "item_id": "i"}', "schema registry (magic byte 0, schema id 7)"),
        (b"\x00\x00\x00\x01\x00\x04u1\x02A", "schema registry (magic byte 0, schema id 256)"),
        (b"\x1f\x8b\x08\x00\x00\x00", "gzip"),
        (b'\xef\xbb\xbf{"user_id": "u"}', "byte order mark"),
    ],
)
def test_the_reason_names_the_envelope_that_a_record_looks_like(value: bytes, hint: str) -> None:
    with pytest.raises(MalformedEvent) as caught:
        decode(value, record_timestamp_ms=NOON_MS)
    assert hint in caught.value.reason


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"__deleted": "true"}, "a row that was deleted"),
        ({"__deleted": True}, "a row that was deleted"),
        ({"__op": "d"}, "a row that was deleted"),
        ({"event_name": "add_to_cart"}, "event_name is 'add_to_cart', which is no purchase"),
        ({"event_type": "view"}, "event_type is 'view', which is no purchase"),
        ({"event": "Product Viewed"}, "event is 'Product Viewed', which is no purchase"),
    ],
)
def test_what_is_no_purchase_is_not_counted_as_one(fields: dict[str, object], reason: str) -> None:
    assert reason in refusal(**fields)


def test_no_nesting_of_a_field_that_says_more_is_another_error() -> None:
    deep = b"[" * 1000 + b"]" * 1000
    for name in (b"__deleted", b"__op", b"event_name", b"payload", b"data"):
        value = b'{"%s": %s, "user_id": "1", "item_id": "2", "timestamp": 1795348800000}' % (name, deep)
        assert decode(value).user_id == "1"
        with pytest.raises(MalformedEvent):
            decode(b'{"%s": %s}' % (name, deep), record_timestamp_ms=NOON_MS)


@pytest.mark.parametrize(
    "fields",
    [
        {"__deleted": "false"}, {"__op": "c"}, {"event_name": "purchase"}, {"event": "Order Completed"},
        {"event_type": 7}, {"event_type": "view", "type": "purchase"}, {"action": "bought"},
    ],
)  # fmt: skip
def test_other_fields_with_such_names_are_ignored(fields: dict[str, object]) -> None:
    assert decoded(**fields) == decoded()


@pytest.mark.parametrize(
    "timestamp",
    [
        "2026-11-22T10:11:12",
        "2026-11-22",
        "2026-11-22T10:11Z",
        "2026-11-22T10:11:12 Z",
        "2026-11-22T10:11:12+0530",
        "2026-11-22T10:11:12+05",
        "2026-11-22T10:11:12,5Z",
        "2026-11-22T10:11:12.Z",
        "20261122T101112Z",
        "2026-W47-7T10:11:12Z",
        "2026-02-29T00:00:00Z",
        "2026-11-31T00:00:00Z",
        "2026-13-01T00:00:00Z",
        "2026-11-22T25:00:00Z",
        "2026-11-22T10:60:00Z",
        "2026-11-22T10:11:61Z",
        "2026-11-22T10:11:12+24:00",
        "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+23:59",
        "1969-12-31T23:59:59Z",
        "9999-12-31T23:59:59-00:01",
        "2026-11-22T10:11:12Z\n",
        " 2026-11-22T10:11:12Z",
        "٢٠٢٦-11-22T10:11:12Z",
        "1795342272000",
        "",
        1_795_342_272_000.0,
        -1,
        LAST_MS + 1,
        10**17,
        True,
        [],
        {},
    ],
)
def test_other_timestamps_are_malformed(timestamp: object) -> None:
    assert refusal(timestamp=timestamp).startswith("timestamp: ")


@pytest.mark.parametrize("timestamp", [-1, LAST_MS + 1])
def test_a_senseless_timestamp_of_the_record_is_malformed(timestamp: int) -> None:
    with pytest.raises(MalformedEvent, match="timestamp"):
        decode(b'{"user_id": 1, "item_id": 2}', record_timestamp_ms=timestamp)


def test_a_record_may_have_64_kib_and_not_one_byte_more() -> None:
    start, end = b'{"user_id": 1, "item_id": 2, "timestamp": 1795348800000, "note": "', b'"}'
    padding = b"x" * (64 * 1024 - len(start) - len(end))
    assert MAX_RECORD_BYTES == 65_536 == len(start + padding + end)
    assert decode(start + padding + end).user_id == "1"
    with pytest.raises(MalformedEvent, match="65,537 bytes"):
        decode(start + padding + b"x" + end)


@pytest.mark.parametrize("value", [None, b"", b" ", b"null", b"[]", b'"text"', b"1", b"{", b'{"a": 1}{"b": 2}'])
def test_a_record_that_is_not_one_json_object_is_malformed(value: bytes | None) -> None:
    with pytest.raises(MalformedEvent):
        decode(value, record_timestamp_ms=1)


def test_a_malformed_event_carries_its_bytes_and_place_and_names_every_wrong_field() -> None:
    value = b'{"user_id": "", "item_id": "sku-9", "quantity": -1, "timestamp": 1795348800000}'
    with pytest.raises(MalformedEvent) as caught:
        decode(value, location="purchases[3] 17")
    assert caught.value.raw == value
    assert caught.value.location == "purchases[3] 17"
    assert str(caught.value) == f"purchases[3] 17: {caught.value.reason}"
    assert "user_id: " in caught.value.reason
    assert "quantity: " in caught.value.reason
    assert "\n" not in str(caught.value)


def test_unknown_fields_are_ignored() -> None:
    assert decoded(basket={"id": 1}, note=[1, 2], user="x") == decoded()


@pytest.mark.parametrize(
    ("quantity", "units"), [(1.0, 1_000_000), (0.1, 100_000), (2.5, 2_500_000), (1e6, 10**12), (1e-9, 1), (1e-300, 1)]
)
def test_units_are_millionths_and_never_zero(quantity: float, units: int) -> None:
    assert make_event(quantity=quantity).units == units
    assert make_event(quantity=quantity, type_=EventType.RETURN).units == -units


def test_an_event_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        make_event().user_id = "other"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"timestamp": "1969-12-31T23:59:59Z"}, "timestamp: must be a time from 1970-01-01 to 9999-12-31"),
        ({"user_id": ""}, "user_id: must not be empty"),
        ({"user_id": "u" * 257}, "user_id: must have at most 256 characters"),
        ({"event_id": "e" * 129}, "event_id: must have at most 128 characters"),
        ({"quantity": 0}, "quantity: must be more than 0"),
        ({"quantity": 1_000_001}, "quantity: must be 1,000,000 or less"),
        ({"quantity": "1"}, "quantity: must be a number"),
        ({"type": "sale"}, "type: must be purchase, return or forget"),
    ],
)
def test_a_broken_rule_is_said_in_plain_words(fields: dict[str, object], reason: str) -> None:
    assert refusal(**fields) == reason


def test_no_reason_has_the_words_of_a_library() -> None:
    for value in malformed_records(seed=7, count=3_000):
        with pytest.raises(MalformedEvent) as caught:
            decode(value, record_timestamp_ms=NOON_MS)
        for word in ("Input should", "String should", "Value error", "valid string", "validation"):
            assert word not in caught.value.reason


@pytest.mark.parametrize(("type_", "quantity", "is_read"), [
    ("return", 1_000, True), ("return", 1_000.5, False), ("return", 1e6, False), ("purchase", 1e6, True),
])  # fmt: skip
def test_one_return_hides_an_item_for_no_more_than_a_bound(type_: str, quantity: float, is_read: bool) -> None:
    value = json.dumps({"user_id": "u", "item_id": "i", "type": type_, "quantity": quantity}).encode()
    reading = EventReading(max_return=1_000)
    if is_read:
        assert decode(value, reading=reading, record_timestamp_ms=NOON_MS).quantity == quantity
        return
    with pytest.raises(
        MalformedEvent, match=r"quantity: must be 1,000 or less of a return; .*RECSYS_EVENTS__MAX_RETURN"
    ):
        decode(value, reading=reading, record_timestamp_ms=NOON_MS)


def test_the_bound_of_returns_is_a_setting() -> None:
    assert event_reading(EventsSettings()).max_return == 1_000
    assert event_reading(EventsSettings(max_return=50_000)).max_return == 50_000
