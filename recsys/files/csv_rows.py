"""Rows of CSV text. A broken row costs itself alone: what stands between two stray quotes is still read."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TextIO

from recsys.errors import InputFileError
from recsys.files.marks import WHY, why_not_mended, with_formula
from recsys.files.row import Row, Wanted, places_of

LONGEST_LINE = 1 << 20
"""Characters of a line of text; a longer one is no line of a table."""
_MOST_LINES = 200
"""Of a quoted value: a quote that is never closed costs no more time than that, however many there are."""
_NUL = "a NUL character (byte 0) stands in this line"
_NEVER_CLOSED = "a quote is opened in this line and never closed as it should be"
# A value in quotes may be as long as one without. The limit holds for the whole process; nothing relies on a lower one.
csv.field_size_limit(max(csv.field_size_limit(), LONGEST_LINE))


@dataclass(frozen=True, slots=True)
class CsvRow:
    """One row.

    Attributes
    ----------
    line : int
        The line where it begins, from 1.
    values : sequence of str
    problem : str
        Why it cannot be read; empty if it can.
    """

    line: int
    values: Sequence[str]
    problem: str = ""


class _Lines:
    """The lines of a file, some of which may be given back."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._given_back: deque[str] = deque()
        self.number = 0

    def next(self) -> str:
        """Return the next line with its end, or an empty text after the last one."""
        line = self._given_back.popleft() if self._given_back else self._file.readline(LONGEST_LINE)
        if line:
            self.number += 1
        if len(line) == LONGEST_LINE:
            raise InputFileError(f"line {self.number:,} is longer than {LONGEST_LINE:,} characters")
        return line

    def give_back(self, lines: Sequence[str]) -> None:
        """Have these lines come once more, next."""
        self._given_back.extendleft(reversed(lines))
        self.number -= len(lines)


def read_rows(
    file: TextIO, delimiter: str, *, looks_like_row: Callable[[Sequence[str]], bool] = lambda _: False
) -> Iterator[CsvRow]:
    """Yield the rows of CSV text (RFC 4180); empty lines are passed over.

    A quoted value may run over several lines. Where it is not closed, or closed in the middle of a value, or where one
    of the lines that it swallows is itself a row, the line in which it is opened is the problem, and reading goes on
    with the next line.

    Parameters
    ----------
    file : text file
        Opened with ``newline=""``.
    delimiter : str
    looks_like_row : callable
        Whether the values of a line make it a row of its own.

    Raises
    ------
    InputFileError
        When a line has more than a million characters.
    """
    lines = _Lines(file)
    while line := lines.next():
        begin, text = lines.number, line.rstrip("\r\n")
        if not text:
            continue
        if '"' not in text:
            yield CsvRow(begin, text.split(delimiter), _NUL if "\0" in text else "")
            continue
        taken = [line]

        def more(first: str = line, taken: list[str] = taken) -> Iterator[str]:
            yield first
            while len(taken) < _MOST_LINES and (following := lines.next()):
                taken.append(following)
                if looks_like_row(following.rstrip("\r\n").split(delimiter)):
                    return
                yield following

        try:
            values = next(csv.reader(more(), delimiter=delimiter, strict=True))
            problem = ""
        except csv.Error as error:
            problem = _why_broken(error, len(taken))
        if not problem and any("\0" in value for value in values):
            problem = _NUL
        if problem:
            lines.give_back(taken[1:])
            values = text.split(delimiter)
        yield CsvRow(begin, values, problem)


def csv_names(file: TextIO, delimiter: str) -> list[str]:
    """Return the columns that the first line names, without spaces around them; nothing if there is no line.

    Raises
    ------
    InputFileError
        When the line cannot be read.
    """
    first = next(read_rows(file, delimiter), None)
    if first is not None and first.problem:
        raise InputFileError(f"line {first.line}: {first.problem}")
    names = [] if first is None else [name.strip() for name in first.values]
    return [with_formula(name) for name in names] if WHY in names else names


def csv_table_rows(file: TextIO, delimiter: str, names: Sequence[str], wanted: Wanted) -> Iterator[Row]:
    """Yield the rows after the header, whose columns are `names`.

    Raises
    ------
    InputFileError
        See `read_rows`.
    """
    width, why = len(names), names.index(WHY) if WHY in names else None
    order = places_of(wanted.names, names)
    is_in_order = order == list(range(width))

    def looks_like_row(values: Sequence[str]) -> bool:
        return len(values) == width and wanted.looks_like_row([values[place] for place in order])

    rows = read_rows(file, delimiter, looks_like_row=looks_like_row)
    next(rows, None)  # the header
    for number, row in enumerate(rows, wanted.before + 1):
        values, problem = row.values, row.problem
        if not problem and len(values) != width:
            columns = "1 column" if len(values) == 1 else f"{len(values)} columns"
            problem = f"the line has {columns}, the header {width}"
        if why is not None:
            values = [with_formula(value) for value in values]
            problem = problem or why_not_mended(values, values[why])
        if not is_in_order and len(values) == width:
            values = [values[place] for place in order]
        yield Row(number, f"{wanted.file}line {row.line}", values, problem)


def _why_broken(error: csv.Error, lines: int) -> str:
    if "field limit" in str(error):
        return f"a value in quotes is longer than {LONGEST_LINE:,} characters"
    if lines > 1 or "end of data" in str(error):
        return _NEVER_CLOSED
    return "a quote stands where none may: inside of quotes it is written twice"
