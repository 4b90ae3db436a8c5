"""The mark on rejected rows that could pass for valid ones: their values could not be told from one another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

WHY: Final = "why"
"""The column that a file of rejected rows has besides those of its input."""
_MARK: Final = "[broken row]"
_REMEDY: Final = f"; mend the values, then remove {_MARK}"
_AGAIN: Final = "not mended yet: "


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
