"""What is shown of a record."""

from __future__ import annotations

import json
from typing import Any

import pytest

from recsys.cli.record_text import record_text
from recsys.data.expressions import EVERY_NAME
from recsys.kafka.readings import load_mapping
from tests.unit.test_presets import LARGE, SHOPIFY_ORDER

NAMES = frozenset({"id", "customer", "lines", "sku"})


def text(value: Any, names: frozenset[str] = NAMES, most: int = 200) -> str:
    return record_text(value if value is None else json.dumps(value).encode(), names, most)


def test_a_short_record_is_shown_as_it_is() -> None:
    assert text({"id": 1, "note": "x"}) == '{"id":1,"note":"x"}'
    assert text(None) == "(tombstone: no value)"


def test_of_a_long_record_the_parts_are_shown_that_are_looked_at() -> None:
    lines = [{"sku": f"s{number}", "title": "y" * 50} for number in range(9)]
    order = {"id": 1, "note": "x" * 900, "lines": lines, "customer": {"id": 7, "email": "a@example.com"}}
    assert json.loads(text(order, most=260)) == {
        "id": 1,
        "lines": [*({"sku": f"s{number}", "…": "1 more"} for number in range(3)), "… 6 more"],
        "customer": {"id": 7, "…": "1 more"},
        "…": "1 more",
    }
    assert text(order, most=100).endswith("…")
    assert len(text(order, most=100)) == 100
    assert '"email"' in text(order, frozenset({EVERY_NAME}), most=2_000)


@pytest.mark.parametrize("value", [{"other": "x" * 900}, "x" * 900])
def test_a_long_record_in_another_form_is_shown_as_it_begins(value: Any) -> None:
    assert text(value).startswith(json.dumps(value, separators=(",", ":"))[:190])


def test_bytes_that_are_no_json_are_shown_as_text() -> None:
    assert record_text(b"{" * 999, NAMES, 20) == "{" * 19 + "…"


def test_the_user_and_the_lines_of_a_real_order_are_shown() -> None:
    names = load_mapping("shopify-orders-paid").names
    long = {**SHOPIFY_ORDER, "line_items": SHOPIFY_ORDER["line_items"] * 40}
    shown = text(long, names, 3_000)
    assert f'"customer":{{"id":{LARGE}' in shown
    assert '"variant_id":808950810' in shown
    assert "landing_site" not in shown
