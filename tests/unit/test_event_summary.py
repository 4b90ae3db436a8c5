"""What records come to, and what looks wrong with it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pytest

from recsys.data.event import Event, EventOfLine, EventType
from recsys.data.mapping import NO_USER, NO_USER_OF_RETURN, EventMapping, LeftOut
from recsys.data.mapping_file import CONTRACT, preset
from recsys.files.batches import NO_CUSTOMER, NO_CUSTOMER_OF_RETURN, Batch, ReadRow, Reject
from recsys.files.remedies import TOPIC, Remedies, of_columns, of_mapping
from recsys.files.row import Row
from recsys.operations.distinct import DistinctCounter
from recsys.operations.event_summary import EventSummary
from tests.builders import NOON_MS, make_event, make_forget, make_return

DAY_MS = 86_400_000


def summary_of(records: Iterable[Sequence[Event]]) -> EventSummary:
    summary = EventSummary(now_ms=NOON_MS)
    for number, events in enumerate(records, start=1):
        summary.note_record(events, (), None, place=f"line {number}")
    return summary


def of_many_users(count: int, **fields: Any) -> list[list[Event]]:
    return [
        [make_event(f"u{number % 100}", f"i{number % 7}", quantity=2, event_id=f"e{number}", **fields)]
        for number in range(count)
    ]


def of_one_item(count: int) -> list[list[Event]]:
    """A thousand events, so many of which are for one item."""
    items = ["line.sku"] * count + [f"i{number % 7}" for number in range(1_000 - count)]
    return [[make_event(f"u{number % 100}", item, quantity=2)] for number, item in enumerate(items)]


def without_quantities() -> list[list[Event]]:
    return [[make_event(f"u{number % 100}", f"i{number % 7}")] for number in range(1_000)]


def test_what_is_distinct_is_counted_exactly_and_then_nearly() -> None:
    exact, bounded = DistinctCounter(), DistinctCounter(most_held=1_000)
    for number in range(100_000):
        for counter in (exact, bounded):
            counter.note(number)
            if number % 4 == 0:
                counter.note(number)
    assert (exact.is_exact, exact.distinct, exact.repeats) == (True, 100_000, 25_000)
    assert not bounded.is_exact
    assert bounded.distinct == pytest.approx(100_000, rel=0.15)
    assert bounded.repeats is None, "a few that come often, held or not, would stand for all"
    assert len(bounded._held) <= 1_000


def test_numbers_types_and_times() -> None:
    found = summary_of(
        [
            [make_event("u", "a", 2, event_id="1"), make_event("u", "b", timestamp=NOON_MS - DAY_MS, event_id="2")],
            [make_event("u", "a", 2, event_id="1")],
            [make_return("v", "a"), make_return("v", "a")],
            [make_forget("w", timestamp=0)],
            [],
        ]
    ).as_json()
    assert found == {
        "records": 5,
        "events": {"purchase": 3, "return": 2, "forget": 1},
        "users": 3,
        "items": 2,
        "repeated": 1,
        "repeated_too_late": 0,
        "unread_prices": 0,
        "alike": 1,
        "approximate": [],
        "first": "2026-11-21T12:00:00Z",
        "last": "2026-11-22T12:00:00Z",
        "malformed": [],
        "passed_over": [],
        "suspicions": [],
    }


def test_reasons_that_differ_in_values_alone_are_one() -> None:
    summary = EventSummary(now_ms=NOON_MS)
    for number in range(3):
        summary.note_record(
            (), (), f"line {number}: quantity: '{number}' is none; line 9: user_id: x", place=f"{number}"
        )
    summary.note_record((), (LeftOut(1, NO_USER), LeftOut(2, NO_USER)), "item_id: is required", place="4")
    found = summary.as_json()
    assert found["malformed"] == [
        {"reason": "quantity: '0' is none", "count": 3, "share": 0.75, "first": "0"},
        {"reason": "item_id: is required", "count": 1, "share": 0.25, "first": "4"},
    ]
    assert found["passed_over"] == [{"reason": NO_USER, "count": 2}]


def test_reasons_take_bounded_memory() -> None:
    summary = EventSummary(now_ms=NOON_MS)
    for number in range(2_000):
        summary.note_record((), (), "x" * number, place="")
    assert len(summary.malformed.most_common()) <= 1_001
    assert summary.malformed.total == 2_000


@pytest.mark.parametrize(
    ("records", "said"),
    [
        ([[]], "nothing becomes an event"),
        ([[make_event("17850.0", "a")], [make_event("u", "a")]], "1 user id like '17850.0': a program took ids"),
        ([[make_event("u", "1.23E+05")], [make_event("u", "1,5e+3")]], "2 item ids like '1.23E+05'"),
        ([[make_event(timestamp=5_000)]], "1 time in 1970"),
        ([[make_event(timestamp=NOON_MS + 3_600_000)]], "1 time ahead of now"),
        ([[make_event("u", "a", event_id="1"), make_event("u", "b", event_id="1")]], "of one event_id"),
        ([*of_many_users(940), *[[make_event("shop", quantity=2)]] * 60], "user 'shop' has 6% of the events"),
        (of_one_item(501), "item 'line.sku' has 50% of the events: do senders give the items' own ids?"),
        (of_one_item(1_000), "item 'line.sku' has 100% of the events"),
        (without_quantities(), "all quantities are 1: do senders give"),
    ],
)  # fmt: skip
def test_what_is_suspicious(records: list[list[Event]], said: str) -> None:
    (found,) = summary_of(records).suspicions()
    assert said in found


@pytest.mark.parametrize(
    "records",
    [
        [],
        of_many_users(1_000),
        of_many_users(1_000, timestamp=NOON_MS + 60_000),
        [[make_event(f"u{number % 100}")] for number in range(999)],
        of_one_item(500),
        of_one_item(1_000)[:999],
        [*of_many_users(960), *[[make_event("shop", quantity=2)]] * 40],
        [[make_event("12E45", "3.5"), make_event("v1.0", "1.0a")]],
        [[make_event("u", "a", event_id="1"), make_event("v", "b", event_id="1"), make_event("u", "c")]],
        [[make_forget(timestamp=0)]],
    ],
)
def test_what_is_not_suspicious(records: list[list[Event]]) -> None:
    assert summary_of(records).suspicions() == []


def test_more_than_one_broken_record_in_a_hundred_is_suspicious() -> None:
    summary = summary_of(of_many_users(99))
    summary.note_record((), (), "item_id: is required", place="100")
    assert summary.suspicions() == []
    summary.note_record((), (), "item_id: is required", place="101")
    assert summary.suspicions() == ["2.0% break a rule, more than one in a hundred"]


def test_rows_of_a_file() -> None:
    summary = EventSummary(now_ms=NOON_MS)
    events = [(1, make_event("17850.0", "a", event_id="1")), (2, make_event("u", "a", event_id="1"))]
    batch = Batch(1, 0)
    for number in range(1, 6):
        row = Row(number, f"row {number}", ())
        reject = Reject(3, "a: b.csv row 3", "quantity: must be more than 0", ()) if number == 3 else None
        left_out = ((None, NO_CUSTOMER),) if number > 3 else ()
        batch.add(ReadRow(row, events[number - 1 : number], left_out, reject))
    summary.note_batch(batch)
    found = summary.as_json()
    assert (found["records"], found["events"][EventType.PURCHASE], found["repeated"]) == (5, 2, 0)
    assert found["malformed"] == [
        {"reason": "quantity: must be more than 0", "count": 1, "share": 0.2, "first": "a: b.csv row 3"}
    ]
    assert found["passed_over"] == [{"reason": "it has no customer", "count": 2}]
    assert summary.passed_over.most_common()[0].place == "row 4"
    assert any("17850.0" in line for line in found["suspicions"])


def test_lines_of_one_row_that_share_an_id_are_named() -> None:
    summary = EventSummary(now_ms=NOON_MS)
    batch = Batch(1, 0)
    for order in range(3):
        lines = [make_event("u", f"i{n}", event_id=f"o{order}" if order else f"o0:{n}") for n in range(2)]
        placed = [(2 * order + n + 1, EventOfLine(**event.model_dump(), line=n + 1)) for n, event in enumerate(lines)]
        batch.add(ReadRow(Row(order + 1, f"line {order + 1}", ()), list(placed), lines=2))
    summary.note_batch(batch)
    assert [text for text in summary.suspicions() if "event_id" in text] == [
        "2 records with several lines of one event_id, of which one alone counts: let event_id name the line as well"
    ]


@pytest.mark.parametrize(
    ("records", "is_suspicious"),
    [
        ([[make_event(quantity=2)]], True),
        ([[make_event(quantity=2)], [make_return("v", quantity=2)]], False),
        ([], False),
    ],
)
def test_returns_of_which_none_has_a_user_are_suspicious(records: list[list[Event]], is_suspicious: bool) -> None:
    said = "and none has a user, as purchases have: nothing is taken back; whoever sends returns must add the customer"
    of_topic, of_files = summary_of(records), summary_of(records)
    of_topic.note_record((), (LeftOut(1, NO_USER_OF_RETURN), LeftOut(2, NO_USER)), None, place="9")
    batch = Batch(1, 0)
    batch.add(ReadRow(Row(1, "row 1", ()), left_out=((None, NO_CUSTOMER_OF_RETURN),)))
    of_files.note_batch(batch)
    for found in (of_topic, of_files):
        about = [line for line in found.suspicions() if "none has a user" in line]
        assert about == ([f"1 return {said}"] if is_suspicious else [])


def without_quantity(count: int = 1_000) -> list[list[Event]]:
    return [[Event(user_id=f"u{number % 100}", item_id=f"i{number % 7}", timestamp=NOON_MS)] for number in range(count)]


NO_QUANTITY = EventMapping.parse('fields = {user_id = "value.u", item_id = "value.i"}', name="m").described
WITH_QUANTITY = {"fields": {**NO_QUANTITY["fields"], "quantity": "value.n"}}
CONTRACT_MAPPING = EventMapping.parse(preset(CONTRACT), name=CONTRACT).described


@pytest.mark.parametrize(
    ("remedies", "suspicions"),
    [
        (TOPIC, []),
        (of_columns(looks_for_quantity=False), []),
        (of_mapping(NO_QUANTITY, in_files=True), []),
        (of_mapping(CONTRACT_MAPPING, in_files=True), []),
        (of_columns(looks_for_quantity=True), ["all quantities are 1: is --quantity-column right?"]),
        (of_mapping(WITH_QUANTITY, in_files=False), ["all quantities are 1: is quantity of the mapping right?"]),
    ],
)
def test_where_nothing_says_what_quantities_are_that_is_a_note(remedies: Remedies, suspicions: list[str]) -> None:
    summary = EventSummary(now_ms=NOON_MS, remedies=remedies)
    for number, events in enumerate(without_quantity(), start=1):
        summary.note_record(events, (), None, place=f"line {number}")
    assert summary.suspicions() == suspicions
    assert summary.notes() == ([] if suspicions else ["all quantities are 1: nothing says what they are"])


def test_remedies_are_those_of_where_events_were_read() -> None:
    records = [*of_many_users(880), *[[make_event("shop", quantity=2, timestamp=5_000)]] * 120]
    records.append([make_event("u", quantity=2, timestamp=NOON_MS + DAY_MS // 2)])
    records += [[make_event(f"u{number % 100}", "line.sku", quantity=2)] for number in range(1_100)]
    said = {}
    for name, remedies in (
        ("topic", TOPIC),
        ("columns", of_columns(looks_for_quantity=True)),
        ("mapping", of_mapping(WITH_QUANTITY, in_files=False)),
        ("mapping of files", of_mapping(WITH_QUANTITY, in_files=True)),
    ):
        summary = EventSummary(now_ms=NOON_MS, remedies=remedies)
        for number, events in enumerate(records, start=1):
            summary.note_record(events, (), None, place=f"line {number}")
        said[name] = [line.rpartition("; if this is no customer, ")[2] for line in summary.suspicions()]
    assert said == {
        "topic": [
            "name it in RECSYS_EVENTS__NO_USER",
            "item 'line.sku' has 52% of the events: do senders give the items' own ids?",
            "120 times in 1970: is RECSYS_EVENTS__TIMESTAMP_UNIT right?",
            "1 time ahead of now: are the senders' clocks and zones right?",
        ],
        "columns": [
            "leave it out with --no-user 'shop'",
            "item 'line.sku' has 52% of the events: is --item-id-column right?",
            "120 times in 1970: are --timestamp-column, --timestamp-unit and --timestamp-format right?",
            "1 time ahead of now: is --timezone right?",
        ],
        "mapping": [
            "name it in RECSYS_EVENTS__NO_USER",
            "item 'line.sku' has 52% of the events: is item_id of the mapping right?",
            "120 times in 1970: is timestamp_unit of the mapping right?",
            "1 time ahead of now: is timezone of the mapping right?",
        ],
        "mapping of files": [
            "leave it out with --no-user 'shop'",
            "item 'line.sku' has 52% of the events: is item_id of the mapping right?",
            "120 times in 1970: is timestamp_unit of the mapping right?",
            "1 time ahead of now: is timezone of the mapping right?",
        ],
    }
