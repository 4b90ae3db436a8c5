"""Times in files: text in one form, dates, times with or without a zone, and integers since 1970."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, tzinfo
from typing import Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from recsys.data.epoch import DAY_MS, EpochUnit, epoch_ms, fitting_units, no_unit_reason
from recsys.errors import InputFileError, MalformedEvent

_NUMBER: Final = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?")
_DIGITS_ALONE: Final = re.compile("%[dmyYHMSj]%[dmyYHMSj]")
_OPTIONS = "name the unit with --timestamp-unit (s, ms, us, ns), or the form, such as %Y%m%d, with --timestamp-format"


def time_zone(name: str) -> tzinfo:
    """Return a time zone.

    Raises
    ------
    InputFileError
        When there is none of this name.
    """
    if name.upper() == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InputFileError(f"--timezone: {name!r} is not a time zone; an example is Europe/London") from None


def check_format(timestamp_format: str) -> None:
    """Refuse a form that strptime does not know, or that says nothing of the time.

    Raises
    ------
    InputFileError
    """
    try:
        datetime.strptime("", timestamp_format)
    except ValueError as error:
        if "does not match" not in str(error):
            raise InputFileError(f"--timestamp-format: {error}") from None
    if timestamp_format and "%" not in timestamp_format.replace("%%", ""):
        raise InputFileError(
            f"--timestamp-format: {timestamp_format!r} names no part of a time; write it as %Y-%m-%d %H:%M is written"
        )


@dataclass(frozen=True, slots=True)
class TimeReading:
    """How a column's times are read.

    Attributes
    ----------
    zone : tzinfo
        Of times that carry none.
    form : str
        strptime format; empty is ISO 8601, or a number since 1970.
    unit : EpochUnit or None
        Of numbers; None as long as it is not known.
    oldest_ms, newest_ms : int
        A number is never a time outside of these, unless its unit was named.
    """

    zone: tzinfo
    form: str
    unit: EpochUnit | None
    oldest_ms: int
    newest_ms: int
    unit_is_named: bool = False

    def number(self, value: Any) -> int | float | None:
        """Return a value that is a number since 1970 as such, None for any other."""
        if self.form or isinstance(value, bool):
            return None
        if isinstance(value, str):
            text = value.strip()
            if not _NUMBER.fullmatch(text) or not text.isascii() or len(text) > 30:
                return None
            return float(text) if "." in text else int(text)
        if isinstance(value, float):
            return None if not math.isfinite(value) else int(value) if value.is_integer() else value
        if isinstance(value, int):
            return value
        return int(value) if type(value).__name__ == "Decimal" and value == int(value) else None

    def moment(self, value: Any) -> datetime:
        """Return what a value that is no number means.

        Raises
        ------
        MalformedEvent
        """
        if isinstance(value, bool):
            raise MalformedEvent(f"timestamp: {value!r} is not a time")
        if self.form and isinstance(value, int | float):
            value = str(int(value)) if isinstance(value, int) or value.is_integer() else str(value)
        if isinstance(value, date) and not isinstance(value, datetime):
            value = datetime(value.year, value.month, value.day)
        if isinstance(value, str):
            value = self._parsed(value.strip())
        if not isinstance(value, datetime):
            raise MalformedEvent(f"timestamp: {str(value)[:40]!r} is not a time")
        return value if value.tzinfo else value.replace(tzinfo=self.zone)

    def epoch_ms(self, value: Any) -> tuple[int, bool]:
        """Return a value's time in epoch milliseconds, and whether it is not midnight in its zone.

        Raises
        ------
        MalformedEvent
        """
        number = self.number(value)
        if number is None:
            moment = self.moment(value)
            has_time_of_day = bool(moment.hour or moment.minute or moment.second or moment.microsecond)
            return epoch_ms(moment), has_time_of_day
        if self.unit is None or not self._fits(int(number), self.unit):
            reason = no_unit_reason(int(number), oldest_ms=self.oldest_ms, newest_ms=self.newest_ms)
            raise MalformedEvent(f"timestamp: {reason}")
        if isinstance(number, float) and self.unit in (EpochUnit.SECONDS, EpochUnit.MILLISECONDS):
            return round(number * (1000 if self.unit is EpochUnit.SECONDS else 1)), True
        moment_ms = self.unit.to_ms(int(number))
        return moment_ms, moment_ms % DAY_MS != 0

    def _fits(self, number: int, unit: EpochUnit) -> bool:
        return self.unit_is_named or self.oldest_ms <= unit.to_ms(number) <= self.newest_ms

    def _parsed(self, text: str) -> datetime:
        try:
            moment = datetime.strptime(text, self.form) if self.form else datetime.fromisoformat(text)
            # Digits without marks between them can be read in several ways once a leading zero is lost.
            if not self.form or not _DIGITS_ALONE.search(self.form) or moment.strftime(self.form) == text:
                return moment
        except ValueError:
            pass
        wanted = self.form or "ISO 8601; name another form with --timestamp-format"
        raise MalformedEvent(f"timestamp: {text[:40]!r} is not in the form {wanted}")


@dataclass(slots=True)
class TimeColumn:
    """What a column's numbers show of their unit: `note` each of them, then `decide`."""

    oldest_ms: int
    newest_ms: int
    counts: Counter[EpochUnit | None] = field(default_factory=Counter)
    examples: dict[EpochUnit | None, int] = field(default_factory=dict)

    def note(self, number: int) -> None:
        """Look at one number."""
        fitting = fitting_units(number, oldest_ms=self.oldest_ms, newest_ms=self.newest_ms)
        units: list[EpochUnit | None] = [*fitting] if fitting else [None]
        for unit in units:
            self.counts[unit] += 1
            self.examples.setdefault(unit, number)

    def decide(self, name: str) -> EpochUnit | None:
        """Return the only unit in which the column's numbers are times; None if there are no numbers.

        Raises
        ------
        InputFileError
            When there is none, or several.
        """
        units = [unit for unit in EpochUnit if self.counts[unit]]
        if len(units) > 1:
            readings = " and ".join(f"{self.examples[unit]} ({unit.word})" for unit in units)
            raise InputFileError(
                f"column {name!r} has numbers in several units since 1970, as in {readings}: {_OPTIONS}"
            )
        if not units and self.counts:
            reason = no_unit_reason(self.examples[None], oldest_ms=self.oldest_ms, newest_ms=self.newest_ms)
            raise InputFileError(f"column {name!r}: {reason}: {_OPTIONS}")
        return units[0] if units else None


def newest_of(now: datetime) -> int:
    """Return the newest time that a number may mean, in epoch milliseconds: a day after ``now``."""
    return round(now.timestamp() * 1000) + DAY_MS
