"""Which columns of a file hold the fields of an event, and how they are to be read: what the operator says of it."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class Columns:
    """Where the fields of an event are found, and how to read them.

    An optional column that the file does not have is taken as absent; one that was named on the command line must
    be there.
    """

    user_id: str = "user_id"
    item_id: str = "item_id"
    quantity: str = "quantity"
    timestamp: str = "timestamp"
    price: str = "price"
    event_id: str = "event_id"
    type: str = "type"
    timezone: str = "UTC"
    """Zone of times that carry none."""
    timestamp_format: str = ""
    """strptime format of times; empty means ISO 8601, or a number since 1970."""
    timestamp_unit: str = ""
    """Unit of numbers since 1970 (s, ms, us, ns); empty means the only one that fits."""
    decimal: str = ""
    """Decimal mark of quantities and prices; empty means the only one that can be."""
    thousands: str = ""
    """Mark between thousands; empty means none."""
    integer_ids: bool | None = None
    """Read ids such as 17850.0 as integers; None means if all ids of the column are such."""
    no_user: tuple[str, ...] = ()
    """Further ids that are no customers, besides `events.no_user` and the usual ones."""
    every_user: bool = False
    """Take the usual ones, such as 0 and NULL, for customers."""
    negative_returns: bool = False
    """Read a negative quantity as a return."""
    encoding: str = "utf8"
    """Of CSV files."""
    delimiter: str = ","
    """Between the fields of CSV files."""

    def mapping(self) -> dict[str, str]:
        """Return event field → column name."""
        return {field: getattr(self, field) for field in EVENT_FIELDS}


EVENT_FIELDS = ("user_id", "item_id", "quantity", "timestamp", "price", "event_id", "type")
REQUIRED = ("user_id", "item_id", "timestamp")
DEFAULTS = {field.name: field.default for field in fields(Columns)}
