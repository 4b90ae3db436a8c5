"""Mappings: what expressions find in records, and what is said of wrong ones."""

from __future__ import annotations

import json
import os
from typing import Any

import jmespath
import pytest
from confluent_kafka import TIMESTAMP_CREATE_TIME, Message
from hypothesis import given
from hypothesis import strategies as st

from recsys.data.event import Event, EventOfLine, EventReading, EventType
from recsys.data.expressions import Expression
from recsys.data.mapped_events import reading_with
from recsys.data.mapping import MOST_LINES, NO_USER, NO_USER_OF_RETURN, EventMapping
from recsys.data.mapping_file import presets
from recsys.errors import InputFileError, MalformedEvent
from recsys.kafka.decoder import MappedDecoder, PassedOver
from recsys.kafka.producer import OWN_HEADERS, encode
from recsys.kafka.readings import load_mapping
from tests.builders import NOON_MS, make_event

NOON = "2026-11-22T12:00:00Z"
ITEM = '\nitem_id="value.a"'
ORDERS = """
where = "value.status == 'paid'"
lines = "value.lines"
[fields]
user_id = "value.customer.id"
item_id = "line.sku"
quantity = "line.quantity"
price = "line.price"
timestamp = "value.at"
event_id = ["value.id", "number"]
"""


def mapping(text: str, **keys: str) -> EventMapping:
    """A mapping, with further keys at its top."""
    return EventMapping.parse("".join(f"{name} = {value}\n" for name, value in keys.items()) + text, name="my.toml")


def record(value: Any, **parts: Any) -> Message:
    raw = value if value is None or isinstance(value, bytes) else json.dumps(value).encode()
    return Message(
        topic="orders", partition=0, offset=5, value=raw, timestamp=(TIMESTAMP_CREATE_TIME, NOON_MS), **parts
    )


def order(*lines: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"id": 7, "status": "paid", "customer": {"id": 42}, "at": NOON, "lines": list(lines), **fields}


def line(sku: Any = "a", **fields: Any) -> dict[str, Any]:
    return {"sku": sku, "quantity": 1, **fields}


def events(text: str | EventMapping, value: Any, **parts: Any) -> list[Event]:
    found = text if isinstance(text, EventMapping) else mapping(text)
    return list(MappedDecoder(found, reading_with(found, EventReading())).events(record(value, **parts)))


def reason(text: str | EventMapping, value: Any) -> str:
    with pytest.raises(MalformedEvent) as caught:
        events(text, value)
    return caught.value.reason


def test_each_line_of_an_order_is_an_event_with_the_order_in_reach() -> None:
    found = events(ORDERS, order(line("a", price="9.99"), line("b", quantity="2.5")))
    assert found == [
        EventOfLine(user_id="42", item_id="a", quantity=1, price=9.99, timestamp=NOON_MS, event_id="7:1", line=1),
        EventOfLine(user_id="42", item_id="b", quantity=2.5, timestamp=NOON_MS, event_id="7:2", line=2),
    ]


def test_a_record_without_lines_is_one_event() -> None:
    text = '[fields]\nuser_id = "key"\nitem_id = ["value.shop", "value.sku"]\nevent_id = "headers.id"'
    found = events(text, {"shop": 3, "sku": "x"}, key=b"u", headers=[("id", b"e1"), ("other", b"\xff")])
    assert found == [Event(user_id="u", item_id="3:x", timestamp=NOON_MS, event_id="e1")]
    assert type(found[0]) is Event


def test_where_says_which_records_count_and_tombstones_are_none_of_them() -> None:
    decoder = MappedDecoder(mapping(ORDERS), EventReading())
    for value in (order(line(), status="open"), order(line()), None, {"other": 1}, [1]):
        decoder.events(record(value))
    assert decoder.passed_over == PassedOver(records=4)
    assert reason('[fields]\nuser_id = "value.u"\nitem_id = "value.i"', None) == "the record is empty"


@pytest.mark.parametrize("value", [order(), order(lines=None), {"status": "paid", "customer": {"id": 1}, "at": NOON}])
def test_an_order_without_lines_holds_nothing(value: Any) -> None:
    assert events(ORDERS, value) == []


BASKETS = """
orders = "value.orders"
lines = "order.lines"
[fields]
user_id = "value.customer"
item_id = "line.sku"
timestamp = "order.at || value.at"
event_id = ["order.id", "number"]
"""


def basket(*orders: Any, **fields: Any) -> dict[str, Any]:
    return {"customer": "c", "at": NOON, "orders": list(orders), **fields}


def test_a_record_may_hold_several_orders_each_with_lines_of_its_own() -> None:
    later = "2026-11-22T12:00:01Z"
    orders = (order(line("a"), line("b"), id=1, at=None), order(id=2), order(line("c"), id=3, at=later))
    assert events(BASKETS, basket(*orders)) == [
        EventOfLine(user_id="c", item_id="a", timestamp=NOON_MS, event_id="1:1", line=1),
        EventOfLine(user_id="c", item_id="b", timestamp=NOON_MS, event_id="1:2", line=2),
        EventOfLine(user_id="c", item_id="c", timestamp=NOON_MS + 1_000, event_id="3:1", line=3),
    ]
    for value in (basket(), basket(order()), {"customer": "c", "at": NOON}):
        decoder = MappedDecoder(mapping(BASKETS), EventReading())
        assert list(decoder.events(record(value))) == []
        assert decoder.passed_over == PassedOver(records=1)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (basket(orders="a"), "orders: value.orders must be a list, not text"),
        (basket(order(lines="a")), "lines: order.lines must be a list, not text"),
        (basket(order(line("a")), order(line("b"), line(None))), "line 3: item_id is required"),
        (basket(order(line("a"), at="2026-11-22T12:00")), "has no zone: set timezone"),
        (basket(*[order(*[line()] * 2_000)] * 3), "lines: the record has 6,000 lines; the limit is 5,000"),
    ],
)
def test_what_is_wrong_with_one_of_several_orders_is_named(value: Any, said: str) -> None:
    assert said in reason(BASKETS, value)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (order(line(None)), "line 1: item_id is required for a purchase"),
        (order(line(), line(quantity=-1)), "line 2: quantity: must be more than 0"),
        (order(line(), line(quantity="two"), line({})), "line 2: quantity: must be a number; line 3: item_id: must be"),
        (order(*[line(None)] * 9), "; and 6 more lines"),
        (order(line(), customer=None), "line 1: user_id: is required"),
        (order(line(), at="22.11.2026"), "line 1: timestamp: must be RFC 3339"),
        (order(line(), at="22.11.2026"), "or an integer of time since 1970, not '22.11.2026'"),
        (order(line(), at="x\x1b[2J" * 99), "since 1970, not 'x\\x1b[2Jx"),
        (order(line(), at=[1]), "since 1970, not '[1]'"),
        (order(line(), at=20261122), "send RFC 3339, or set timestamp_unit in the mapping"),
        (order(line(), at="2026-11-22 12:00:00"), "has no zone: set timezone in the mapping"),
        (order(line(), at="2026-12-24T00:00:00Z"), "is in the future"),
        (order(line(), id={"a": 1}), "line 1: event_id: value.id must be a string or an integer, not an object"),
        (order(lines="a, b"), "lines: value.lines must be a list, not text"),
        (order(lines=[line()] * (MOST_LINES + 1)), f"lines: the record has {MOST_LINES + 1:,} lines; the limit is"),
        (b"{", "not JSON: "),
        (b"\x00\x00\x00\x00\x07abc", "it looks like the wire format of a schema registry"),
    ],
)  # fmt: skip
def test_the_reason_names_line_and_field(value: Any, said: str) -> None:
    assert said in reason(ORDERS, value)


def test_a_broken_line_keeps_the_others_waiting_unless_the_mapping_says_otherwise() -> None:
    value = order(line("a"), line(None), line("c"))
    for text, counted in ((ORDERS, []), (mapping(ORDERS, lines_that_are_good='"count"'), ["a", "c"])):
        with pytest.raises(MalformedEvent, match="line 2: item_id") as caught:
            events(text, value)
        assert [event.item_id for event in caught.value.events] == counted


def test_a_forget_is_a_record_of_its_own() -> None:
    text = ORDERS + 'type = "line.type"\n'
    assert [event.type for event in events(text, order(line(None, type="forget")))] == [EventType.FORGET]
    assert reason(text, order(line(), line(None, type="forget"))) == "type: forget must be the only event of its record"


@pytest.mark.parametrize(
    ("keys", "fields", "expected"),
    [
        ({"negative_quantity": '"return"'}, line(quantity=-2), [("return", 2.0)]),
        ({"negative_quantity": '"return"'}, line(quantity="-0.5"), [("return", 0.5)]),
        ({"zero_quantity": '"skip"'}, line(quantity=0), []),
        ({"zero_quantity": '"skip"'}, line(quantity="0.00"), []),
        ({"zero_quantity": '"skip"'}, line(quantity=None), [("purchase", 1.0)]),
        ({"missing_item": '"skip"'}, line(""), []),
        ({"missing_item": '"skip"'}, line(None), []),
    ],
)
def test_rules_about_quantities_and_items(keys: dict[str, str], fields: Any, expected: list[Any]) -> None:
    found = events(mapping(ORDERS, **keys), order(fields))
    assert [(event.type.value, event.quantity) for event in found] == expected


@pytest.mark.parametrize("customer", [None, {}, {"id": None}, {"id": ""}])
def test_orders_of_nobody_are_passed_over_and_counted_if_the_mapping_says_so(customer: Any) -> None:
    decoder = MappedDecoder(mapping(ORDERS, missing_user='"skip"'), EventReading())
    assert decoder.events(record(order(line(), line(), customer=customer))) == []
    assert decoder.passed_over == PassedOver(no_user=2)
    guests = MappedDecoder(mapping(ORDERS), EventReading(no_user=frozenset({"42"})))
    assert guests.events(record(order(line()))) == []
    assert guests.passed_over == PassedOver(no_user=1)


def test_returns_of_nobody_are_told_from_purchases_of_nobody() -> None:
    text = ORDERS + 'type = "line.type"\n[types]\nrefund = "return"\nsale = "purchase"\n'
    lines = order(line(type="refund"), line(type="sale"), line(quantity="-1"), customer=None)
    decoder = MappedDecoder(
        mapping(text, missing_user='"skip"', negative_quantity='"return"'), EventReading(no_user=frozenset({"42"}))
    )
    for customer in (None, {"id": 42}):
        assert decoder.events(record(lines | {"customer": customer})) == []
        assert [one.why for one in decoder.left_out] == [NO_USER_OF_RETURN, NO_USER, NO_USER_OF_RETURN]
    assert decoder.passed_over == PassedOver(no_user=6)


def test_words_for_types() -> None:
    text = ORDERS + 'type = "value.kind"\n[types]\nrefund = "return"\nsale = "purchase"\nquote = "skip"\n'
    kinds = {
        kind: [event.type for event in events(text, order(line(), kind=kind))] for kind in ("refund", "sale", "quote")
    }
    assert kinds == {"refund": [EventType.RETURN], "sale": [EventType.PURCHASE], "quote": []}
    assert events(text, order(line()))[0].type is EventType.PURCHASE
    for word in ("purchase", "return", "forget"):
        assert f"type: {word!r} is none of refund, sale, quote" in reason(text, order(line(), kind=word))
    assert "line 1: type: 'chargeback' is none of refund, sale, quote" in reason(text, order(line(), kind="chargeback"))


@pytest.mark.parametrize(
    ("written", "keys"),
    [
        ("2026-11-22T13:00:00+01:00", {}),
        ("2026-11-22 13:00:00", {"timezone": '"Europe/Berlin"'}),
        ("2026-11-22T12:00", {"timezone": '"utc"'}),
        (NOON_MS, {}),
        (NOON_MS // 1000, {}),
        (str(NOON_MS * 1000), {}),
        (f" {NOON_MS} ", {}),
    ],
)
def test_times_in_all_forms(written: Any, keys: dict[str, str]) -> None:
    assert events(mapping(ORDERS, **keys), order(line(), at=written))[0].timestamp == NOON_MS


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x", "my.toml: is no TOML: "),
        (f'[fields]\nuser_id="customer.id"{ITEM}', "fields.user_id: customer.id: begins with customer, which"),
        (f'[fields]\nuser_id="customer.id"{ITEM}', "did you mean value.customer.id?"),
        ('[fields]\nuser_id="value.id"\nitem_id="line.a"', "there is a line only where lines names the lines"),
        (f'where="line.a"\n[fields]\nuser_id="value.id"{ITEM}', "where: line.a: there is a line only where"),
        (f'orders="value.o"\n[fields]\nuser_id="value.id"{ITEM}', "my.toml: orders: needs lines, which says where"),
        (f'lines="order.l"\n[fields]\nuser_id="value.id"{ITEM}', "there is an order only where orders names the"),
        (f'lines="line.l"\n[fields]\nuser_id="value.id"{ITEM}', "lines: line.l: there is no line yet, only cloudevent"),
        (f'foo=1\n[fields]\nuser_id="value.id"{ITEM}', "my.toml: foo: is no key of a mapping"),
        (f'[fields]\nuser_id="value..id"{ITEM}', "fields.user_id: 'value..id' is no JMESPath expression"),
        ('[fields]\nuser_id="value.id"', "fields.item_id: is required"),
        (f'[fields]\nuser_id=5{ITEM}', "fields.user_id: must be a JMESPath expression in quotation marks"),
        (f'[fields]\nuser_id="@"{ITEM}', "@ is not used: begin with one of"),
        (f'[fields]\nuser_id="not_null(value.a, b)"{ITEM}', "begins with b"),
        (f'[fields]\nuser_id="foo(value.a)"{ITEM}', "fields.user_id: foo() is no function of JMESPath"),
        (f'[fields]\nuser_id="value.a[?foo(x)]"{ITEM}', "fields.user_id: foo() is no function of JMESPath"),
        (f'[fields]\nuser_id="sum(value.a, value.b)"{ITEM}', "fields.user_id: sum() takes 1 arguments, not 2"),
        (f'[fields]\nuser_id="not_null()"{ITEM}', "fields.user_id: not_null() takes 1 or more arguments, not 0"),
        (f'[fields]\nuser_id="{"(" * 3000}"{ITEM}', "is no JMESPath expression: it is nested too deeply"),
        (f'[fields]\nuser_id="value{" || value" * 3000}"{ITEM}', "is no JMESPath expression: it is nested too deeply"),
        (f"x={'[' * 3000}", "my.toml: is no TOML: it is nested too deeply"),
        (f'timezone="Mars"\n[fields]\nuser_id="value.id"{ITEM}', "timezone: 'Mars' is no time zone"),
        (f'lines="value"\nlines_that_are_good="count"\n[fields]\nuser_id="value.id"{ITEM}', "needs fields.event_id"),
        (f"""where='value.state == "paid"'\n[fields]\nuser_id="value.id"{ITEM}""", "text needs single quotes: 'paid'"),
        (f"""where='value.a[?b!="in x"]'\n[fields]\nuser_id="value.id"{ITEM}""", "text needs single quotes: 'in x'"),
        (f'types={{refund="return"}}\n[fields]\nuser_id="value.a"{ITEM}', "types: needs fields.type, which says where"),
        (f'zero_quantity="x"\n[fields]\nuser_id="value.a"{ITEM}', "zero_quantity: must be 'skip' or 'malformed', not"),
        ('fields="value.a"', "my.toml: fields: must be a table, as in [fields]"),
        (f'types=["x"]\n[fields]\nuser_id="value.a"{ITEM}', "my.toml: types: must be a table, as in [types]"),
        (f'timezone=1\n[fields]\nuser_id="value.a"{ITEM}', "timezone: must be text in quotation marks"),
        (f'[fields]\nuser_id=[]{ITEM}', "fields.user_id: must name at least one expression"),
        (f'[fields]\nuser_id={{a=1}}{ITEM}', "fields.user_id: must be a JMESPath expression in quotation marks"),
        (f'types={{refund="x"}}\n[fields]\nuser_id="value.a"{ITEM}', "types.refund: "),
    ],
)  # fmt: skip
def test_a_wrong_mapping_is_named_with_its_key(text: str, said: str) -> None:
    with pytest.raises(InputFileError) as caught:
        EventMapping.parse(text, name="my.toml")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert " should " not in str(caught.value), "these are words of a library"
    assert len(str(caught.value)) < 300


def test_a_mapping_is_a_preset_or_a_file(tmp_path: Any) -> None:
    (tmp_path / "own.toml").write_text(ORDERS)
    assert load_mapping(str(tmp_path / "own.toml")).described == mapping(ORDERS).described
    (tmp_path / "marked.toml").write_text(ORDERS, encoding="utf-8-sig")
    assert load_mapping(str(tmp_path / "marked.toml")).described == mapping(ORDERS).described
    with pytest.raises(InputFileError, match=r"shopify: is neither a file nor one of contract, debezium"):
        load_mapping("shopify")
    with pytest.raises(InputFileError, match="cannot be read: this is a folder"):
        load_mapping(str(tmp_path))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputFileError, match="cannot be read: this is a pipe"):
        load_mapping(str(tmp_path / "pipe"))
    (tmp_path / "large.toml").write_text("#" * 300_000)
    with pytest.raises(InputFileError, match="it is no mapping"):
        load_mapping(str(tmp_path / "large.toml"))


def test_what_a_mapping_does_is_described_and_can_be_made_again() -> None:
    same = "# a comment\n" + ORDERS.replace('price = "line.price"\n', "") + 'price = "line.price"\n'
    assert mapping(same).described == mapping(ORDERS).described
    assert mapping(ORDERS, zero_quantity='"skip"').described != mapping(ORDERS).described
    for name in presets():
        described = json.loads(json.dumps(load_mapping(name).described))
        assert EventMapping.of(described).described == described


def test_an_expression_that_cannot_be_evaluated_is_said() -> None:
    text = ORDERS.replace('"line.quantity"', '"sum(line.sku)"')
    assert "line 1: quantity: sum(line.sku): " in reason(text, order(line()))


def test_names_in_what_a_function_goes_through_are_those_of_its_elements() -> None:
    text = ORDERS.replace('"value.lines"', '"sort_by(value.lines, &sku)"')
    assert [event.item_id for event in events(text, order(line("b"), line("a")))] == ["a", "b"]


def test_a_record_that_is_too_deep_for_an_expression_is_malformed() -> None:
    deep = b"[" * 1_000 + b"]" * 1_000
    text = ORDERS.replace('"value.customer.id"', '"to_string(value.customer.id)"')
    value = b'{"id": 7, "status": "paid", "lines": [{"sku": "a"}], "customer": {"id": %b}}' % deep
    assert "user_id: to_string(value.customer.id): " in reason(text, value)


def test_what_cannot_be_evaluated_of_the_record_is_said_once() -> None:
    """Once for each line it would take as long as the square of the lines."""
    text = ORDERS.replace('["value.id", "number"]', """["join(':', value.tags)", "number"]""")
    said = reason(text, order(*[line() for _ in range(3)], tags=[1, 2]))
    assert said.startswith("event_id: join(':', value.tags): ")
    assert "more lines" not in said


def test_of_a_record_in_another_form_the_form_is_named() -> None:
    text = '[fields]\nuser_id = "value.customer.id"\nitem_id = "value.sku"\ntimestamp = "value.at"\n'
    nothing = "the mapping finds no user_id and no item_id"
    assert reason(text, {"op": "c", "after": {"sku": "a"}}).startswith(f"{nothing}; it looks like a Debezium envelope")
    assert reason(text, {"payload": {"sku": "a"}}).startswith(f"{nothing}; it looks like an envelope: the event may be")
    assert reason(text, {"a": 1}) == nothing
    assert reason(text, {"sku": "a"}) == "user_id: is required"
    forget = text + 'type = "value.type"\n'
    assert reason(forget, {"type": "forget", "a": 1}) == "user_id: is required"
    assert reason('lines = "value.l"\n[fields]\nuser_id = "line.u"\nitem_id = "line.i"', {"l": [{"sku": 1}]}) == (
        f"line 1: {nothing}"
    )


@pytest.mark.parametrize(
    ("expression", "needs"),
    [
        ("value.a || cloudevent.b", set()),
        ("not_null(value.a, key)", set()),
        ("(value.payload || value).after || headers.x", set()),
        ("value.a == 'x' && key", {"value", "key"}),
        ("key || timestamp == `1` || key", set()),
        ("key == 'a' || key == 'b'", {"key"}),
        ("sort_by(value.lines, &sku)", {"value"}),
        ("value.lines[?a || b].c", {"value"}),
    ],
)
def test_what_an_expression_needs_is_what_it_looks_at_in_any_case(expression: str, needs: set[str]) -> None:
    assert Expression.compile(expression).needs == needs


def test_a_reason_is_short_however_long_what_it_quotes() -> None:
    text = ORDERS + 'type = "value.kind"\n[types]\nsale = "purchase"\n'
    assert len(reason(text, order(line(), kind="\ue000" * 100_000))) < 600


@given(st.lists(st.lists(st.text(alphabet="a:%3A25", min_size=1), min_size=2, max_size=2), min_size=2, max_size=2))
def test_ids_that_are_joined_never_meet(parts: list[list[str]]) -> None:
    text = ORDERS.replace('["value.id", "number"]', '["value.id", "line.no"]')
    one, other = (events(text, order(line(no=no), id=id_))[0].event_id for id_, no in parts)
    assert (one == other) is (parts[0] == parts[1])


def test_an_id_with_an_empty_part_is_none() -> None:
    assert [event.event_id for event in events(ORDERS, order(line(), id=""))] == [None]


@pytest.mark.parametrize("written", ["9" * 400, "9" * 400 + ".0", "1e5", "-"])
def test_a_price_that_is_no_number_is_left_out(written: str) -> None:
    assert events(ORDERS, order(line(price=written)))[0].price is None
    assert "quantity: must be a number" in reason(ORDERS, order(line(quantity="9" * 5000)))


def test_events_of_our_own_programs_are_read_by_the_contract() -> None:
    """A purchase or a wish to be forgotten that came over HTTP stands between a shop's own records."""
    decoder = MappedDecoder(mapping(ORDERS), EventReading())
    for event in (make_event("u", "a"), make_event("u", None, type_=EventType.FORGET)):
        assert list(decoder.events(record(encode(event), headers=OWN_HEADERS))) == [event]
        assert list(decoder.events(record(encode(event)))) == []
    with pytest.raises(MalformedEvent, match="user_id"):
        decoder.events(record({"item_id": "a"}, headers=OWN_HEADERS))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from(["", "x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
STEPS = st.lists(st.sampled_from([".a", ".b", "[0]", "[-1]", "[1]"]), max_size=3).map("".join)
PATHS = st.builds(lambda steps: f"value{steps}", STEPS)
LITERALS = st.sampled_from(["'x'", "''", "`true`", "`false`", "`null`", "`1`", "`0`", "`[]`", "`{}`", "`[true]`"])


def grown(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Expressions made of shorter ones."""
    of_two = st.builds(
        lambda a, word, b, steps: f"({a} {word} {b}){steps}",
        inner,
        st.sampled_from(["||", "&&", "==", "!="]),
        inner,
        STEPS,
    )
    return of_two | st.builds(lambda a: f"!({a})", inner)


EXPRESSIONS = st.recursive(PATHS | LITERALS, grown, max_leaves=5)


@given(text=EXPRESSIONS, value=JSON)
def test_paths_find_what_jmespath_finds(text: str, value: Any) -> None:
    scope = {"value": value}
    assert Expression.compile(text).evaluate(scope) == jmespath.search(text, scope)
