from __future__ import annotations

from collections import defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.data.event import Event, EventType
from recsys.data.history import Entry, History, HistoryReplay, read_histories
from recsys.data.vocabulary import Vocabulary
from tests.builders import NOON_S, make_event, make_forget, make_return

ITEMS = ["a", "b", "c", "d", "é", "😀"]


@st.composite
def changes(draw: st.DrawFn) -> Event:
    """A purchase or a return of one of a few items."""
    return make_event(
        item_id=draw(st.sampled_from(ITEMS)),
        quantity=draw(st.sampled_from([0.1, 0.2, 0.3, 1.0, 2.0, 1e6]) | st.floats(1e-6, 1e6)),
        type_=draw(st.sampled_from([EventType.PURCHASE, EventType.RETURN])),
        timestamp=draw(st.integers(0, 20_000)),
    )


def replayed(events: list[Event], max_items: int = 100) -> dict[str, Entry]:
    replay = HistoryReplay(max_items)
    replay.apply(events)
    return replay.entries


def summed(events: list[Event]) -> dict[str, Entry]:
    """Sum item by item, with the quantities rounded to millionths by decimal text."""
    by_item: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        assert event.item_id is not None
        by_item[event.item_id].append(event)
    return {
        item: Entry(
            sum((1 if is_purchase(e) else -1) * max(1, int(f"{e.quantity * 1e6:.0f}")) for e in bought),
            max(event.timestamp // 1000 for event in bought),
            min(event.timestamp // 1000 for event in bought),
            sum(map(is_purchase, bought)),
        )
        for item, bought in by_item.items()
    }


def is_purchase(event: Event) -> bool:
    return event.type is EventType.PURCHASE


@given(st.lists(changes(), max_size=12), st.data())
@settings(max_examples=150, deadline=None)
def test_the_order_of_events_does_not_change_the_history(events: list[Event], data: st.DataObject) -> None:
    assert replayed(events) == replayed(data.draw(st.permutations(events))) == summed(events)


@given(st.lists(changes(), min_size=1, max_size=10), st.data())
@settings(max_examples=150, deadline=None)
def test_an_event_id_sent_again_counts_once(events: list[Event], data: st.DataObject) -> None:
    named = [event.model_copy(update={"event_id": f"e{place}"}) for place, event in enumerate(events)]
    copies = data.draw(st.lists(st.sampled_from(named), max_size=10))
    assert replayed(data.draw(st.permutations(named + copies))) == summed(events)


@given(st.lists(changes(), min_size=1, max_size=6))
@settings(max_examples=50, deadline=None)
def test_events_without_an_id_count_every_time(events: list[Event]) -> None:
    assert replayed(events + events) == summed(events + events)


@given(st.lists(changes(), max_size=8), st.lists(changes(), max_size=8))
@settings(max_examples=100, deadline=None)
def test_forget_leaves_only_what_comes_after(before: list[Event], after: list[Event]) -> None:
    assert replayed([*before, make_forget(), *after]) == summed(after)


@given(st.floats(1e-6, 1e6), st.floats(1e-6, 1e6), st.permutations(range(3)))
@settings(max_examples=100, deadline=None)
def test_a_return_may_come_before_its_purchase(kept: float, returned: float, order: list[int]) -> None:
    events = [
        make_event(quantity=kept),
        make_event(quantity=returned),
        make_event(quantity=returned, type_=EventType.RETURN),
    ]
    replay = HistoryReplay(10)
    replay.apply(events[place] for place in order)
    assert replay.history().entries == {"a": Entry(round(kept * 1e6), NOON_S, NOON_S, 2)}


@given(st.lists(changes(), max_size=8))
@settings(max_examples=100, deadline=None)
def test_a_history_says_what_its_text_holds(events: list[Event]) -> None:
    expected = summed(events)
    assert History.of(expected).entries == expected
    vocabulary = Vocabulary.of(ITEMS)
    owned = read_histories([History(), History.of(expected)], vocabulary)
    rows = sorted((vocabulary.rows[item], list(entry)) for item, entry in expected.items() if entry.units > 0)
    assert owned.starts.tolist() == [0, 0, len(rows)]
    assert owned.rows.tolist() == [row for row, _ in rows]
    assert owned.entries.tolist() == [entry for _, entry in rows]


def test_one_purchase_is_stored_in_two_numbers_and_more_in_four() -> None:
    once, twice = [make_event(timestamp=9000)], [make_event(timestamp=9000), make_event(timestamp=5000)]
    returned = [make_return()]
    assert [str(summed(events)["a"]) for events in (once, twice, returned)] == [
        "1|9",
        "2|9|2|4",
        f"-1|{NOON_S}|0|0",
    ]


@given(st.integers(-(10**15), 10**15), st.integers(0, 10**11), st.integers(0, 10**11), st.integers(0, 10**6))
def test_a_value_is_read_as_it_was_written(units: int, one: int, other: int, purchases: int) -> None:
    entry = Entry(units, max(one, other), min(one, other), purchases)
    assert Entry.parse(str(entry)) == entry


@given(st.lists(changes(), max_size=30), st.integers(1, 4))
@settings(max_examples=150, deadline=None)
def test_past_the_cap_the_item_with_the_oldest_newest_event_leaves(events: list[Event], cap: int) -> None:
    expected: dict[str, list[Event]] = {}
    for event in events:
        assert event.item_id is not None
        expected.setdefault(event.item_id, []).append(event)
        by_age = sorted(
            expected.items(),
            key=lambda entry: (max(e.timestamp // 1000 for e in entry[1]), entry[0].encode("utf-8")),
            reverse=True,
        )
        expected = dict(by_age[:cap])
    assert replayed(events, cap) == {item: summed(bought)[item] for item, bought in expected.items()}


def test_items_leave_in_order_of_their_newest_event_then_of_their_id() -> None:
    replay = HistoryReplay(3)
    seconds = [("b", 5), ("a", 5), ("old", 1), ("old", 9), ("c", 7)]
    replay.apply(make_event(item_id=item, timestamp=second * 1000) for item, second in seconds)
    assert replay.entries == {"b": Entry(10**6, 5, 5, 1), "old": Entry(2 * 10**6, 9, 1, 2), "c": Entry(10**6, 7, 7, 1)}
    replay.apply([make_event(item_id="d", timestamp=8000)])
    assert set(replay.entries) == {"old", "c", "d"}


def test_a_new_item_older_than_all_others_leaves_at_once() -> None:
    replay = HistoryReplay(1)
    replay.apply([make_event(item_id="a", timestamp=9000), make_event(item_id="b", timestamp=8000)])
    assert replay.entries == {"a": Entry(10**6, 9, 9, 1)}


def test_an_item_that_left_starts_anew() -> None:
    replay = HistoryReplay(1)
    replay.apply(
        make_event(item_id=item, timestamp=second * 1000) for item, second in [("a", 1), ("a", 1), ("b", 2), ("a", 3)]
    )
    assert replay.entries == {"a": Entry(10**6, 3, 3, 1)}
