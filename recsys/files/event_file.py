"""Files whose rows become events, whatever finds them there: options that name columns, or a mapping."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson

from recsys.files.batches import Batch, ReadRow
from recsys.files.rejects import RejectsFile, rejects_path
from recsys.files.remedies import Remedies
from recsys.files.row import Row, Unreadable
from recsys.files.tables import Table
from recsys.files.values import json_value
from recsys.runtime.progress import Stage

_BATCH_LINES = 50_000
_MOST_HELD = 20_000_000
"""Characters of rejected rows in memory."""
CheckUser = Callable[[str], None]
"""Raises `MalformedEvent` for ids of users that cannot be."""


def in_json(row: Row, names: Sequence[str], values: Sequence[Any]) -> bytes:
    """Return a row with these values, in the order of the columns, as JSON; what it cannot hold is text."""
    if row.problem:
        return "\n".join(map(str, values)).encode(errors="backslashreplace")
    return orjson.dumps(dict(zip(names, map(json_value, values), strict=True)))


def any_user(user_id: str) -> None:
    """Refuse nobody."""


class EventFile(ABC):
    """One file or several, read as one table. Rows are numbered from 1; a header is no row.

    Attributes
    ----------
    table : Table
    """

    table: Table
    _stage: Stage

    @property
    def label(self) -> str:
        """What errors name."""
        return self.table.inputs.label

    @property
    def name(self) -> str:
        """The same without folders."""
        return self.table.inputs.name

    @property
    @abstractmethod
    def rows(self) -> int:
        """The number of rows, broken ones included; all are read to find that out.

        Raises
        ------
        InputFileError
            When the file cannot be read to its end.
        """

    @property
    @abstractmethod
    def remarks(self) -> Sequence[str]:
        """What should be said about how the file is read, a line each."""

    @property
    def frequent_users(self) -> Sequence[str]:
        """A line for each user with a large share of the rows, where looking through them has shown some."""
        return ()

    @property
    @abstractmethod
    def remedies(self) -> Remedies:
        """What to do about what looks wrong with the events."""

    @abstractmethod
    def options(self) -> dict[str, str]:
        """Return how the file is read, as far as that differs from the default, settings included."""

    @property
    def writes_rejects_as(self) -> type[RejectsFile]:
        """What a file of rows that were not taken is: CSV, unless rows have more in them than that can hold."""
        return RejectsFile

    def rejects_file(self, path: Path) -> RejectsFile:
        """Return the file for rows that were not taken."""
        return self.writes_rejects_as(path, self.table)

    def rejects_path(self, chosen: Path | None) -> Path:
        """Return where rows go that were not taken.

        Raises
        ------
        InputFileError
            When that is an input file.
        """
        return rejects_path(self.table.inputs, chosen, self.writes_rejects_as.suffix)

    @property
    @abstractmethod
    def columns_used(self) -> Collection[str]:
        """The columns that say what rows come to. What folders say of others makes no other content."""

    @property
    def names_used(self) -> frozenset[str]:
        """The names that are looked up in a row, wherever in it; `EVERY_NAME` among them if others are as well."""
        return frozenset(self.columns_used)

    @abstractmethod
    def table_rows(self) -> Iterator[Row]:
        """Yield the rows as they are.

        Raises
        ------
        InputFileError
            When the file cannot be read to its end; of several files, when two hold the same.
        """

    @abstractmethod
    def read(self, row: Row, first: int, check_user: CheckUser = any_user) -> ReadRow:
        """Say what a row comes to; ``first`` is the position of its first line."""

    @abstractmethod
    def shown(self, row: Row) -> bytes:
        """Return a row for people: its object in JSON, or the text that stands there if it cannot be read."""

    def digest(self, options: Sequence[tuple[str, str]]) -> str:
        """Name this content under these options: 16 hexadecimal digits."""
        return hashlib.sha256(f"{self.content_digest} {options}".encode()).hexdigest()[:16]

    @property
    def content_digest(self) -> str:
        """The SHA-256 of what the files hold, in hexadecimal digits."""
        return self.table.content_digest(self.columns_used)

    def read_rows(self, check_user: CheckUser = any_user) -> Iterator[ReadRow]:
        """Yield what each row comes to, in the file's order."""
        position = 1
        for row in self.table_rows():
            read = self.read(row, position, check_user)
            position += read.lines
            yield read

    def batches(self, check_user: CheckUser = any_user) -> Iterator[Batch]:
        """Yield the file's rows, validated, in the file's order.

        ``check_user`` may refuse further user ids: those for which it raises `MalformedEvent`.

        Raises
        ------
        InputFileError
            When the file cannot be read to its end, or a column can be read in two ways; before the first batch.
        """
        _ = self.rows
        batch, held = Batch(1, 0), 0
        for read in self.read_rows(check_user):
            batch.add(read)
            if read.reject is not None:
                held += sum(len(str(value)) for value in read.reject.values if isinstance(value, str | Unreadable))
            if batch.last_row - batch.first_row + 1 >= _BATCH_LINES or held > _MOST_HELD:
                yield batch
                batch, held = Batch(batch.last_row + 1, batch.last_row), 0
        if batch.rows:
            yield batch
