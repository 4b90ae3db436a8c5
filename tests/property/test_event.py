from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from recsys.data.epoch import DAY_MS, LAST_MS, OLDEST_MS, EpochUnit, fitting_units, iso_time, newest_ms
from recsys.data.event import Event, EventReading, EventType, decode
from recsys.errors import MalformedEvent
from tests.builders import NOON_MS, events, make_event
from tests.malformed import WAYS, malformed_records

FIELDS = ("event_id", "type", "user_id", "item_id", "quantity", "price", "timestamp", "unknown")
VALID = (
    b'{"event_id": "order-123:sku-9", "type": "purchase", "user_id": "42", "item_id": "sku-9", "quantity": 1, '
    b'"price": 3.5, "timestamp": "2026-11-22T10:11:12Z"}'
)
HOSTILE_TOKENS = (
    b"NaN",
    b"Infinity",
    b"-Infinity",
    b"1e400",
    b"-1e400",
    b"9" * 5000,
    b"-" + b"9" * 5000,
    b"18446744073709551616",
    b"0." + b"0" * 400 + b"1",
    b'"\\ud800"',
    b'"\\udc00\\ud800"',
    b'"\xed\xa0\x80"',
    b'"\xff"',
    b'"\\u0000"',
    b"[" * 20_000 + b"]" * 20_000,
    b'{"a":' * 9_000 + b"1" + b"}" * 9_000,
    b"true",
    b"null",
    b"{}",
    b"[]",
    b'""',
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(FIELDS) | st.text(), inner, max_size=8),
    max_leaves=12,
)


def event_or_none(value: bytes | None) -> Event | None:
    """Decode; any error but MalformedEvent fails the test."""
    try:
        return decode(value, record_timestamp_ms=NOON_MS, location="purchases[0] 7")
    except MalformedEvent as error:
        refused = error
    assert refused.raw == (value or b"")
    assert refused.location == "purchases[0] 7"
    assert str(refused).startswith("purchases[0] 7: ")
    return None


@given(st.binary(max_size=300))
@example(b"\xef\xbb\xbf{}")
@example(b"[" * 65_536)
@example(b'{"a":' * 13_000)
@settings(max_examples=200, deadline=None)
def test_arbitrary_bytes_are_an_event_or_malformed(value: bytes) -> None:
    event_or_none(value)


@given(json_values)
@settings(max_examples=200, deadline=None)
def test_arbitrary_json_is_an_event_or_malformed(value: object) -> None:
    event_or_none(json.dumps(value).encode())
    event_or_none(json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass"))


@given(st.dictionaries(st.sampled_from(FIELDS), json_values | st.sampled_from(["a", "purchase", "return", "forget"])))
@settings(max_examples=200, deadline=None)
def test_whatever_decodes_keeps_the_contract(fields: dict[str, object]) -> None:
    event = event_or_none(json.dumps(fields).encode())
    if event is None:
        return
    assert 1 <= len(event.user_id) <= 256
    assert (event.item_id is None) == (event.type is EventType.FORGET)
    assert 0 < event.quantity <= 1e6
    assert 0 <= event.timestamp <= LAST_MS
    assert event.price is None or 0 <= event.price < float("inf")
    assert event.event_id is None or 1 <= len(event.event_id) <= 128


@given(st.integers(0, len(VALID)), st.integers(0, len(VALID)), st.binary(max_size=4) | st.sampled_from(HOSTILE_TOKENS))
@settings(max_examples=200, deadline=None)
def test_a_mutated_event_is_an_event_or_malformed(start: int, length: int, inserted: bytes) -> None:
    event_or_none(VALID[:start] + inserted + VALID[start + length :])


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("token", HOSTILE_TOKENS, ids=lambda token: repr(token[:24]))
def test_a_hostile_value_in_any_field_is_an_event_or_malformed(field: str, token: bytes) -> None:
    fields = {"user_id": b'"42"', "item_id": b'"sku-9"', field: token}
    event_or_none(b"{" + b", ".join(b'"%s": %s' % (name.encode(), text) for name, text in fields.items()) + b"}")


@given(events(), st.booleans(), st.dictionaries(st.text(min_size=9), json_values, max_size=2))
@settings(max_examples=200, deadline=None)
def test_a_valid_event_decodes_to_itself(event: Event, ascii_only: bool, unknown: dict[str, object]) -> None:
    fields = {
        "user_id": event.user_id,
        "item_id": event.item_id,
        "type": event.type.value,
        "quantity": event.quantity,
        "price": event.price,
        "timestamp": iso_time(event.timestamp),
        "event_id": event.event_id,
    }
    extra = {name: value for name, value in unknown.items() if name not in fields and _is_plain_json(value, name)}
    for given_fields in (fields, {name: value for name, value in fields.items() if value is not None}):
        text = json.dumps({**given_fields, **extra}, ensure_ascii=ascii_only)
        assert decode(text.encode(), record_timestamp_ms=LAST_MS) == event


@pytest.mark.parametrize("seed", range(5))
def test_whatever_the_fuzzer_breaks_is_malformed_for_one_short_reason(seed: int) -> None:
    for value in malformed_records(seed, len(WAYS)):
        with pytest.raises(MalformedEvent) as caught:
            decode(value, record_timestamp_ms=NOON_MS, location="purchases[0] 7")
        assert 0 < len(caught.value.reason) < 300
        assert caught.value.reason.isprintable()


def _is_plain_json(value: object, name: str) -> bool:
    try:
        json.dumps({name: value}, allow_nan=False, ensure_ascii=False).encode()
    except (ValueError, UnicodeEncodeError):
        return False
    return not any(isinstance(inner, int | float) and abs(inner) > 1e300 for inner in _leaves(value))


def _leaves(value: object) -> list[object]:
    if isinstance(value, dict):
        return [leaf for inner in value.values() for leaf in _leaves(inner)]
    if isinstance(value, list):
        return [leaf for inner in value for leaf in _leaves(inner)]
    return [value]


@given(
    st.datetimes(datetime(1970, 1, 2), datetime(9999, 12, 30)),
    st.integers(-23 * 60 - 59, 23 * 60 + 59),
    st.integers(0, 6),
    st.sampled_from("Tt "),
)
@settings(max_examples=200, deadline=None)
def test_rfc_3339_times_are_read_to_the_millisecond(
    local: datetime, offset_minutes: int, digits: int, separator: str
) -> None:
    microseconds = local.microsecond // 10 ** (6 - digits) * 10 ** (6 - digits)
    moment = local.replace(microsecond=microseconds, tzinfo=timezone(timedelta(minutes=offset_minutes)))
    sign, (hours, minutes) = "-" if offset_minutes < 0 else "+", divmod(abs(offset_minutes), 60)
    fraction = f".{microseconds:06d}"[: digits + 1] if digits else ""
    text = f"{moment:%Y-%m-%d}{separator}{moment:%H:%M:%S}{fraction}{sign}{hours:02d}:{minutes:02d}"
    value = json.dumps({"user_id": 1, "item_id": 2, "timestamp": text}).encode()
    event = decode(value, record_timestamp_ms=LAST_MS)
    since_epoch_us = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    assert abs(event.timestamp * 1000 - since_epoch_us) < (1 if digits <= 3 else 1000)


@given(st.integers(-(2**63), 2**64 - 1), st.integers(-(2**63), 2**64 - 1), st.integers(-(2**63), 2**64 - 1))
@settings(max_examples=50, deadline=None)
def test_integer_ids_are_read_as_their_decimal_strings(user: int, item: int, event_id: int) -> None:
    event = decode(json.dumps({"user_id": user, "item_id": item, "event_id": event_id, "timestamp": NOON_MS}).encode())
    assert (event.user_id, event.item_id, event.event_id) == (str(user), str(item), str(event_id))


@given(st.floats(0.0, 1e6, exclude_min=True))
@settings(max_examples=200, deadline=None)
def test_units_are_whole_signed_millionths(quantity: float) -> None:
    bought = make_event(quantity=quantity).units
    assert bought >= 1
    assert abs(bought / 1e6 - quantity) <= 1e-6
    assert make_event(quantity=quantity, type_=EventType.RETURN).units == -bought


@given(st.integers(OLDEST_MS, NOON_MS + DAY_MS), st.sampled_from(EpochUnit), st.integers(0, 999_999))
@settings(max_examples=200, deadline=None)
def test_an_integer_is_the_same_time_in_every_unit(moment_ms: int, unit: EpochUnit, finer: int) -> None:
    written = {
        EpochUnit.SECONDS: moment_ms // 1000,
        EpochUnit.MILLISECONDS: moment_ms,
        EpochUnit.MICROSECONDS: moment_ms * 1000 + finer // 1000,
        EpochUnit.NANOSECONDS: moment_ms * 1_000_000 + finer,
    }[unit]
    event = decode(json.dumps({"user_id": 1, "item_id": 2, "timestamp": written}).encode(), record_timestamp_ms=NOON_MS)
    assert event.timestamp == (moment_ms // 1000 * 1000 if unit is EpochUnit.SECONDS else moment_ms)


@given(st.integers(-(2**63), 2**64 - 1))
@settings(max_examples=300, deadline=None)
def test_no_integer_fits_two_units(value: int) -> None:
    assert len(fitting_units(value, oldest_ms=OLDEST_MS, newest_ms=LAST_MS)) <= 1


@given(st.integers(0, LAST_MS), st.none() | st.integers(0, LAST_MS), st.booleans())
@settings(max_examples=300, deadline=None)
def test_no_event_is_later_than_a_day_after_its_record_however_its_time_is_written(
    moment_ms: int, sent_ms: int | None, as_text: bool
) -> None:
    written = iso_time(moment_ms) if as_text else moment_ms
    value = json.dumps({"user_id": 1, "item_id": 2, "timestamp": written}).encode()
    for unit in (None, EpochUnit.MILLISECONDS):
        try:
            event = decode(value, record_timestamp_ms=sent_ms, reading=EventReading(unit=unit))
        except MalformedEvent:
            continue
        assert event.timestamp <= newest_ms(sent_ms)


@given(st.integers(0, LAST_MS))
@settings(max_examples=200, deadline=None)
def test_a_time_written_as_text_is_read_as_it_was(moment_ms: int) -> None:
    text = json.dumps({"user_id": 1, "item_id": 2, "timestamp": iso_time(moment_ms)})
    assert decode(text.encode(), record_timestamp_ms=LAST_MS).timestamp == moment_ms
