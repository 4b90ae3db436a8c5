"""Numbers as people write them: 1234.5, 1.234,5, 1 234,5; decided for a whole column, and never guessed."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from recsys.errors import InputFileError

THOUSANDS: Final = (".", ",", " ", "'", "")
_SPACES = "\u00a0\u202f\u2009"  # as typographers put them between thousands
_PLAIN = re.compile(r"[+-]?[0-9]+(?:[eE][+-]?[0-9]+)?")
_ONE_MARK = re.compile(r"[+-]?(?=[.,]?[0-9])([0-9]*)([.,])([0-9]*)(?:[eE][+-]?[0-9]+)?")
_GROUPED = re.compile(r"[+-]?[1-9][0-9]{0,2}(?:([.,])[0-9]{3})(?:\1[0-9]{3})+(?:[.,][0-9]+)?")
_GROUPED_WITH_DECIMALS = re.compile(r"[+-]?[1-9][0-9]{0,2}(?:([.,])[0-9]{3})+(?!\1)[.,][0-9]+")


def tidy(text: str) -> str:
    """Return a text without spaces around it and with plain ones in it."""
    return text.strip().translate(dict.fromkeys(map(ord, _SPACES), " "))


@dataclass(frozen=True)
class NumberFormat:
    """How a column writes numbers.

    Attributes
    ----------
    decimal, thousands : str
        The mark before decimals, and between thousands; no thousands are separated if that is empty.
    """

    decimal: str = "."
    thousands: str = ""

    def read(self, text: str) -> float:
        """Return a number.

        Raises
        ------
        ValueError
            When the text is not one; the message says why.
        """
        number = tidy(text)
        if not self._pattern.fullmatch(number):
            raise ValueError(f"{text[:40]!r} is not a number{self._hint(number)}")
        if self.thousands:
            number = number.replace(self.thousands, "")
        value = float(number.replace(self.decimal, "."))
        if not math.isfinite(value):
            raise ValueError(f"{text[:40]!r} is not a number of usual size")
        return value

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        digits = "[0-9]+"
        if self.thousands:
            digits = rf"(?:[0-9]{{1,3}}(?:{re.escape(self.thousands)}[0-9]{{3}})+|[0-9]+)"
        mark = re.escape(self.decimal)
        return re.compile(rf"[+-]?(?:{digits}(?:{mark}[0-9]*)?|{mark}[0-9]+)(?:[eE][+-]?[0-9]+)?")

    def _hint(self, number: str) -> str:
        if re.fullmatch(r"\(.*\)|.*[0-9]-", number):
            return "; a negative number is written -2"
        for mark in (".", ",", " ", "'"):
            if mark != self.decimal and re.search(rf"[0-9]{re.escape(mark)}[0-9]{{3}}(?![0-9])", number):
                return f"; if {mark!r} stands between thousands, say --thousands {mark!r}"
        other = "," if self.decimal == "." else "."
        if other not in number:
            return ""
        if other == self.thousands:
            return f"; {other} stands between thousands, so three digits must follow it"
        return f"; if {other} is the decimal mark, say --decimal {other}"


@dataclass(slots=True)
class NumberColumn:
    """What a column's texts show of how it writes numbers: `note` each of them, then `decide`.

    Attributes
    ----------
    examples : dict of str → str
        Kind of evidence → the first text that gives it. ``decimal .`` can only be a decimal point, ``thousands .`` only
        a point between thousands, ``either .`` may be both; the same with commas.
    """

    examples: dict[str, str] = field(default_factory=dict)

    def note(self, text: str) -> None:
        """Look at one text."""
        number = tidy(text).replace(" ", "").replace("'", "")
        if _PLAIN.fullmatch(number):
            return
        if found := _ONE_MARK.fullmatch(number):
            whole, mark, decimals = found.groups()
            is_either = len(decimals) == 3 and re.fullmatch("[1-9][0-9]{0,2}", whole)
            self.examples.setdefault(f"{'either' if is_either else 'decimal'} {mark}", number)
        elif found := _GROUPED_WITH_DECIMALS.fullmatch(number) or _GROUPED.fullmatch(number):
            self.examples.setdefault(f"thousands {found[1]}", number)

    def decide(self, name: str, *, decimal: str, thousands: str) -> NumberFormat:
        """Return the one format that the texts and the options allow.

        Parameters
        ----------
        name : str
            The column's name, for the error.
        decimal, thousands : str
            As the options say; empty is what the texts show.

        Raises
        ------
        InputFileError
            When the column can be read in two ways, with both readings.
        """
        marks = {".": ",", ",": "."}
        if decimal or thousands in marks:
            return NumberFormat(decimal or marks[thousands], thousands)
        points, commas = (
            self.examples.get(f"decimal {mark}") or self.examples.get(f"thousands {marks[mark]}") for mark in ".,"
        )
        if points and commas:
            raise InputFileError(
                f"column {name!r} writes decimals in two ways, as in {points} and {commas}: name the decimal mark with "
                f"--decimal; rows of the other form are then rejected"
            )
        for mark, other in marks.items():
            either = self.examples.get(f"either {mark}")
            if either and not points and not commas:
                as_decimal = f"{float(either.replace(mark, '.')):g}"
                as_whole = either.replace(mark, "")
                raise InputFileError(
                    f"column {name!r} can be read in two ways: {either} is {as_decimal} or {as_whole}. Say --decimal "
                    f"{mark} for the first, or --decimal {other} --thousands {mark} for the second"
                )
        return NumberFormat("," if commas else ".", thousands)
