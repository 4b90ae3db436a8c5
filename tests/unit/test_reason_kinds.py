"""Reasons why records are malformed are counted by kind, and kinds are few."""

from __future__ import annotations

from collections import Counter

from recsys.data.reason_kinds import OTHERS, count_kind, kind_of


def test_what_a_reason_quotes_of_the_record_makes_no_kind_of_its_own() -> None:
    assert kind_of("quantity: 12,5 is above 1,000") == kind_of("quantity: 7 is above 1,000")
    assert kind_of("type: 'sale' is unknown") == kind_of("type: 'gift' is unknown")
    assert kind_of("type: 'sale' is unknown") != kind_of("price: 'sale' is unknown")


def test_a_kind_is_short_and_kinds_are_few_whatever_records_say() -> None:
    counts: Counter[str] = Counter()
    for number in range(1_000):
        count_kind(counts, f"field {chr(200 + number)}: {'x' * number}")
    assert counts.total() == 1_000
    assert len(counts) == 21
    assert counts[OTHERS] == 980
    assert max(map(len, counts)) <= 120
