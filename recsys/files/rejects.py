"""Rows that were not taken, as a CSV file that can be mended and imported as it is."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Sequence
from datetime import date, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from recsys.errors import InputFileError
from recsys.files.batches import Reject
from recsys.files.inputs import Inputs
from recsys.files.marks import WHY, marked, without_formula
from recsys.files.tables import Table
from recsys.runtime.private_files import create_file, ensure_can_be_created


class RejectsFile:
    """A CSV file with the columns of the file that was read, and `why`; made when the first row comes.

    It has the delimiter and the encoding of that file, so that the same options read it. Rows that are not mended are
    rejected again. Values, and parts of them, that a spreadsheet would take for formulas begin with ``'``, which an
    import takes off again.
    Nobody but its owner may read the file. One of the same name is replaced, and a symbolic link is refused.

    Parameters
    ----------
    path : Path
    table : Table
        The file that the rows are from.

    Attributes
    ----------
    suffix : str
        Of such a file.
    """

    suffix = ".csv"

    def __init__(self, path: Path, table: Table) -> None:
        self.path = path
        self.count = 0
        self._file: TextIO | None = None
        self._encoding, self._delimiter = table.form.encoding, table.form.delimiter
        self._table = table

    def __enter__(self) -> RejectsFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._file is None:
            return
        try:
            self._file.close()
        except OSError as problem:
            if error is None:
                raise self._cannot_be_written(problem) from problem

    def add(self, rejects: Iterable[Reject]) -> None:
        """Write rows.

        Raises
        ------
        InputFileError
            When they cannot be written.
        """
        for reject in rejects:
            try:
                self._write(reject)
            except OSError as error:
                raise self._cannot_be_written(error) from error
            self.count += 1

    def _write(self, reject: Reject) -> None:
        names_of_all = self._table.names
        names = [name for name in names_of_all if name != WHY]
        if self._file is None:
            descriptor = create_file(self.path)
            self._file = open(descriptor, "w", encoding=self._encoding, errors="backslashreplace", newline="")
            self._file.write(self._line([*names, WHY]))
        values = list(map(_text, reject.values))
        if len(values) == len(names_of_all):
            values = [value for name, value in zip(names_of_all, values, strict=True) if name != WHY]
        elif len(values) > len(names):
            values[len(names) - 1 :] = [self._delimiter.join(values[len(names) - 1 :])]
        values, why = [*values, *[""] * (len(names) - len(values))], reject.why
        if holds_a_row := self._holds_a_row([*values, why]):
            values = [re.sub("[\r\n]+", " ", value) for value in values]
        if reject.is_broken or holds_a_row:
            values, why = marked(values, why)
        self._file.write(self._line([*values, why]))
        self._file.flush()  # a disk that is full shall say so here

    def _holds_a_row(self, values: Sequence[str]) -> bool:
        """Whether a row of several lines has one, after the first, that has as many values as a row."""
        later = re.split("[\r\n]", self._line(values))[1:]
        return any(line.count(self._delimiter) == len(values) - 1 for line in later)

    def _line(self, values: Sequence[str]) -> str:
        text = io.StringIO(newline="")
        # All in quotes: what a value holds then separates nothing, where a spreadsheet splits at another character.
        row = csv.writer(text, delimiter=self._delimiter, lineterminator="\n", quoting=csv.QUOTE_ALL)
        row.writerow(map(without_formula, values))
        return text.getvalue()

    def _cannot_be_written(self, error: OSError) -> InputFileError:
        return InputFileError(
            f"{self.path}: cannot write rejected rows: {error.strerror or error}; name another file with --rejects"
        )


class JsonRejectsFile(RejectsFile):
    """Rejected rows as JSON Lines: each its object, with `why`. So types and lines are kept as they were.

    A line that was no object is text, with a key that has it rejected until an object stands in its place.
    """

    suffix = ".jsonl"

    def _write(self, reject: Reject) -> None:
        if self._file is None:
            # The same options shall read it: a mark goes before the encoding that they name.
            encoding = "utf8" if self._table.is_utf_8_named else self._encoding
            self._file = open(create_file(self.path), "w", encoding=encoding, newline="")
        (line,) = reject.values
        self._file.write(f"{line}\n")
        self._file.flush()


def rejects_path(inputs: Inputs, chosen: Path | None, suffix: str = RejectsFile.suffix) -> Path:
    """Return where rejected rows go; ``suffix`` ends the name of a file that nobody has chosen.

    Raises
    ------
    InputFileError
        When that is an input file.
    """
    name = inputs.paths[0].name if inputs.paths else "stdin"
    for ending in (".gz", ".zst", ".zip", ".csv", ".parquet", ".jsonl", ".ndjson", ".json", ".tsv", ".txt"):
        name = name.removesuffix(ending)
    path = chosen or Path(f"{name}.rejects{suffix}")
    ensure_no_input(path, inputs)
    return path


def ensure_usable(path: Path, inputs: Inputs) -> None:
    """Refuse a file for rejected rows that would be written over what is read, or that cannot be written.

    Raises
    ------
    InputFileError
    """
    ensure_no_input(path, inputs)
    try:
        ensure_can_be_created(path)
    except OSError as error:
        raise InputFileError(f"--rejects: {path} cannot be written: {error.strerror or error}") from error


def ensure_no_input(path: Path, inputs: Inputs) -> None:
    """Refuse to write rejected rows over what is read.

    Raises
    ------
    InputFileError
    """
    if path.resolve() in [given.resolve() for given in inputs.paths]:
        which = "the input file" if len(inputs.paths) == 1 else "one of the input files"
        raise InputFileError(f"--rejects: {path} is {which}; choose another file")


def _text(value: Any) -> str:
    """Write a value as a CSV file would hold it."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    return str(value)
