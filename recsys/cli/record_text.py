"""What is shown of a record: all of it if it is short, else what is looked at in it."""

from __future__ import annotations

from typing import Any

import orjson

from recsys.data.expressions import EVERY_NAME

_MOST_ELEMENTS = 3
"""Of a list in a long record."""


def record_text(value: bytes | None, names: frozenset[str], most: int) -> str:
    """Return a record as text of so many characters at most.

    Of a long one the parts are left out that nobody looks at, and the lines of an order after the first ones, so that
    its user is there wherever it stands. Where nothing is looked at, its beginning is shown. What does not fit even so
    is cut off.

    Parameters
    ----------
    value : bytes or None
        None is a tombstone.
    names : frozenset of str
        Those that are looked up, wherever; with `EVERY_NAME`, any.
    most : int
    """
    if value is None:
        return "(tombstone: no value)"
    try:
        found = orjson.loads(value)
        text = orjson.dumps(found).decode()
        has_none = isinstance(found, dict) and names.isdisjoint({*found, EVERY_NAME})
        if len(text) > most and not has_none:
            text = orjson.dumps(_looked_at(found, names)).decode()
    except (ValueError, TypeError):  # no JSON, or nested too deeply to be written again
        text = value[: 4 * most].decode(errors="replace")
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _looked_at(found: Any, names: frozenset[str]) -> Any:
    """Return an object or a list without what nobody looks at; ``…`` stands where something was left out."""
    if isinstance(found, dict):
        kept = {name: _looked_at(inner, names) for name, inner in found.items() if name in names or EVERY_NAME in names}
        return kept if len(kept) == len(found) else {**kept, "…": f"{len(found) - len(kept)} more"}
    if isinstance(found, list):
        kept_first = [_looked_at(inner, names) for inner in found[:_MOST_ELEMENTS]]
        return kept_first if len(found) <= _MOST_ELEMENTS else [*kept_first, f"… {len(found) - _MOST_ELEMENTS} more"]
    return found
