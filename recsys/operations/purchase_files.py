"""Purchases in Parquet and CSV files, under whatever column names they have."""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import astuple, dataclass, field, fields
from datetime import UTC, date, datetime, tzinfo
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from recsys.data.event import Event, event_from_fields
from recsys.errors import InputFileError, MalformedEvent

_BATCH_ROWS = 100_000


@dataclass(frozen=True, slots=True)
class Columns:
    """Where the fields of an event are found, and how to read them.

    An optional column that the file does not have is taken as absent; one that was named on the command line must
    be there.
    """

    user_id: str = "user_id"
    item_id: str = "item_id"
    quantity: str = "quantity"
    timestamp: str = "timestamp"
    price: str = "price"
    event_id: str = "event_id"
    type: str = "type"
    timezone: str = "UTC"
    """Zone of times that carry none."""
    timestamp_format: str = ""
    """strptime format of times written as text; empty means ISO 8601, or digits for epoch milliseconds."""
    negative_returns: bool = False
    """Read a negative quantity as a return."""
    encoding: str = "utf8"
    """Of CSV files."""
    delimiter: str = ","
    """Between the fields of CSV files."""

    def mapping(self) -> dict[str, str]:
        """Return event field → column name."""
        return {field: getattr(self, field) for field in _EVENT_FIELDS}


_EVENT_FIELDS = ("user_id", "item_id", "quantity", "timestamp", "price", "event_id", "type")
_REQUIRED = ("user_id", "item_id", "timestamp")
_DEFAULTS = {field.name: field.default for field in fields(Columns)}


@dataclass(slots=True)
class Batch:
    """Some consecutive rows of a file: the valid events, and the rows that are not."""

    first_row: int
    last_row: int
    events: list[tuple[int, Event]] = field(default_factory=list)
    rejects: list[tuple[int, str, Mapping[str, Any]]] = field(default_factory=list)
    """(row, reason, the row as it was)"""


class PurchaseFile:
    """A Parquet or CSV file of purchases. Rows are numbered from 1; in a CSV file row 1 is the line after the header.

    Raises
    ------
    InputFileError
        When the file or a column that is needed is not there.
    """

    def __init__(self, path: Path, columns: Columns) -> None:
        self.path = path
        self._columns = columns
        self._zone = _zone(columns.timezone)
        _check_format(columns.timestamp_format)
        if len(columns.delimiter) != 1:
            raise InputFileError(f"--delimiter: must be one character, not {columns.delimiter!r}")
        self._has_rows = True
        self._invalid_rows: list[tuple[int, str, Mapping[str, Any]]] = []
        if not path.is_file():
            problem = "this is a folder, not a file" if path.is_dir() else "there is no such file"
            raise InputFileError(f"{path}: {problem}")
        if path.suffix.lower() not in (".parquet", ".csv"):
            raise InputFileError(f"{path}: must be a .parquet or .csv file")
        try:
            names, self.rows = self._header()
        except (pa.ArrowException, OSError, UnicodeError, LookupError) as error:
            raise InputFileError(f"{path}: cannot be read: {error}{_encoding_hint(error)}") from error
        if not names:
            raise InputFileError(f"{path}: the file is empty")
        self._present = self._choose(names)

    def digest(self) -> str:
        """Name this content under this reading of it: 16 hexadecimal digits."""
        digest = hashlib.sha256(repr(astuple(self._columns)).encode())
        with self.path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
        return digest.hexdigest()[:16]

    def batches(self, check_user: Callable[[str], None] = lambda _: None) -> Iterator[Batch]:
        """Yield the file's rows, validated, in the file's order.

        ``check_user`` may refuse further user ids: those for which it raises `MalformedEvent`.
        """
        row = 0
        skipped: set[int] = set()  # numbers of invalid lines, which the reader may report ahead of its rows
        self._invalid_rows.clear()
        try:
            for table in self._tables():
                batch = Batch(row + 1, row)
                invalid, self._invalid_rows = self._invalid_rows, []
                skipped.update(number for number, _, _ in invalid)
                batch.rejects.extend(invalid)
                for fields_ in table.to_pylist():
                    row += 1
                    while row in skipped:
                        row += 1
                    try:
                        event = event_from_fields(self._fields(fields_))
                        check_user(event.user_id)
                        batch.events.append((row, event))
                    except MalformedEvent as error:
                        batch.rejects.append((row, error.reason, fields_))
                while row + 1 in skipped:
                    row += 1
                batch.last_row = row
                yield batch
        except (pa.ArrowException, OSError, UnicodeError, ArithmeticError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise InputFileError(
                f"{self.path}: cannot be read after row {row:,}: {reason}{_encoding_hint(error)}"
            ) from error
        if self._invalid_rows:
            last = max(number for number, _, _ in self._invalid_rows)
            yield Batch(row + 1, last, rejects=self._invalid_rows)

    def _header(self) -> tuple[list[str], int | None]:
        if self.path.suffix.lower() == ".parquet":
            metadata = pq.read_metadata(self.path)
            return list(metadata.schema.to_arrow_schema().names), metadata.num_rows
        with self.path.open(encoding=self._columns.encoding, newline="") as file:
            lines = csv.reader(file, delimiter=self._columns.delimiter)
            names = next(lines, [])
            self._has_rows = next(lines, None) is not None
        return [name.removeprefix("\ufeff") for name in names], None

    def _choose(self, names: list[str]) -> dict[str, str]:
        present = {field: column for field, column in self._columns.mapping().items() if column in names}
        for field_, column in self._columns.mapping().items():
            named = column != _DEFAULTS[field_]
            if field_ not in present and (named or field_ in _REQUIRED):
                hint = f"Name the right one with --{field_.replace('_', '-')}-column"
                if len(names) == 1 and re.search("[;\t|]", names[0]):
                    hint = "Name what separates the columns with --delimiter"
                columns = ", ".join(names)
                raise InputFileError(
                    f"{self.path}: there is no column {column!r} for {field_}; the columns are {columns}. {hint}"
                )
        if twice := sorted({column for column in present.values() if names.count(column) > 1}):
            raise InputFileError(f"{self.path}: column {twice[0]!r} appears more than once; keep one of them")
        return present

    def _tables(self) -> Iterator[pa.Table]:
        if self.path.suffix.lower() == ".parquet":
            with pq.ParquetFile(self.path) as file:
                for batch in file.iter_batches(_BATCH_ROWS):
                    yield pa.Table.from_batches([batch])
            return
        names, _ = self._header()
        if not self._has_rows:
            return
        reader = pyarrow.csv.open_csv(
            self.path,
            read_options=pyarrow.csv.ReadOptions(encoding=self._columns.encoding, use_threads=False),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter=self._columns.delimiter, newlines_in_values=True, invalid_row_handler=self._note_invalid_row
            ),
            # Ids must come as they are written: "00123" is not 123.
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True, null_values=[""]
            ),
        )
        for batch in reader:
            yield pa.Table.from_batches([batch])

    def _note_invalid_row(self, row: Any) -> str:
        reason = f"the line has {row.actual_columns} columns, the header {row.expected_columns}"
        self._invalid_rows.append((row.number - 1, reason, {"line": row.text}))  # the header is number 1
        return "skip"

    def _fields(self, row: Mapping[str, Any]) -> dict[str, Any]:
        values = {field_: row[column] for field_, column in self._present.items()}
        for name in ("user_id", "item_id", "event_id"):
            value = values.get(name)
            if isinstance(value, float) and value.is_integer():
                values[name] = int(value)  # pandas turns integer ids with gaps into 17850.0
        for name in ("quantity", "price"):
            values[name] = _number(name, values.get(name))
        values["timestamp"] = self._epoch_ms(values["timestamp"])
        quantity = values["quantity"]
        if self._columns.negative_returns and quantity is not None and quantity < 0:
            values["quantity"], values["type"] = -quantity, "return"
        return values

    def _epoch_ms(self, value: Any) -> Any:
        if value is None or (isinstance(value, int) and not isinstance(value, bool)):
            return value
        if isinstance(value, date) and not isinstance(value, datetime):
            value = datetime(value.year, value.month, value.day)
        if isinstance(value, str):
            value = self._parsed(value.strip())
        if isinstance(value, int):
            return value
        if not isinstance(value, datetime):
            raise MalformedEvent(f"timestamp: {value!r} is not a time")
        moment = value if value.tzinfo else value.replace(tzinfo=self._zone)
        return round(moment.timestamp() * 1000)

    def _parsed(self, text: str) -> datetime | int:
        if not self._columns.timestamp_format and text.isascii() and text.isdigit() and 9 <= len(text) <= 15:
            return int(text)
        try:
            if self._columns.timestamp_format:
                return datetime.strptime(text, self._columns.timestamp_format)
            return datetime.fromisoformat(text)
        except ValueError:
            wanted = self._columns.timestamp_format or "ISO 8601; name another form with --timestamp-format"
            raise MalformedEvent(f"timestamp: {text!r} is not in the form {wanted}") from None


def _check_format(timestamp_format: str) -> None:
    try:
        datetime.strptime("", timestamp_format)
    except ValueError as error:
        if "does not match" not in str(error):
            raise InputFileError(f"--timestamp-format: {error}") from None


def _encoding_hint(error: Exception) -> str:
    is_about_text = isinstance(error, UnicodeError) or "UTF8" in str(error)
    return "; name the file's encoding with --encoding, such as latin-1" if is_about_text else ""


def _number(name: str, value: Any) -> float | None:
    if value is None:
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        raise MalformedEvent(f"{name}: {value!r} is not a number") from None


def _zone(name: str) -> tzinfo:
    if name.upper() == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InputFileError(f"--timezone: {name!r} is not a time zone; an example is Europe/London") from None


class RejectsFile:
    """A CSV file of the rows that were not taken, made when the first one comes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self._file: TextIO | None = None

    def __enter__(self) -> RejectsFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, batch: Batch) -> None:
        """Write the rejects of one batch."""
        for row, reason, values in batch.rejects:
            if self._file is None:
                try:
                    self._file = self.path.open("w", encoding="utf-8", newline="")
                except OSError as error:
                    raise InputFileError(
                        f"{self.path}: cannot write rejected rows: {error.strerror}; name another file with --rejects"
                    ) from error
                csv.writer(self._file).writerow(["row", "reason", "values"])
            given = "; ".join(f"{name}={value}" for name, value in values.items())
            csv.writer(self._file).writerow([row, reason, given])
            self.count += 1
