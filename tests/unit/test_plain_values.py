"""What values of other formats than JSON become."""

from __future__ import annotations

import json
from copy import deepcopy
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.data.plain_values import plain


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (Decimal("12.50"), 12.5),
        (Decimal("-0.01"), -0.01),
        (Decimal("12345678901234567890"), 12_345_678_901_234_567_890),
        (Decimal("5E+2"), 500),
        (datetime(2026, 11, 22, 10, 11, 12, 500_000, tzinfo=UTC), "2026-11-22T10:11:12.500000+00:00"),
        (datetime(2026, 11, 22, 10, 11, tzinfo=timezone(timedelta(hours=1))), "2026-11-22T10:11:00+01:00"),
        (datetime(2026, 11, 22, 10, 11), "2026-11-22T10:11:00"),  # without a zone it stays without
        (date(2026, 11, 22), "2026-11-22"),
        (time(10, 11, 12), "10:11:12"),
        (b"\x00\xff", "AP8="),
        (UUID(int=7), "00000000-0000-0000-0000-000000000007"),
    ],
)
def test_what_only_other_formats_have(value: Any, found: Any) -> None:
    for wrapped, expected in ((value, found), ({"a": [value]}, {"a": [found]}), ([{"a": value}], [{"a": found}])):
        converted = plain(wrapped)
        assert converted == expected
        assert repr(converted) == repr(expected), "500 is no 500.0"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)
others = st.decimals(allow_nan=False, allow_infinity=False) | st.datetimes() | st.dates() | st.times() | st.binary()


@given(json_values)
def test_what_json_has_stays_as_it_is(value: Any) -> None:
    assert plain(deepcopy(value)) == value


@given(st.recursive(json_values | others, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_only_what_json_has_is_left(value: Any) -> None:
    json.dumps(plain(value))  # refuses anything else


def test_what_has_no_form_is_refused() -> None:
    with pytest.raises(ValueError, match="it holds a complex, which has no form in JSON"):
        plain({"a": 1j})
