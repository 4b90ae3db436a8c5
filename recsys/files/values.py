"""Single values of a table, read alike from every format."""

from __future__ import annotations

import math
import re
import uuid
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, Final

import orjson

from recsys.errors import InputFileError, MalformedEvent

NO_VALUE: Final = frozenset({"", "null", "\\n", "nan", "<na>", "#n/a", "none", "nil", "undefined"})
"""What stands for no value, in lower case."""
NO_USER: Final = (
    *sorted(NO_VALUE - {""}),
    "na",
    "n/a",
    "0",
    "0.0",
    "-1",
    "-1.0",
    "00000000-0000-0000-0000-000000000000",
)
"""What exports write as the id of a customer who is none, in lower case."""
_FLOAT_FORM = re.compile(r"-?[0-9]+\.0+")
_SHORTENED = re.compile(r"-?[0-9]+(?:[.,][0-9]+)?[eE]\+[0-9]+")
_SURELY_WRITTEN = 250
"""Levels of JSON: orjson reads about a thousand, but writes 254 only."""
_EXACT = 2**53
"""From here on floats leave integers out."""
_LARGEST = 2**63
"""From here on an integer is text in JSON, for many programs read it as a float."""


def is_absent(value: Any) -> bool:
    """Whether a value stands for none: null, not a number, nothing but spaces, or a word such as NULL."""
    if value is None:
        return True
    if isinstance(value, str):
        return value.strip().lower() in NO_VALUE
    return isinstance(value, float) and math.isnan(value)


@dataclass(slots=True)
class IdColumn:
    """What a column's ids show: whether they are integers that a program has written as 17850.0.

    Attributes
    ----------
    in_float_form, others : int
        Ids of that form, and all others.
    example : str
    """

    in_float_form: int = 0
    others: int = 0
    example: str = ""

    def note(self, value: Any) -> None:
        """Look at one value; one that has lost digits shows nothing, for its row is rejected."""
        if _why_lost(value):
            return
        if integer_of(value):
            self.in_float_form += 1
            self.example = self.example or str(value)
        else:
            self.others += 1

    def are_integers(self, asked: bool | None) -> bool:
        """Whether ids in float form are integers: as asked, else if all are."""
        return bool(self.in_float_form) and (not self.others if asked is None else asked)

    def remark(self, name: str, asked: bool | None) -> str:
        """Return the line that says so, if there is something to say and nobody has asked."""
        if not self.in_float_form or asked is not None:
            return ""
        if self.others:
            return (
                f"column {name!r}: some ids ({self.in_float_form:,}) are written with a decimal point, such as "
                f"{self.example}, and others are not; --integer-ids reads them as integers, --no-integer-ids keeps "
                f"them so, as now, in every file of this shop"
            )
        return (
            f"column {name!r}: ids are written with a decimal point, such as {self.example}, and read as integers, "
            f"such as {self.example.partition('.')[0]}; --no-integer-ids keeps them as they are"
        )


def json_value(value: Any) -> Any:
    """Return a value as JSON would hold it, and everything in it.

    A number that is whole is an integer, whatever type its column has: ids and times with gaps become floats in many
    programs. What is not a number is null, times are ISO 8601.
    """
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int | float | Decimal):
        return _json_number(value)
    if isinstance(value, dict):
        return {name: json_value(inner) for name, inner in value.items()}
    if isinstance(value, list):
        if value and all(isinstance(inner, tuple) for inner in value):  # the type map of Arrow
            return {str(name): json_value(inner) for name, inner in value}
        return [json_value(inner) for inner in value]
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    return str(value)


def _json_number(value: int | float | Decimal) -> int | float | str | None:
    if not math.isfinite(value):
        return None
    whole = int(value)
    if value != whole or (isinstance(value, float) and abs(value) >= _EXACT):
        return float(value)
    return whole if abs(whole) < _LARGEST else str(whole)


def parsed_json(text: str) -> Any:
    """Return what is written in JSON, if it can be written again, be it as a column of an object.

    Raises
    ------
    orjson.JSONDecodeError
        When it is no JSON.
    ValueError
        When it is nested too deeply.
    """
    found = orjson.loads(text)
    if text.count("[") + text.count("{") > _SURELY_WRITTEN:
        try:
            orjson.dumps([found])
        except TypeError:
            raise ValueError("is nested too deeply") from None
    return found


def json_of_text(text: str) -> Any:
    """Return what a value of a table means that is text: the list or the object that it is in JSON, null, or itself."""
    if is_absent(text):
        return None
    if text.lstrip()[:1] in ("[", "{"):
        try:
            return parsed_json(text)
        except ValueError:
            return text
    return text


def id_text(name: str, value: Any, *, integers: bool) -> Any:
    """Return an id as its text, or what it is if it cannot be one.

    Raises
    ------
    MalformedEvent
        When it is certain that this is not the id that it was.
    """
    if reason := _why_lost(value):
        raise MalformedEvent(f"{name}: {reason}")
    if integers and (integer := integer_of(value)):
        return integer
    if isinstance(value, Decimal):
        return str(int(value)) if value == value.to_integral_value() else str(value)
    return str(value) if isinstance(value, float | uuid.UUID) else value


def integer_of(value: Any) -> str:
    """Return the integer that a program has written as 17850.0; empty if the value has no such form."""
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else ""
    return value.partition(".")[0] if isinstance(value, str) and _FLOAT_FORM.fullmatch(value) else ""


def is_spoilt_id(text: str) -> bool:
    """Whether an id has a form that it got because a program took it for a number: 17850.0, 1,23E+05."""
    return text[-1:].isdecimal() and bool(_FLOAT_FORM.fullmatch(text) or _SHORTENED.fullmatch(text))


def is_kept_by_text(value: Any) -> bool:
    """Whether a value is the same once it has been written as text; others could pass for ids then."""
    if isinstance(value, float | Decimal):
        return not math.isinf(value)
    return value is None or (isinstance(value, str | int | uuid.UUID) and not isinstance(value, bool))


def _why_lost(value: Any) -> str:
    """Return why it is certain that this is not the id that it was, or nothing."""
    if isinstance(value, str) and "+" in value and _SHORTENED.fullmatch(value):
        return f"{value!r} is a long number that a program has shortened: export ids as text"
    if isinstance(value, float) and abs(value) >= _EXACT:
        return f"{value!r} is a long number that has lost digits: export ids as text"
    if isinstance(value, bytes):
        return "bytes that are not UTF-8 are no id"
    return ""


def number_of(name: str, value: Any) -> float:
    """Return a number that is no text.

    Raises
    ------
    MalformedEvent
    """
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        number = float(value)
        if math.isfinite(number):
            return number
    raise MalformedEvent(f"{name}: {str(value)[:40]!r} is not a number")


def one_of(option: str, value: str, allowed: tuple[str, ...]) -> str:
    """Return the value of an option.

    Raises
    ------
    InputFileError
        When it is none of those allowed.
    """
    if value not in allowed:
        quoted = [repr(str(word)) for word in allowed if word]
        raise InputFileError(f"{option}: must be {', '.join(quoted[:-1])} or {quoted[-1]}, not {value!r}")
    return value
