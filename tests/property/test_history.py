from __future__ import annotations

from collections import defaultdict

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.events import Event, EventType
from recsys.history import HistoryReplay
from tests.builders import make_event, make_forget

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


def replayed(events: list[Event], max_items: int = 100) -> dict[str, tuple[int, int]]:
    replay = HistoryReplay(max_items)
    replay.apply(events)
    return replay.entries


def summed(events: list[Event]) -> dict[str, tuple[int, int]]:
    """Sum by dictionary, with the quantities rounded to millionths by decimal text."""
    units: dict[str, int] = defaultdict(int)
    last: dict[str, int] = defaultdict(int)
    for event in events:
        assert event.item_id is not None
        sign = -1 if event.type is EventType.RETURN else 1
        units[event.item_id] += sign * max(1, int(f"{event.quantity * 1e6:.0f}"))
        last[event.item_id] = max(last[event.item_id], event.timestamp // 1000)
    return {item: (units[item], last[item]) for item in units}


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
    assert replay.history().item_ids == ["a"]
    assert replay.history().quantities.tolist() == [round(kept * 1e6) / 1e6]


@given(st.lists(changes(), max_size=8))
@settings(max_examples=100, deadline=None)
def test_a_history_holds_net_quantities_and_times_beside_the_item_ids(events: list[Event]) -> None:
    replay = HistoryReplay(100)
    replay.apply(events)
    history = replay.history()
    columns = history.item_ids, history.quantities.tolist(), history.last_event_s.tolist()
    assert {item: (quantity, last) for item, quantity, last in zip(*columns, strict=True)} == {
        item: (units / 1e6, last) for item, (units, last) in summed(events).items()
    }
    assert history.quantities.dtype == np.float64
    assert history.last_event_s.dtype == np.int64


@given(st.lists(changes(), max_size=30), st.integers(1, 4))
@settings(max_examples=150, deadline=None)
def test_past_the_cap_the_item_with_the_oldest_newest_event_leaves(events: list[Event], cap: int) -> None:
    expected: dict[str, tuple[int, int]] = {}
    for event in events:
        assert event.item_id is not None
        (units, last), second = expected.get(event.item_id, (0, 0)), event.timestamp // 1000
        expected[event.item_id] = (units + event.units, max(last, second))
        by_age = sorted(expected.items(), key=lambda entry: (entry[1][1], entry[0].encode("utf-8")), reverse=True)
        expected = dict(by_age[:cap])
    assert replayed(events, cap) == expected


def test_items_leave_in_order_of_their_newest_event_then_of_their_id() -> None:
    replay = HistoryReplay(3)
    seconds = [("b", 5), ("a", 5), ("old", 1), ("old", 9), ("c", 7)]
    replay.apply(make_event(item_id=item, timestamp=second * 1000) for item, second in seconds)
    assert replay.entries == {"b": (10**6, 5), "old": (2 * 10**6, 9), "c": (10**6, 7)}
    replay.apply([make_event(item_id="d", timestamp=8000)])
    assert set(replay.entries) == {"old", "c", "d"}


def test_a_new_item_older_than_all_others_leaves_at_once() -> None:
    replay = HistoryReplay(1)
    replay.apply([make_event(item_id="a", timestamp=9000), make_event(item_id="b", timestamp=8000)])
    assert replay.entries == {"a": (10**6, 9)}


def test_an_item_that_left_starts_anew() -> None:
    replay = HistoryReplay(1)
    replay.apply(
        make_event(item_id=item, timestamp=second * 1000) for item, second in [("a", 1), ("a", 1), ("b", 2), ("a", 3)]
    )
    assert replay.entries == {"a": (10**6, 3)}
