"""Which events repeat an id, and whether they are recognized."""

from __future__ import annotations

import pytest

from recsys.data.event import Event
from recsys.operations.event_summary import EventSummary
from recsys.operations.repeated_ids import RepeatedIds
from tests.builders import NOON_MS, make_event, make_forget


def order(name: str, lines: int, user: str = "u") -> list[Event]:
    return [make_event(user, f"i{n}", quantity=2, event_id=f"{name}:{n}") for n in range(lines)]


def counted(*records: list[Event], most_ids: int | None = 4) -> tuple[int, int, int]:
    found = RepeatedIds(most_ids)
    for events in records:
        found.note_record(events)
    return found.recognized, found.too_late, found.needed


def test_a_copy_is_recognized_while_its_id_is_among_the_newest_ids() -> None:
    others = [order(f"o{n}", 1) for n in range(9)]
    assert counted(order("a", 1), *others[:3], order("a", 1)) == (1, 0, 0)
    assert counted(order("a", 1), *others[:4], order("a", 1)) == (0, 1, 5)
    assert counted(order("a", 1), *others[:4], order("a", 1), most_ids=None) == (1, 0, 0)
    assert counted(order("a", 1), *others[:4], order("a", 1), order("a", 1)) == (1, 1, 5), "it is remembered anew"


def test_all_ids_of_the_newest_record_are_remembered() -> None:
    assert counted(order("a", 9), order("a", 9)) == (9, 0, 0)
    assert counted(order("a", 9), order("b", 1), order("a", 9)) == (3, 6, 10)
    assert counted(order("a", 2), order("b", 9), order("a", 2)) == (0, 2, 11)


def test_an_id_twice_in_one_record_counts_once() -> None:
    assert counted([*order("a", 9), *order("a", 9)]) == (9, 0, 0)


def test_ids_are_those_of_a_user() -> None:
    assert counted(order("a", 1), order("a", 1, "v")) == (0, 0, 0)
    assert counted(order("a", 1), *[order(f"o{n}", 1, "v") for n in range(9)], order("a", 1)) == (1, 0, 0)


def test_records_without_ids_take_a_place_each() -> None:
    nameless = [[make_event("u", "x"), make_event("u", "y")]]
    assert counted(order("a", 1), *nameless * 3, order("a", 1)) == (1, 0, 0)
    assert counted(order("a", 1), *nameless * 4, order("a", 1)) == (0, 1, 5)


def test_nothing_is_remembered_of_who_was_forgotten() -> None:
    assert counted(order("a", 1), [make_forget("u")], order("a", 1)) == (0, 0, 0)


def test_memory_is_bounded_and_what_was_found_is_the_least() -> None:
    found = RepeatedIds(4, most_held=1_000)
    for _ in range(2):
        for number in range(10_000):
            found.note_record(order("a", 1, f"u{number}"))
    assert not found.is_exact
    assert found._held == sum(len(user.positions) for user in found._users.values()) <= 1_000
    assert 100 < found.recognized <= 1_000
    assert found.too_late == 0
    one = RepeatedIds(4, most_held=1_000)
    one.note_record(order("a", 5_000))
    assert (one._held, one.recognized) == (0, 0)


@pytest.mark.parametrize(
    ("between", "said"),
    [
        (
            300,
            "2 copies by event_id too late to be recognized, after more than 256 newer ids of the user: they count "
            "again; set RECSYS_HISTORY__MAX_EVENT_IDS to 302 or more, which takes about 16 bytes in Redis for each id "
            "of each user",
        ),
        (
            10_000,
            "2 copies by event_id too late to be recognized, after more than 256 newer ids of the user: they count "
            "again; RECSYS_HISTORY__MAX_EVENT_IDS would have to be 10,002: have them not sent again",
        ),
    ],
)
def test_copies_that_come_too_late_are_suspicious_and_count_twice(between: int, said: str) -> None:
    summary = EventSummary(now_ms=NOON_MS, most_ids=256)
    of_import = EventSummary(now_ms=NOON_MS)
    for one in (summary, of_import):
        for events in (order("a", 2), *[order(f"o{n}", 1) for n in range(between)], order("a", 2)):
            one.note_record(events, (), None, place="")
    about = [line for line in summary.suspicions() if "too late" in line]
    assert about == [said]
    assert (summary.as_json()["repeated"], summary.as_json()["repeated_too_late"]) == (0, 2)
    assert (of_import.as_json()["repeated"], of_import.as_json()["repeated_too_late"]) == (2, 0)
    assert not [line for line in of_import.suspicions() if "too late" in line]
