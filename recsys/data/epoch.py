"""Integers that say when: time since 1970, in whatever unit puts it where events can be."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

LAST_MS: Final = 253_402_300_799_999
"""9999-12-31T23:59:59.999Z."""
OLDEST_MS: Final = 631_152_000_000
"""1990-01-01T00:00:00Z: no shop sold anything online before."""
NEWEST_MS: Final = 4_102_444_800_000
"""2100-01-01T00:00:00Z: where nothing else limits a time. No date written in digits (20261122101112) lies below."""
DAY_MS: Final = 86_400_000
_LONGEST_SHOWN = 40


class EpochUnit(StrEnum):
    """A unit of time since 1970-01-01 UTC."""

    SECONDS = "s"
    MILLISECONDS = "ms"
    MICROSECONDS = "us"
    NANOSECONDS = "ns"

    @property
    def word(self) -> str:
        """The unit's name."""
        return self.name.lower()

    def to_ms(self, value: int) -> int:
        """Return a time in this unit in epoch milliseconds, rounded down."""
        return value * 1000 if self is EpochUnit.SECONDS else value // _PER_MS[self]


_PER_MS = {EpochUnit.MILLISECONDS: 1, EpochUnit.MICROSECONDS: 1000, EpochUnit.NANOSECONDS: 1_000_000}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


def newest_ms(sent_ms: int | None) -> int:
    """Return the newest time that an event may have: a day after it was sent; the year 2100, if that is not known."""
    if sent_ms is None:
        return NEWEST_MS
    a_day_after = sent_ms + DAY_MS
    return a_day_after if a_day_after < LAST_MS else LAST_MS


def fitting_units(value: int, *, oldest_ms: int, newest_ms: int) -> list[EpochUnit]:
    """Return the units in which an integer is a time from the oldest to the newest, both included.

    From 1990 on it is never more than one unit: the year 9999 is only 400 times as far from 1970.
    """
    return [unit for unit in EpochUnit if oldest_ms <= unit.to_ms(value) <= newest_ms]


def no_unit_reason(value: int, *, oldest_ms: int, newest_ms: int) -> str:
    """Say why an integer is no time: in none of the units, or in several."""
    fitting = fitting_units(value, oldest_ms=oldest_ms, newest_ms=newest_ms)
    if len(fitting) > 1:
        readings = " or ".join(f"{iso_time(unit.to_ms(value))} in {unit.word}" for unit in fitting)
        return f"{value} may be {readings} since 1970"
    return (
        f"{value} is no time from {iso_time(oldest_ms)[:10]} to {iso_time(newest_ms)[:10]}, in "
        f"{', '.join(list(EpochUnit)[:-1])} or {list(EpochUnit)[-1]} since 1970"
    )


def epoch_ms(moment: datetime) -> int:
    """Return a time with a zone in epoch milliseconds, rounded down, as integers in finer units are."""
    return (moment - _EPOCH) // _MILLISECOND


def iso_time(epoch_ms: int) -> str:
    """Format epoch milliseconds as RFC 3339 in UTC, with milliseconds where there are some."""
    moment = _EPOCH + timedelta(milliseconds=epoch_ms)
    return moment.isoformat(timespec="milliseconds" if epoch_ms % 1000 else "seconds").replace("+00:00", "Z")


def shown(value: object) -> str:
    """Return the beginning of what is no time, in quotes, for an error text."""
    text = value if isinstance(value, str) else repr(value)
    return repr(text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…")
