"""What values of rejected rows are marked with, and how an import takes it off.

There is a mark on rows that could pass for valid ones: their values could not be told from one another. And there is
one on values with which a formula would begin in a spreadsheet, where these files are mended.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

WHY: Final = "why"
"""The column that a file of rejected rows has besides those of its input."""
MARK: Final = "[broken row]"
"""Begins the first value of a row of CSV, or is the key of what stands in a line that is no object in JSON."""
_REMEDY: Final = f"; mend the values, then remove {MARK}"
_AGAIN: Final = "not mended yet: "
_NO_FORMULA: Final = "'"
_BEGINNING = "['\"\\s]*[=+\\-@\uff1d\uff0b\uff0d\uff20]"
"""How a value begins that a spreadsheet may calculate, whatever stands before it already; also in wide characters."""
_FORMULA = re.compile(rf"'*[\t\r\n]|{_BEGINNING}")
_NUMBER = re.compile(r"'*[+-]?(?=\.?[0-9])[0-9]*([.,][0-9]+)*(e[+-]?[0-9]+)?", re.IGNORECASE)
_PARTS = re.compile(r"([;,|\t\r\n])")
"""Where a spreadsheet may split a value, which has its own idea of what separates columns."""


def _is_formula(value: str) -> bool:
    return bool(_FORMULA.match(value)) and not _NUMBER.fullmatch(value)


def without_formula(value: str) -> str:
    """Return a value such that no spreadsheet calculates it, or a part of it.

    What would begin a formula gets a ``'`` before it: the value itself, and whatever follows a character in it that may
    separate columns or rows.
    """
    first, *others = _PARTS.split(value)
    kept = first + "".join(_NO_FORMULA + part if _is_formula_in_a_value(part) else part for part in others)
    return _NO_FORMULA + kept if _is_formula(kept) else kept


def with_formula(value: str) -> str:
    """Return the value that `without_formula` was given."""
    kept = value[1:] if value.startswith(_NO_FORMULA) and _is_formula(value) else value
    first, *others = _PARTS.split(kept)
    return first + "".join(
        part[1:] if part.startswith(_NO_FORMULA) and _is_formula_in_a_value(part) else part for part in others
    )


def _is_formula_in_a_value(part: str) -> bool:
    """Whether a part that follows a separator, or the separator itself, which is none, would begin a formula."""
    return not _PARTS.fullmatch(part) and _is_formula(part)


def _is_marked(value: str) -> bool:
    return value.lstrip().startswith(MARK)


def marked(values: Sequence[str], why: str) -> tuple[list[str], str]:
    """Return a row with the mark, and the reason with what to do; until the mark is removed, the row is rejected."""
    if any(map(_is_marked, values)):
        return list(values), why + _REMEDY
    first, *others = values or [""]
    return [f"{MARK} {first}".rstrip(), *others], why + _REMEDY


def why_not_mended(values: Sequence[str], why: str) -> str:
    """Return the reason for which a row of a file of rejected rows is rejected again, or nothing."""
    return not_mended(why.removesuffix(_REMEDY)) if any(map(_is_marked, values)) else ""


def not_mended(why: str) -> str:
    """Return why a row is rejected again, from why it was rejected first."""
    return _AGAIN + why.rpartition(_AGAIN)[2]
