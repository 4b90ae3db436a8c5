"""Records with several lines: each line counts once, and those of one record stay together."""

from __future__ import annotations

import itertools
import uuid
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from recsys.data.event import Event, EventOfLine
from recsys.data.history import HistoryReplay
from recsys.operations.event_summary import BYTES_OF_AN_ID
from recsys.operations.repeated_ids import RepeatedIds
from recsys.redis import PlacedEvent, Store
from recsys.settings.sections import HistorySettings
from tests.builders import make_event
from tests.integration.test_users import whole_entries
from tests.planted import owned_by
from tests.unit.test_presets import LARGE, SHOPIFY_ORDER, SHOPIFY_REFUND
from tests.unit.test_presets import events as events_of

SIZES = (1, 2, 256, 257, 1_001, 2_000)


@pytest.fixture
def store(store: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store with the windows that are the default."""
    monkeypatch.setattr(store.users, "_history", HistorySettings())
    return store


def of_line(line: int, event: Event) -> EventOfLine:
    return EventOfLine(**event.model_dump(), line=line)


def order(
    offset: int, lines: int, *, ids: str | None = None, user: str = "u", source: str = "t:0", first: int = 1
) -> list[PlacedEvent]:
    """An order whose line n is for the item n, with ids that begin so, or without any."""
    return [
        PlacedEvent(source, offset, of_line(n + first, make_event(user, f"i{n}", event_id=ids and f"{ids}:{n}")))
        for n in range(lines)
    ]


def applied(store: Store, *orders: list[PlacedEvent]) -> tuple[int, int]:
    state = store.users.apply({"u": [line for one in orders for line in one]})["u"]
    return state.applied, state.duplicates


@pytest.mark.parametrize("ids", [None, "o"])
@pytest.mark.parametrize("lines", SIZES)
def test_all_lines_count_once_however_often_the_record_is_read(store: Store, lines: int, ids: str | None) -> None:
    first = order(7, lines, ids=ids)
    assert applied(store, first) == (lines, 0)
    assert applied(store, first) == (0, lines)
    assert applied(store, first, order(8, 1, ids="next")) == (1, lines)
    assert applied(store, first) == (0, lines)
    units = sorted(entry.units for entry in whole_entries(store).values())
    assert units == [1_000_000] * (lines - 1) + [2_000_000]


@pytest.mark.parametrize("ids", [None, "o"])
@pytest.mark.parametrize("lines", [1, 2, 257])
def test_a_record_that_is_twice_in_one_call_counts_once(store: Store, lines: int, ids: str | None) -> None:
    assert applied(store, order(7, lines, ids=ids), order(7, lines, ids=ids)) == (lines, lines)


def test_an_event_that_is_twice_in_one_call_counts_once(store: Store) -> None:
    event = PlacedEvent("t:0", 7, make_event())
    assert applied(store, [event, event]) == (1, 1)


@pytest.mark.parametrize("lines", SIZES)
def test_an_order_that_is_sent_again_counts_once_however_long_it_is(store: Store, lines: int) -> None:
    assert applied(store, order(7, lines, ids="o")) == (lines, 0)
    assert applied(store, order(8, lines, ids="o")) == (0, lines)
    assert applied(store, order(3, lines, ids="o", source="t:1")) == (0, lines)


@pytest.mark.parametrize("lines", SIZES)
def test_of_an_order_that_is_sent_again_with_more_lines_the_new_ones_count(store: Store, lines: int) -> None:
    assert applied(store, order(7, lines, ids="o")) == (lines, 0)
    assert applied(store, order(8, lines + 2, ids="o")) == (2, lines)


@pytest.mark.parametrize("ids", [None, "o"])
def test_what_ids_a_record_has_later_does_not_matter(store: Store, ids: str | None) -> None:
    assert applied(store, order(7, 3, ids=ids)) == (3, 0)
    assert applied(store, order(7, 3, ids="of another mapping")) == (0, 3)
    assert applied(store, order(7, 4, ids=None)) == (0, 4)


def test_lines_with_and_without_ids_in_one_record(store: Store) -> None:
    mixed = [*order(7, 2), *order(7, 2, ids="o", first=3), *order(7, 1, first=5)]
    assert applied(store, mixed) == (5, 0)
    assert applied(store, mixed) == (0, 5)
    twice = [*order(8, 2, ids="p"), *order(8, 2, ids="p", first=3)]
    assert applied(store, twice) == (2, 2), "an id twice in one record is one line"


def test_a_long_order_takes_the_place_of_older_ids_until_the_next_record(store: Store) -> None:
    assert applied(store, order(1, 3, ids="a")) == (3, 0)
    assert applied(store, order(2, 300, ids="b")) == (300, 0)
    assert applied(store, order(3, 300, ids="b")) == (0, 300)
    assert applied(store, order(4, 3, ids="a")) == (3, 0), "these left the window"
    assert applied(store, order(1, 3, ids="a"), order(2, 300, ids="b")) == (0, 303), "where they were read is known"


def test_the_room_that_an_id_takes_is_what_a_check_says(store: Store) -> None:
    for number in range(256):
        applied(store, order(1_000_000_000 + number, 1, ids=f"order-{number}"))
    client: Any = store.connection.client
    assert client.memory_usage(store.users._keys.seen("u")) / 256 == pytest.approx(BYTES_OF_AN_ID, abs=2)


def test_one_call_never_cuts_a_record(store: Store) -> None:
    orders = [order(offset, 700, ids=None) for offset in range(4)]
    state = store.users.apply({"u": [line for one in orders for line in one]})["u"]
    assert (state.applied, state.duplicates, state.revision) == (2_800, 0, 2), "two orders a call"


RECORDS = st.lists(
    st.lists(st.tuples(st.sampled_from("abcde"), st.sampled_from([None, 1, 2, 3])), min_size=1, max_size=4),
    max_size=15,
)


@given(records=RECORDS, cuts=st.lists(st.integers(0, 15), max_size=4), rewinds=st.lists(st.integers(0, 15), max_size=4))
@hypothesis_settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_batching_and_redelivery_of_lines_gives_what_a_plain_replay_gives(
    store: Store, records: list[list[tuple[str, int | None]]], cuts: list[int], rewinds: list[int]
) -> None:
    user = uuid.uuid4().hex
    stream = [
        [
            PlacedEvent(
                "t:0", offset, of_line(line, make_event(user, item, event_id=None if id_ is None else str(id_)))
            )
            for line, (item, id_) in enumerate(lines, start=1)
        ]
        for offset, lines in enumerate(records)
    ]
    expected = HistoryReplay(max_items=2_000)
    expected.apply(placed.event for record in stream for placed in record)
    bounds = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    for start, end in itertools.pairwise(bounds):
        for first in (start, *(min(rewind, start) for rewind in rewinds)):
            store.users.apply({user: [placed for record in stream[first:end] for placed in record]})
    assert whole_entries(store, user) == expected.entries


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(1, 4), st.booleans()), min_size=1, max_size=40))
@hypothesis_settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_a_check_says_of_copies_is_what_redis_does(
    store: Store, monkeypatch: pytest.MonkeyPatch, records: list[tuple[str, int, bool]]
) -> None:
    monkeypatch.setattr(store.users, "_history", HistorySettings(max_event_ids=5))
    user, found = uuid.uuid4().hex, RepeatedIds(5)
    counted = 0
    for offset, (name, lines, has_ids) in enumerate(records):
        events = order(offset, lines, ids=name if has_ids else None, user=user)
        found.note_record([placed.event for placed in events])
        counted += store.users.apply({user: events})[user].duplicates
    assert counted == found.recognized


@pytest.mark.parametrize("refund_comes_first", [False, True])
def test_a_refund_that_an_export_and_the_topic_tell_of_takes_back_once(store: Store, refund_comes_first: bool) -> None:
    bought = {**SHOPIFY_ORDER["line_items"][0], "quantity": 5, "current_quantity": 3}
    exported = {**SHOPIFY_ORDER, "line_items": [bought], "refunds": [SHOPIFY_REFUND]}
    of_export = events_of("shopify-orders-paid", exported)
    export = [PlacedEvent("import:1", offset, event, complete=True) for offset, event in enumerate(of_export, start=1)]
    topic = [PlacedEvent("t:0", 7, event) for event in events_of("shopify-refunds-create", SHOPIFY_REFUND)]
    for events in (topic, export) if refund_comes_first else (export, topic):
        store.users.apply({str(LARGE): events})
    assert owned_by(store, str(LARGE)) == {"808950810": 3}
