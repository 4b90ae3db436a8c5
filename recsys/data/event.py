"""Purchase events: the bytes of a record become a validated `Event`, or raise `MalformedEvent`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from recsys.data import envelopes
from recsys.data.broken_rules import broken_rules, first_reason
from recsys.data.epoch import (
    LAST_MS,
    OLDEST_MS,
    EpochUnit,
    epoch_ms,
    fitting_units,
    iso_time,
    newest_ms,
    no_unit_reason,
    shown,
)
from recsys.errors import MalformedEvent, Reason

MAX_RECORD_BYTES = 64 * 1024
MAX_QUANTITY = 1e6
UNITS_PER_QUANTITY = 1_000_000
"""Quantities are summed as whole millionths, so the order of addition can never change a sum."""

_RFC_3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:(?P<seconds>[0-9]{2})(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})"
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
        text = value.upper()
        if match["seconds"] == "60":  # RFC 3339 allows a leap second, the datetime type does not: the second before
            text = f"{text[: match.start('seconds')]}59{text[match.end('seconds') :]}"
        try:
            moment = datetime.fromisoformat(text)
        except ValueError as error:
            raise ValueError(f"is not an existing date and time ({error})") from None
        return epoch_ms(moment)
    raise ValueError(
        f"must be RFC 3339 with a zone (2026-11-22T10:11:12Z) or an integer of time since 1970, not {shown(value)}"
    )


NO_CONTROL_CHARACTERS = r"^[^\x00-\x1f\x7f-\x9f]*$"
Identifier = Annotated[
    str,
    StringConstraints(strict=True, min_length=1, max_length=256, pattern=NO_CONTROL_CHARACTERS),
    BeforeValidator(_integer_to_text),
]
LONGEST_EVENT_ID = 128
EventId = Annotated[
    str,
    StringConstraints(strict=True, min_length=1, max_length=LONGEST_EVENT_ID, pattern=NO_CONTROL_CHARACTERS),
    BeforeValidator(_integer_to_text),
]
EpochMs = Annotated[int, Field(strict=True, ge=0, le=LAST_MS), BeforeValidator(_timestamp_to_epoch_ms)]


class Event(BaseModel):
    """One validated event: a purchase, a return, or a request to erase the user."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    user_id: Identifier
    timestamp: EpochMs
    """Time of the event, in milliseconds since 1970-01-01 UTC."""
    type: EventType = EventType.PURCHASE
    item_id: Identifier | None = None
    """None for `forget`, and only then."""
    quantity: Annotated[float, Field(strict=True, gt=0, le=MAX_QUANTITY, allow_inf_nan=False)] = 1.0
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


class EventOfLine(Event):
    """An event that is one line of a record."""

    line: int
    """Number of the line in its record, from 1 on."""


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
            "user_id: must not begin with } on a Redis Cluster: the keys of such a user would be in different slots",
            Reason.USER_ID,
        )


def event_from_fields(fields: Mapping[str, Any], kind: type[Event] = Event) -> Event:
    """Validate named fields.

    Raises
    ------
    MalformedEvent
        When a field breaks its rule; the reason names the field.
    """
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        reasons = [f"{field}: {message}" if field else message for field, message in broken_rules(error)]
        raise MalformedEvent("; ".join(reasons), first_reason(error)) from None


@dataclass(frozen=True, slots=True)
class EventReading:
    """How what records leave open is read.

    Attributes
    ----------
    unit : EpochUnit or None
        Of timestamps that are integers; None is the only one that fits.
    oldest_ms : int
        No integer is read as a time before this one, in epoch milliseconds.
    no_user : frozenset of str
        Ids that are no users, in lower case.
    max_return : float
        Most units of one return.
    compared_with : str
        With what times are compared, in the words of errors: events in files were never sent.
    unit_is_set_by : str
        Where the operator says what ``unit`` is, in the words of errors.
    """

    unit: EpochUnit | None = None
    oldest_ms: int = OLDEST_MS
    no_user: frozenset[str] = frozenset()
    max_return: float = MAX_QUANTITY
    compared_with: str = "it was sent"
    unit_is_set_by: str = "RECSYS_EVENTS__TIMESTAMP_UNIT"

    def ensure_bounds(self, event: Event, *, sent_ms: int | None) -> Event:
        """Return an event that neither lies in the future nor takes back more than one return may.

        A time that was written as text, or in a unit that is set, has not been compared with anything before. No wish
        to be erased is lost over its time: a ``forget`` of the future gets the time when it was sent.

        Parameters
        ----------
        event : Event
        sent_ms : int or None
            When it was sent, in epoch milliseconds; None if that is not known.

        Raises
        ------
        MalformedEvent
            When it is later than `newest_ms` of that, or a return has more units than one may have.
        """
        if event.timestamp > (newest := newest_ms(sent_ms)):
            if event.type is EventType.FORGET:
                return event.model_copy(update={"timestamp": sent_ms or 0})
            limit = iso_time(newest // 1000 * 1000) + ("" if sent_ms is None else f", a day after {self.compared_with}")
            raise MalformedEvent(
                f"timestamp: {iso_time(event.timestamp)} is in the future: later than {limit}", Reason.TIMESTAMP_FUTURE
            )
        if event.type is EventType.RETURN and event.quantity > self.max_return:
            raise MalformedEvent(
                f"quantity: must be {self.max_return:,g} or less of a return; publish several, or set "
                f"RECSYS_EVENTS__MAX_RETURN",
                Reason.QUANTITY,
            )
        return event

    def is_no_user(self, user_id: str) -> bool:
        """Whether this is what stands in the place of a user who is none."""
        return user_id.lower() in self.no_user

    def epoch_ms(self, value: int, newest: int) -> int:
        """Return what an integer means, in epoch milliseconds: a time up to ``newest``, unless its unit is set.

        Raises
        ------
        MalformedEvent
            When it fits no unit or several.
        """
        if self.unit is not None:
            if not 0 <= (moment_ms := self.unit.to_ms(value)) <= LAST_MS:
                raise MalformedEvent(
                    f"timestamp: {value} is no time from 1970 to 9999 in {self.unit.word} since 1970", Reason.TIMESTAMP
                )
            return moment_ms
        if self.oldest_ms <= value <= newest < 1000 * self.oldest_ms:
            return value  # milliseconds, as nearly always, and then no other unit fits
        fitting = fitting_units(value, oldest_ms=self.oldest_ms, newest_ms=newest)
        if len(fitting) != 1:
            reason = no_unit_reason(value, oldest_ms=self.oldest_ms, newest_ms=newest)
            raise MalformedEvent(
                f"timestamp: {reason}; send RFC 3339, or set {self.unit_is_set_by}", Reason.TIMESTAMP_UNIT
            )
        return fitting[0].to_ms(value)

    def integer_timestamp(self, fields: Mapping[str, Any], *, sent_ms: int | None) -> int:
        """Return what the timestamp of an event means, if it is an integer, in epoch milliseconds.

        No wish to be erased is lost over its time: a ``forget`` that has none gets the time when it was sent.

        Raises
        ------
        MalformedEvent
            As `epoch_ms`.
        """
        try:
            return self.epoch_ms(fields["timestamp"], newest_ms(sent_ms))
        except MalformedEvent:
            if fields.get("type") == EventType.FORGET:
                return sent_ms or 0
            raise


_DEFAULT_READING = EventReading()
_FIELDS = frozenset(Event.model_fields)


def decode(
    value: bytes | None,
    *,
    record_timestamp_ms: int | None = None,
    reading: EventReading = _DEFAULT_READING,
    location: str = "",
    on_unread_price: Callable[[], None] = lambda: None,
    max_bytes: int = MAX_RECORD_BYTES,
) -> Event:
    """Decode one Kafka record's value.

    Parameters
    ----------
    value : bytes or None
        The record's value, one JSON object.
    record_timestamp_ms : int or None
        The Kafka record's own timestamp: used when the event has none, and to tell the unit of an integer. No event is
        later than a day after it.
    reading : EventReading
    location : str
        ``topic[partition] offset``, for the error text.
    on_unread_price : callable
        Called when the price is not one: it is left out, for no model uses it.
    max_bytes : int
        A longer value is malformed.

    Raises
    ------
    MalformedEvent
        For anything that is not a valid event; never another error.
    """
    if not value:
        raise MalformedEvent("the record is empty", Reason.EMPTY, b"", location)
    if len(value) > max_bytes:
        raise too_large(value, max_bytes).at(location, value)
    try:
        fields = orjson.loads(value)
    except ValueError as error:
        reason = _with_hint(f"not JSON: {error}", envelopes.of_bytes(value))
        raise MalformedEvent(reason, Reason.NOT_JSON, value, location) from None
    try:
        return event_of_value(fields, sent_ms=record_timestamp_ms, reading=reading, on_unread_price=on_unread_price)
    except MalformedEvent as error:
        raise error.at(location, value) from None


def event_of_value(
    value: Any,
    *,
    sent_ms: int | None,
    reading: EventReading = _DEFAULT_READING,
    on_unread_price: Callable[[], None] = lambda: None,
) -> Event:
    """Return the event that a whole value is, decoded from JSON or whatever it was; it may be changed.

    Raises
    ------
    MalformedEvent
        When it is none; the reason says what it looks like.
    """
    if not isinstance(value, dict):
        reason = _with_hint(f"must be a JSON object, not {type(value).__name__}", envelopes.of_json(value))
        raise MalformedEvent(reason, Reason.OTHER_FORM)
    if not value.keys() <= _FIELDS and (reason := envelopes.other_meaning(value)):
        raise MalformedEvent(reason, Reason.NO_PURCHASE)
    try:
        return event_of(value, sent_ms=sent_ms, reading=reading, on_unread_price=on_unread_price)
    except MalformedEvent as error:
        hint = envelopes.of_json(value)
        raise MalformedEvent(_with_hint(error.reason, hint), Reason.OTHER_FORM if hint else error.code) from None


def event_of(
    fields: dict[str, Any],
    *,
    sent_ms: int | None,
    reading: EventReading = _DEFAULT_READING,
    on_unread_price: Callable[[], None] = lambda: None,
    kind: type[Event] = Event,
) -> Event:
    """Return the event that named fields are, as `decode` does; the fields may be changed.

    Raises
    ------
    MalformedEvent
        When they are none.
    """
    timestamp = fields.get("timestamp")
    if timestamp is None:
        if sent_ms is None:
            raise MalformedEvent("timestamp: neither the event nor its Kafka record has one", Reason.TIMESTAMP_MISSING)
        fields["timestamp"] = sent_ms
    elif type(timestamp) is int:
        fields["timestamp"] = reading.integer_timestamp(fields, sent_ms=sent_ms)
    price = fields.get("price")
    if price is not None and not (type(price) in (int, float) and price >= 0):
        del fields["price"]
        on_unread_price()
    return reading.ensure_bounds(event_from_fields(fields, kind), sent_ms=sent_ms)


def too_large(value: bytes, max_bytes: int) -> MalformedEvent:
    """Return what is said of a record of too many bytes."""
    return MalformedEvent(f"the record has {len(value):,} bytes; the limit is {max_bytes:,}", Reason.TOO_LARGE)


def _with_hint(reason: str, hint: str) -> str:
    return f"{reason}; {hint}" if hint else reason
