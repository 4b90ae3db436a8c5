"""Which rules the fields of an event break, in words and by code."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import ValidationError

from recsys.errors import Reason

_PLAIN_WORDS = {
    "missing": "is required",
    "string_pattern_mismatch": "must not contain control characters",
    "string_type": "must be a string or an integer of at most 64 bits",
    "string_too_short": "must not be empty",
    "string_too_long": "must have at most {max_length} characters",
    "string_unicode": "must be valid Unicode",
    "enum": "must be {expected}",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "greater_than": "must be more than {gt:,g}",
    "greater_than_equal": "must be {ge:,g} or more",
    "less_than_equal": "must be {le:,.0f} or less",
}
_NO_TIME = "must be a time from 1970-01-01 to 9999-12-31"


def broken_rules(error: ValidationError) -> Iterator[tuple[str, str]]:
    """Yield the path (with dots) of each field that breaks a rule, and what is wrong with it."""
    for problem in error.errors(include_url=False, include_input=False):
        field, kind = ".".join(str(part) for part in problem["loc"]), problem["type"]
        if field == "timestamp" and kind in ("greater_than_equal", "less_than_equal"):
            message = _NO_TIME
        elif kind in _PLAIN_WORDS:
            message = _PLAIN_WORDS[kind].format(**problem.get("ctx", {})).replace("'", "")
        else:
            message = problem["msg"].removeprefix("Value error, ")
        yield field, message


def first_reason(error: ValidationError) -> Reason:
    """Return the code of the first rule that is broken."""
    problem = error.errors(include_url=False, include_input=False)[0]
    if not problem["loc"]:
        return Reason.ITEM_ID_MISSING  # the one rule about several fields
    field = problem["loc"][0]
    return Reason(f"{field}_missing" if problem["type"] == "missing" else str(field))
