"""The published JSON Schema says of a value what the contract says of it; the other schemas name the same fields."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
from hypothesis import example, given, settings
from hypothesis import strategies as st

from recsys.data.event import Event, decode
from recsys.errors import MalformedEvent
from tests.builders import NOON_MS
from tests.schemas import SCHEMAS, compiled_descriptor, published

VALIDATOR = jsonschema.Draft7Validator(published("purchase.schema.json"))
IDS: st.SearchStrategy[Any] = st.one_of(
    st.text(max_size=3),
    st.sampled_from(["x" * 128, "x" * 129, "x" * 256, "x" * 257, "a\nb", "\x7f", "\x85", "é", "😀" * 128, "a\n"]),
    st.integers(-(2**63), 2**64 - 1),
    st.sampled_from([0.5, True, [], {}, None]),
)
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "user_id": IDS,
        "item_id": IDS,
        "event_id": IDS,
        "type": st.sampled_from(["purchase", "return", "forget", "Purchase", "refund", "", 1, None]),
        "quantity": st.one_of(
            st.floats(-1, 1_000, allow_nan=False), st.integers(-1, 1_000), st.sampled_from([1_000_001, "1", True, None])
        ),
        "price": st.sampled_from([0, 3.5, -1, "3.50", None]),
        "timestamp": st.sampled_from(
            ["2026-11-22T12:00:00Z", "2026-11-22 12:00:00.123+01:00", "2026-11-22", "", NOON_MS, None, 1.5, True]
        ),
        "unknown": st.none(),
    },
)


@given(FIELDS)
@example({"user_id": "u", "type": "forget"})
@example({"user_id": "u", "type": "forget", "item_id": None})
@example({"user_id": "u", "item_id": None})
@example({"user_id": "u", "item_id": "a", "quantity": 1_000_000})
@settings(max_examples=1_000, deadline=None)
def test_the_json_schema_agrees_with_the_contract(fields: dict[str, Any]) -> None:
    try:
        decode(json.dumps(fields).encode(), record_timestamp_ms=NOON_MS)
    except MalformedEvent as error:
        reason = error.reason
    else:
        reason = ""
    assert VALIDATOR.is_valid(fields) == (not reason), f"{fields}: {reason or [*VALIDATOR.iter_errors(fields)]}"


def test_all_schemas_have_the_fields_of_the_contract() -> None:
    fields = set(Event.model_fields)
    assert set(published("purchase.schema.json")["properties"]) == fields
    assert {field["name"] for field in published("purchase.avsc")["fields"]} == fields
    (message,) = compiled_descriptor(SCHEMAS / "purchase.proto").message_type
    assert {field.name for field in message.field} == fields
