"""Values as JSON has them, of values that only other formats have: decimals, times, bytes."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID


def plain(value: Any) -> Any:
    """Return a value that consists of objects, lists, text, numbers, true, false and null.

    Times become text as RFC 3339 has it, so that no unit has to be guessed; one without a zone stays without. Objects
    and lists are changed where they are: copies would take longer than all else.

    Parameters
    ----------
    value : Any
        What an Avro record holds.

    Raises
    ------
    ValueError
        When it holds something else.
    """
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is dict:
        for name, part in value.items():
            if type(part) not in _PLAIN:
                value[name] = plain(part)
        return value
    if kind is list:
        for place, part in enumerate(value):
            if type(part) not in _PLAIN:
                value[place] = plain(part)
        return value
    if (convert := _CONVERTED.get(kind)) is None:
        raise ValueError(f"it holds a {kind.__name__}, which has no form in JSON")
    return convert(value)


def text_of_bytes(value: bytes) -> str:
    """Return bytes as the JSON of Protobuf has them: base64."""
    return base64.b64encode(value).decode("ascii")


def _number(value: Decimal) -> int | float:
    """Return an integer for a decimal of scale 0: databases declare ids so."""
    exponent = value.as_tuple().exponent
    return int(value) if isinstance(exponent, int) and exponent >= 0 else float(value)


_PLAIN = frozenset({str, int, float, bool, type(None)})
_CONVERTED: Mapping[type, Callable[[Any], Any]] = {
    Decimal: _number,
    datetime: datetime.isoformat,
    date: date.isoformat,
    time: time.isoformat,
    bytes: text_of_bytes,
    UUID: str,
}
