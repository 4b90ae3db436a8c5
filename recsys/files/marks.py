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
_MARK: Final = "[broken row]"
_REMEDY: Final = f"; mend the values, then remove {_MARK}"
_AGAIN: Final = "not mended yet: "
_NO_FORMULA: Final = "'"
_FORMULA = re.compile(r"'*(?:[\t\r\n]|\s*[=+\-@\uff1d\uff0b\uff0d\uff20])")
"""How a value begins that a spreadsheet may calculate, whatever stands before it already; also in wide characters."""
_NUMBER = re.compile(r"'*[+-]?(?=\.?[0-9])[0-9]*([.,][0-9]+)*(e[+-]?[0-9]+)?", re.IGNORECASE)


def _is_formula(value: str) -> bool:
    return bool(_FORMULA.match(value)) and not _NUMBER.fullmatch(value)


def without_formula(value: str) -> str:
    """Return a value such that no spreadsheet calculates it: one that would begin a formula gets a ``'`` before it."""
    return _NO_FORMULA + value if _is_formula(value) else value


def with_formula(value: str) -> str:
    """Return the value that `without_formula` was given."""
    return value[1:] if value.startswith(_NO_FORMULA) and _is_formula(value) else value


def _is_marked(value: str) -> bool:
    return value.lstrip().startswith(_MARK)


def marked(values: Sequence[str], why: str) -> tuple[list[str], str]:
    """Return a row with the mark, and the reason with what to do; until the mark is removed, the row is rejected."""
    if any(map(_is_marked, values)):
        return list(values), why + _REMEDY
    first, *others = values or [""]
    return [f"{_MARK} {first}".rstrip(), *others], why + _REMEDY


def why_not_mended(values: Sequence[str], why: str) -> str:
    """Return the reason for which a row of a file of rejected rows is rejected again, or nothing."""
    return _AGAIN + why.removesuffix(_REMEDY).rpartition(_AGAIN)[2] if any(map(_is_marked, values)) else ""
