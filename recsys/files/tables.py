"""CSV and Parquet files as tables: what the file is follows from its content, not from its name."""

from __future__ import annotations

import codecs
import errno
import gzip
import io
import re
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TextIO, cast

import pyarrow as pa
import pyarrow.parquet as pq

from recsys.errors import InputFileError
from recsys.files.csv_rows import read_rows
from recsys.files.marks import WHY, why_not_mended, with_formula
from recsys.settings.regular_files import open_regular

_BATCH_ROWS = 100_000
_MOST_NAMES, _LONGEST_NAME = 40, 60
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_PARQUET = b"PAR1"
_CONTROLS = bytes(set(range(32)) - set(b"\t\n\r"))
_LARGE_SHARE = 0.05  # of control characters: text has next to none, what is packed has an eighth
_OTHER_FORMATS = {
    b"PK\x03\x04": "a ZIP archive or an Excel workbook: save it as CSV",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook: save it as CSV",
    b"BZh": "bzip2: unpack it first",
    b"\xfd7zXZ": "xz: unpack it first",
    b"\x28\xb5\x2f\xfd": "Zstandard: unpack it first",
    b"PARE": "encrypted Parquet: decrypt it first",
    b"ORC": "ORC: convert it to Parquet",
    b"Obj\x01": "Avro: convert it to Parquet",
    b"SQLite format 3": "a SQLite database: export a table as CSV",
    b"%PDF": "a PDF",
}
_READING_ERRORS = (pa.ArrowException, OSError, EOFError, zlib.error, UnicodeError, ArithmeticError, ValueError)


@dataclass(frozen=True, slots=True)
class CsvForm:
    r"""How a CSV file is written; a byte order mark in it goes before the encoding, and a tab may be named as \t."""

    encoding: str = "utf8"
    delimiter: str = ","

    def __post_init__(self) -> None:
        if self.delimiter == "\\t":
            object.__setattr__(self, "delimiter", "\t")
        if len(self.delimiter) != 1 or self.delimiter in '"\r\n':
            raise InputFileError(f"--delimiter: must be one character, or \\t for a tab, not {self.delimiter!r}")
        try:
            "".encode(self.encoding)
        except (LookupError, UnicodeError):
            raise InputFileError(
                f"--encoding: {self.encoding!r} is not an encoding; examples are utf-8, cp1252 and latin-1"
            ) from None


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a table.

    Attributes
    ----------
    number : int
        From 1; in a CSV file, row 1 follows the header.
    place : str
        Where people find it: ``line 7`` of a CSV file, ``row 6`` of a Parquet file.
    values : sequence
        In the order of the columns; if there is a problem, as many as there are. Of Parquet, None in columns that were
        not asked for.
    problem : str
        Why the row cannot be read; empty if it can.
    """

    number: int
    place: str
    values: Sequence[Any]
    problem: str = ""
    batch: pa.RecordBatch | None = None
    at: int = 0

    def all_values(self) -> Sequence[Any]:
        """Return the values of all columns, those not asked for as well."""
        if self.batch is None:
            return self.values
        return [_python_values(column.slice(self.at, 1))[0] for column in self.batch.columns]


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A value that Python cannot hold, such as a time after the year 9999: neither an id nor a number nor a time."""

    text: str

    def __str__(self) -> str:
        return self.text


class Table:
    """A file with named columns.

    Attributes
    ----------
    path : Path
    names : list of str
        The columns, without spaces around their names.
    is_parquet : bool
    form : CsvForm
        As the file is read: with the encoding that its byte order mark names.

    Raises
    ------
    InputFileError
        When the file is not there, or neither CSV nor Parquet.
    """

    def __init__(self, path: Path, form: CsvForm) -> None:
        self.path = path
        self.form = form
        with self._errors_named():
            with self._opened() as file:
                self._look_inside(file)
            self.names = self._read_names()
        if not any(self.names):
            raise InputFileError(f"{path}: the file is empty")

    def columns(self) -> str:
        """Return the columns' names for an error text: the first ones, shortened, and without control characters."""
        shown = [
            "".join(c if c.isprintable() else "?" for c in name[:_LONGEST_NAME]) for name in self.names[:_MOST_NAMES]
        ]
        left = len(self.names) - len(shown)
        return ", ".join(shown) + (f" and {left:,} more" if left else "")

    def header_hint(self) -> str:
        """Return what to do about a header that looks as if the file were read wrongly, or nothing."""
        if len(self.names) == 1 and re.search("[;\t|]", self.names[0]):
            return "Name what separates the columns with --delimiter"
        if self.path.suffix.lower() == ".parquet" and not self.is_parquet:
            return "Its name says Parquet, its content does not: if it is no CSV, make the file anew"
        return ""

    def _opened(self) -> BinaryIO:
        try:
            return open_regular(self.path)
        except (FileNotFoundError, NotADirectoryError, ValueError):  # no name of a file holds a NUL
            raise InputFileError(f"{self.path}: there is no such file") from None
        except OSError as error:
            if error.errno not in (errno.EISDIR, errno.ENODEV):
                raise
            raise InputFileError(f"{self.path}: {error.strerror}") from None

    def _look_inside(self, file: BinaryIO) -> None:
        start = file.read(4096)
        self.is_parquet = start.startswith(_PARQUET)
        self._is_gzip = start.startswith(b"\x1f\x8b")
        if self.is_parquet:
            return
        if self._is_gzip:
            file.seek(0)
            with gzip.open(file) as unpacked:
                start = unpacked.read(4096)
            if start.startswith(_PARQUET):
                raise InputFileError(f"{self.path}: this is Parquet inside of gzip: unpack it first")
        for mark, format_ in _OTHER_FORMATS.items():
            if start.startswith(mark):
                raise InputFileError(f"{self.path}: this is {format_}; a file must be .parquet or .csv")
        for mark, encoding in _BYTE_ORDER_MARKS:
            if start.startswith(mark):
                self.form = CsvForm(encoding, self.form.delimiter)
                return
        if _is_binary(start) and codecs.lookup(self.form.encoding).name[:6] not in ("utf-16", "utf-32"):
            raise InputFileError(
                f"{self.path}: this is neither text nor Parquet; if it is text, name its --encoding, such as utf-16"
            )

    def rows(
        self, places: Collection[int], *, looks_like_row: Callable[[Sequence[Any]], bool] = lambda _: False
    ) -> Iterator[Row]:
        """Yield all rows in the file's order.

        Parameters
        ----------
        places : collection of int
            The columns that are needed.
        looks_like_row : callable
            See `recsys.files.csv_rows.read_rows`.

        Raises
        ------
        InputFileError
            When the file cannot be read to its end; it says how far it was read.
        """
        number = 0
        try:
            for row in self._parquet_rows(places) if self.is_parquet else self._csv_rows(looks_like_row):
                number = row.number
                yield row
        except _READING_ERRORS as error:
            raise InputFileError(
                f"{self.path}: cannot be read after row {number:,}: {_plain(error)}{_encoding_hint(error)}"
            ) from error
        except InputFileError as error:
            raise InputFileError(f"{self.path}: cannot be read after row {number:,}: {error}") from error

    def _read_names(self) -> list[str]:
        if self.is_parquet:
            with self._opened() as file:
                return list(pq.read_schema(file).names)
        with self._text() as file:
            first = next(read_rows(file, self.form.delimiter), None)
        if first is not None and first.problem:
            raise InputFileError(f"{self.path}: cannot be read: line {first.line}: {first.problem}")
        names = [] if first is None else [name.strip() for name in first.values]
        return [with_formula(name) for name in names] if WHY in names else names

    def _csv_rows(self, looks_like_row: Callable[[Sequence[Any]], bool]) -> Iterator[Row]:
        width, why = len(self.names), self.names.index(WHY) if WHY in self.names else None
        with self._text() as file:
            rows = read_rows(
                file,
                self.form.delimiter,
                looks_like_row=lambda values: len(values) == width and looks_like_row(values),
            )
            next(rows, None)  # the header
            for number, row in enumerate(rows, 1):
                values, problem = row.values, row.problem
                if not problem and len(values) != width:
                    columns = "1 column" if len(values) == 1 else f"{len(values)} columns"
                    problem = f"the line has {columns}, the header {width}"
                if why is not None:
                    values = [with_formula(value) for value in values]
                    problem = problem or why_not_mended(values, values[why])
                yield Row(number, f"line {row.line}", values, problem)

    def _parquet_rows(self, places: Collection[int]) -> Iterator[Row]:
        number = 0
        with self._opened() as raw, pq.ParquetFile(raw) as file:
            for batch in file.iter_batches(_BATCH_ROWS):
                absent = [None] * batch.num_rows
                columns = [
                    _python_values(column) if place in places else absent for place, column in enumerate(batch.columns)
                ]
                for at, values in enumerate(zip(*columns, strict=True)):
                    number += 1
                    yield Row(number, f"row {number}", values, batch=batch, at=at)

    @contextmanager
    def _text(self) -> Iterator[TextIO]:
        with self._opened() as raw:
            file = cast(BinaryIO, gzip.open(raw)) if self._is_gzip else raw
            with io.TextIOWrapper(file, encoding=self.form.encoding, newline="") as text:
                yield text

    @contextmanager
    def _errors_named(self) -> Iterator[None]:
        try:
            yield
        except _READING_ERRORS as error:
            raise InputFileError(f"{self.path}: cannot be read: {_plain(error)}{_encoding_hint(error)}") from error


def _python_values(column: pa.Array) -> list[Any]:
    """Return a column's values: bytes as text where they are UTF-8, and what Python cannot hold as `Unreadable`."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        column = column.cast(pa.large_binary())  # a file may say that bytes are text
    try:
        values: list[Any] = column.to_pylist()
    except _READING_ERRORS:
        values = [_python_value(scalar) for scalar in column]
    return [_decoded(value) if isinstance(value, bytes) else value for value in values]


def _python_value(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except _READING_ERRORS:
        return Unreadable(f"{getattr(scalar, 'value', '?')} ({scalar.type})")


def _decoded(value: bytes) -> str | bytes:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value


def _is_binary(start: bytes) -> bool:
    """Whether a file that begins so is no text: a stray NUL costs its row, one in the header or many bytes the file."""
    if b"\0" not in start:
        return False
    controls = len(start) - len(start.translate(None, _CONTROLS))
    return b"\0" in start.splitlines()[0] or controls > _LARGE_SHARE * len(start)


def _plain(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        wrong = error.object[error.start : error.start + 1].hex()
        return f"byte 0x{wrong} is not {error.encoding}"
    if isinstance(error, EOFError):
        return "the gzip data ends too early"
    if isinstance(error, gzip.BadGzipFile) and str(error).startswith("Not a gzipped file"):
        return "other bytes follow the end of the gzip data: unpack it, and look at what comes out"
    if isinstance(error, gzip.BadGzipFile | zlib.error):
        return "the gzip data is damaged: make the file anew"
    return " ".join(str(error).split()) or type(error).__name__


def _encoding_hint(error: Exception) -> str:
    return "; name the file's encoding with --encoding, such as cp1252" if isinstance(error, UnicodeError) else ""
