"""CloudEvents 1.0 as an envelope: structured or binary, as its bindings for Kafka and JSON define them.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

import orjson

_PREFIX = "ce_"
_STRUCTURED = "application/cloudevents+json"
_BATCH = "application/cloudevents-batch"
NAMES_OF_DATA = frozenset({"data", "data_base64"})


def unwrap(value: Any, headers: Mapping[str, str | None]) -> tuple[Any, dict[str, Any]]:
    """Return what is inside, and the attributes of the event (``id``, ``source``, ``type``, ``time``, …).

    Parameters
    ----------
    value : Any
        The record's value, decoded from JSON.
    headers : mapping
        The record's headers.

    Raises
    ------
    ValueError
        When it is no CloudEvent.
    """
    names = {name.lower(): text for name, text in headers.items()}
    content_type = (names.get("content-type") or "").lower()
    if content_type.startswith(_BATCH):
        raise ValueError("it is a batch of CloudEvents: send each in a record of its own")
    if names.get(f"{_PREFIX}specversion"):
        attributes = {name.removeprefix(_PREFIX): text for name, text in names.items() if name.startswith(_PREFIX)}
        return value, {**attributes, "datacontenttype": content_type or None}
    if isinstance(value, dict) and "specversion" in value:
        attributes = {name: part for name, part in value.items() if name not in NAMES_OF_DATA}
        return _data(value), attributes
    told = "its content-type says that it is one, but " if content_type.startswith(_STRUCTURED) else ""
    raise ValueError(
        f"it is no CloudEvent: {told}it has neither specversion in its value nor a header {_PREFIX}specversion"
    )


def _data(value: Mapping[str, Any]) -> Any:
    if (encoded := value.get("data_base64")) is None:
        return value.get("data")
    try:
        return orjson.loads(base64.b64decode(encoded, validate=True))
    except (binascii.Error, TypeError, ValueError) as error:
        raise ValueError(f"data_base64: {error}") from None
