"""What became of a file's rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from recsys.data.event import Event


@dataclass(frozen=True, slots=True)
class Reject:
    """A row that was not taken.

    Attributes
    ----------
    row : int
    why : str
        Where it is and what is wrong.
    values : sequence
        As they were, in the order of the file's columns.
    is_broken : bool
        Whether the values cannot be written as they were, so that what is written could pass for a valid row.
    """

    row: int
    why: str
    values: Sequence[Any]
    is_broken: bool = False


@dataclass(slots=True)
class Batch:
    """Some consecutive rows of a file.

    Attributes
    ----------
    first_row, last_row : int
    events : list of (row, Event)
    rejects : list of Reject
    no_user : int
        Rows of a user who is none: passed over.
    unread_prices : int
        Events whose price could not be read, and is left out.
    with_time_of_day : int
        Events whose time is not midnight in its zone.
    """

    first_row: int
    last_row: int
    events: list[tuple[int, Event]] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    no_user: int = 0
    unread_prices: int = 0
    with_time_of_day: int = 0


@dataclass(slots=True)
class RowCounts:
    """What became of a file's rows.

    Attributes
    ----------
    read : int
        All of them: valid, rejected and those of no user together.
    valid, rejected, no_user : int
    unread_prices : int
        Of the valid ones, those whose price is left out.
    """

    read: int = 0
    valid: int = 0
    rejected: int = 0
    no_user: int = 0
    unread_prices: int = 0

    def note(self, batch: Batch) -> None:
        """Add the rows of a batch."""
        self.read += batch.last_row - batch.first_row + 1
        self.valid += len(batch.events)
        self.rejected += len(batch.rejects)
        self.no_user += batch.no_user
        self.unread_prices += batch.unread_prices

    def equation(self, became: Mapping[str, int]) -> str:
        """Return one line that accounts for every row; ``became`` is what valid ones became → how many."""
        parts = {**became, "rejected": self.rejected, "skipped (no customer)": self.no_user}
        rows = "1 row" if self.read == 1 else f"{self.read:,} rows"
        return f"{rows} read = {' + '.join(f'{count:,} {what}' for what, count in parts.items())}"
