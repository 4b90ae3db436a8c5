"""What became of a file's rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from recsys.data.event import Event
from recsys.data.mapping import OF_NOBODY
from recsys.files.row import Row

NO_CUSTOMER = "it has no customer"
NO_CUSTOMER_OF_RETURN = "it is a return, and has no customer"
_OF_NOBODY = OF_NOBODY | {NO_CUSTOMER, NO_CUSTOMER_OF_RETURN}


@dataclass(frozen=True, slots=True)
class Reject:
    """A row that was not taken, or not as a whole.

    Attributes
    ----------
    row : int
    place : str
        Where it is, as `Row.place`.
    reason : str
        What is wrong.
    values : sequence
        As they were, in the order of the file's columns; of rows that are objects, the line of JSON to be written.
    is_broken : bool
        Whether the values cannot be written as they were, so that what is written could pass for a valid row.
    """

    row: int
    place: str
    reason: str
    values: Sequence[Any]
    is_broken: bool = False

    @property
    def why(self) -> str:
        """Where it is and what is wrong, in one line."""
        return f"{self.place}: {self.reason}"


@dataclass(slots=True)
class ReadRow:
    """What a row comes to. It has several lines if it is an order, else it is one line itself.

    Attributes
    ----------
    row : Row
    events : list of (position, Event)
        A position is the number of a line, from 1 over all rows. Those of a row follow one another.
    left_out : sequence of (line, reason)
        What does not count, and why; the line is None for the row as a whole.
    reject : Reject or None
        If something is wrong with it.
    lines : int
        How many it has: at least 1.
    unread_prices, with_time_of_day : int
        See `Batch`.
    """

    row: Row
    events: list[tuple[int, Event]] = field(default_factory=list)
    left_out: Sequence[tuple[int | None, str]] = ()
    reject: Reject | None = None
    lines: int = 1
    unread_prices: int = 0
    with_time_of_day: int = 0


@dataclass(slots=True)
class Batch:
    """Some consecutive rows of a file, whole ones.

    Attributes
    ----------
    first_row, last_row : int
        Positions: numbers of rows, or of their lines where rows have several.
    rows : int
    events : list of (position, Event)
    rejects : list of Reject
    rejected : int
        Lines of these that do not count.
    skipped_rows : int
        Rows that hold no event, with nothing wrong.
    no_user : int
        Lines of a user who is none: passed over.
    left_out : int
        Lines that do not count by another rule of the mapping.
    reasons : mapping
        Why lines do not count → how many, and the place of the first one.
    unread_prices : int
        Events whose price could not be read, and is left out.
    with_time_of_day : int
        Events whose time is not midnight in its zone.
    """

    first_row: int
    last_row: int
    rows: int = 0
    events: list[tuple[int, Event]] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    rejected: int = 0
    skipped_rows: int = 0
    no_user: int = 0
    left_out: int = 0
    reasons: dict[str, tuple[int, str]] = field(default_factory=dict)
    unread_prices: int = 0
    with_time_of_day: int = 0

    def add(self, read: ReadRow) -> None:
        """Add the row that follows."""
        self.rows += 1
        self.last_row += read.lines
        self.events += read.events
        self.unread_prices += read.unread_prices if read.events else 0
        self.with_time_of_day += read.with_time_of_day
        if read.reject is not None:
            self.rejects.append(read.reject)
            if not read.events:  # the whole row waits
                self.rejected += read.lines
                return
            self.rejected += read.lines - len(read.events) - len(read.left_out)
        elif not read.events:
            self.skipped_rows += 1
        for _, why in read.left_out:
            if why in _OF_NOBODY:
                self.no_user += 1
            else:
                self.left_out += 1
            count, place = self.reasons.get(why, (0, read.row.place))
            self.reasons[why] = count + 1, place


@dataclass(slots=True)
class RowCounts:
    """What became of a file's rows, and of their lines where rows have several; else a row is one line.

    Attributes
    ----------
    rows, rejected_rows, skipped_rows : int
        Of a rejected row, lines may count all the same, if the mapping says so. A skipped one holds no event.
    read : int
        Lines, all of them: valid, rejected, those of no user and those left out together.
    valid, rejected, no_user, left_out : int
    unread_prices : int
        Of the valid ones, those whose price is left out.
    """

    rows: int = 0
    rejected_rows: int = 0
    skipped_rows: int = 0
    read: int = 0
    valid: int = 0
    rejected: int = 0
    no_user: int = 0
    left_out: int = 0
    unread_prices: int = 0

    def note(self, batch: Batch) -> None:
        """Add the rows of a batch."""
        self.rows += batch.rows
        self.rejected_rows += len(batch.rejects)
        self.skipped_rows += batch.skipped_rows
        self.read += batch.last_row - batch.first_row + 1
        self.valid += len(batch.events)
        self.rejected += batch.rejected
        self.no_user += batch.no_user
        self.left_out += batch.left_out
        self.unread_prices += batch.unread_prices

    def equations(self, became: Mapping[str, int]) -> list[str]:
        """Return a line that accounts for every row, and where rows have lines, one that accounts for every line.

        ``became`` is what valid lines became → how many.
        """
        parts = {**became, "rejected": self.rejected, "skipped (no customer)": self.no_user}
        if self.left_out:
            parts["skipped (by the mapping)"] = self.left_out
        if self.read == self.rows:
            return [_equation(self.read, "row", parts)]
        used = self.rows - self.rejected_rows - self.skipped_rows
        of_rows = {"taken": used, "rejected": self.rejected_rows, "skipped": self.skipped_rows}
        return [_equation(self.rows, "row", of_rows), _equation(self.read, "line", parts)]


def _equation(total: int, what: str, parts: Mapping[str, int]) -> str:
    counted = f"1 {what}" if total == 1 else f"{total:,} {what}s"
    return f"{counted} read = {' + '.join(f'{count:,} {part}' for part, count in parts.items())}"
