"""What a line of `recsys status` is: a level, what is so, and what to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

_TENFOLD = 10


class Level(IntEnum):
    """How bad it is; the worst one is the exit code of `recsys status`."""

    OK = 0
    WARNING = 1
    BROKEN = 2


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that can be well or not.

    Attributes
    ----------
    code : str
        Never changes.
    name : str
    level : Level
    text : str
        What is so.
    remedy : str
        What to look at or do, with the section of docs/operations.md; empty where all is well, or another line says it.
    """

    code: str
    name: str
    level: Level
    text: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class State:
    """All lines, and the worst level among them."""

    lines: Sequence[Line]

    @property
    def level(self) -> Level:
        """The worst level."""
        return max((line.level for line in self.lines), default=Level.OK)

    @property
    def sentence(self) -> str:
        """What an operator wants to know first."""
        broken = [line.name for line in self.lines if line.level is Level.BROKEN]
        warned = [line.name for line in self.lines if line.level is Level.WARNING]
        if broken:
            warnings = f" Warnings: {', '.join(warned)}." if warned else ""
            return f"Something is broken: {', '.join(broken)}.{warnings}"
        if warned:
            return f"The shop is served. Look at: {', '.join(warned)}."
        return "The shop is served."


def rising(code: str, name: str, text: str, value: float, threshold: float, remedy: str) -> Line:
    """Return a line that is not well once a value is above a threshold, and broken at ten times that."""
    level = Level.BROKEN if value > _TENFOLD * threshold else Level.WARNING if value > threshold else Level.OK
    return Line(code, name, level, text, remedy if level else "")


def falling(code: str, name: str, text: str, left: float, threshold: float, remedy: str) -> Line:
    """Return a line that is not well once what is left is below a threshold, and broken at a tenth of that."""
    level = Level.BROKEN if left < threshold / _TENFOLD else Level.WARNING if left < threshold else Level.OK
    return Line(code, name, level, text, remedy if level else "")
