"""Rows of tables, whatever they were read from."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a table.

    Attributes
    ----------
    number : int
        From 1, over all files of the table; in a CSV file the header is no row.
    place : str
        Where people find it: ``line 7`` of text, ``row 6`` of Parquet; of several files with the name of the one.
    values : sequence
        In the order of the table's columns; if there is a problem, as many as there are. Of Parquet and JSON, None
        in columns that were not asked for.
    problem : str
        Why the row cannot be read; empty if it can.
    others : callable or None
        Returns the values of all columns, where `values` are not all.
    """

    number: int
    place: str
    values: Sequence[Any]
    problem: str = ""
    others: Callable[[], Sequence[Any]] | None = None

    def all_values(self) -> Sequence[Any]:
        """Return the values of all columns, those not asked for as well."""
        return self.values if self.others is None else self.others()


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A value that is neither an id nor a number nor a time, such as a time after the year 9999, or a list."""

    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is wanted of the rows of one file.

    Attributes
    ----------
    names : sequence of str
        The columns of the table, in whose order values come.
    places : collection of int
        Those of them that are needed.
    looks_like_row : callable
        See `recsys.files.csv_rows.read_rows`.
    before : int
        Rows of the table that stand in earlier files.
    file : str
        The file's name and a space, if there are several.
    """

    names: Sequence[str]
    places: Collection[int]
    looks_like_row: Callable[[Sequence[Any]], bool]
    before: int = 0
    file: str = ""


def places_of(wanted: Sequence[str], names: Sequence[str]) -> list[int]:
    """Return where the wanted names are among others, which are the same in another order; some may be there twice."""
    left: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        left.setdefault(name, []).append(place)
    return [left[name].pop(0) for name in wanted]
