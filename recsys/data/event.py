"""Purchase events: the bytes of a record become a validated `Event`, or raise `MalformedEvent`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from recsys.errors import MalformedEvent

MAX_RECORD_BYTES = 64 * 1024
UNITS_PER_QUANTITY = 1_000_000
"""Quantities are summed as whole millionths, so the order of addition can never change a sum."""

_MAX_EPOCH_MS = 253_402_300_799_999  # 9999-12-31T23:59:59.999Z
_RFC_3339 = re.compile(
    r"(?P<minutes>[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}):(?P<seconds>[0-9]{2})(?P<fraction>\.[0-9]+)?"
    r"(?P<zone>[Zz]|[+-][0-9]{2}:[0-9]{2})"
)


class EventType(StrEnum):
    """The kind of an event."""

    PURCHASE = "purchase"
    RETURN = "return"
    FORGET = "forget"


def _integer_to_text(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value


def _timestamp_to_epoch_ms(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and (match := _RFC_3339.fullmatch(value)):
        # RFC 3339 allows a leap second, the datetime type does not: read it as the second before.
        seconds = "59" if match["seconds"] == "60" else match["seconds"]
        text = f"{match['minutes'].upper()}:{seconds}{match['fraction'] or ''}{match['zone'].upper()}"
        try:
            moment = datetime.fromisoformat(text)
        except ValueError as error:
            raise ValueError(f"is not an existing date and time ({error})") from None
        return round(moment.timestamp() * 1000)
    raise ValueError("must be RFC 3339 with a zone (2026-11-22T10:11:12Z) or integer epoch milliseconds")


_PLAIN_WORDS = {
    "missing": "is required",
    "string_pattern_mismatch": "must not contain control characters",
    "string_type": "must be a string or an integer of at most 64 bits",
}
NO_CONTROL_CHARACTERS = r"^[^\x00-\x1f\x7f-\x9f]*$"
Identifier = Annotated[
    str,
    StringConstraints(strict=True, min_length=1, max_length=256, pattern=NO_CONTROL_CHARACTERS),
    BeforeValidator(_integer_to_text),
]
EventId = Annotated[
    str,
    StringConstraints(strict=True, min_length=1, max_length=128, pattern=NO_CONTROL_CHARACTERS),
    BeforeValidator(_integer_to_text),
]
EpochMs = Annotated[int, Field(strict=True, ge=0, le=_MAX_EPOCH_MS), BeforeValidator(_timestamp_to_epoch_ms)]


class Event(BaseModel):
    """One validated event: a purchase, a return, or a request to erase the user."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    user_id: Identifier
    timestamp: EpochMs
    """Time of the event, in milliseconds since 1970-01-01 UTC."""
    type: EventType = EventType.PURCHASE
    item_id: Identifier | None = None
    """None for `forget`, and only then."""
    quantity: Annotated[float, Field(strict=True, gt=0, le=1e6, allow_inf_nan=False)] = 1.0
    price: Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)] | None = None
    event_id: EventId | None = None

    @model_validator(mode="before")
    @classmethod
    def _pass_over_what_means_nothing(cls, data: object) -> object:
        """Read null as absent, and drop the item of a `forget`."""
        if not isinstance(data, Mapping):
            return data
        if None in data.values():
            data = {name: value for name, value in data.items() if value is not None}
        if data.get("type") == EventType.FORGET and "item_id" in data:
            data = {name: value for name, value in data.items() if name != "item_id"}
        return data

    @model_validator(mode="after")
    def _item_unless_forget(self) -> Event:
        if self.item_id is None and self.type is not EventType.FORGET:
            raise ValueError(f"item_id is required for a {self.type.value}")
        return self

    @property
    def units(self) -> int:
        """The signed change of the net quantity, in millionths; 0 for `forget`."""
        if self.type is EventType.FORGET:
            return 0
        units = max(1, round(self.quantity * UNITS_PER_QUANTITY))
        return -units if self.type is EventType.RETURN else units


def fits_cluster(user_id: str) -> bool:
    """Whether a Redis Cluster keeps a user's keys in one slot: an empty hash tag is ignored."""
    return not user_id.startswith("}")


def ensure_fits_cluster(user_id: str) -> None:
    """Refuse ids of users whose keys a Redis Cluster could not keep in one slot.

    Raises
    ------
    MalformedEvent
        When the user's keys would not be in one slot.
    """
    if not fits_cluster(user_id):
        raise MalformedEvent(
            "user_id: must not begin with } on a Redis Cluster: the keys of such a user would be in different slots"
        )


def event_from_fields(fields: Mapping[str, Any], *, raw: bytes = b"", location: str = "") -> Event:
    """Validate named fields.

    Raises
    ------
    MalformedEvent
        When a field breaks its rule; the reason names the field.
    """
    try:
        return Event.model_validate(fields)
    except ValidationError as error:
        reasons = [f"{field}: {message}" if field else message for field, message in broken_rules(error)]
        raise MalformedEvent("; ".join(reasons), raw, location) from None


def broken_rules(error: ValidationError) -> Iterator[tuple[str, str]]:
    """Yield the path (with dots) of each field that breaks a rule, and what is wrong with it."""
    for problem in error.errors(include_url=False, include_context=False, include_input=False):
        message = _PLAIN_WORDS.get(problem["type"]) or problem["msg"].removeprefix("Value error, ")
        yield ".".join(str(part) for part in problem["loc"]), message


def decode(value: bytes | None, *, record_timestamp_ms: int | None = None, location: str = "") -> Event:
    """Decode one Kafka record's value.

    Parameters
    ----------
    value : bytes or None
        The record's value, one JSON object of at most 64 KiB.
    record_timestamp_ms : int or None
        The Kafka record's own timestamp, used when the event has none.
    location : str
        ``topic[partition] offset``, for the error text.

    Raises
    ------
    MalformedEvent
        For anything that is not a valid event; never another error.
    """
    if not value:
        raise MalformedEvent("the record is empty", b"", location)
    if len(value) > MAX_RECORD_BYTES:
        raise MalformedEvent(f"the record has {len(value):,} bytes; the limit is {MAX_RECORD_BYTES:,}", value, location)
    try:
        fields = orjson.loads(value)
    except ValueError as error:
        raise MalformedEvent(f"not JSON: {error}", value, location) from None
    if not isinstance(fields, dict):
        raise MalformedEvent(f"must be a JSON object, not {type(fields).__name__}", value, location)
    if fields.get("timestamp") is None:
        if record_timestamp_ms is None:
            raise MalformedEvent("timestamp: neither the event nor its Kafka record has one", value, location)
        fields["timestamp"] = record_timestamp_ms
    return event_from_fields(fields, raw=value, location=location)
