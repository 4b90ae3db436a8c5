"""Files as one table with named columns: CSV, JSON Lines or Parquet, by their content, packed or not."""

from __future__ import annotations

import codecs
import hashlib
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from recsys.errors import InputFileError
from recsys.files.contents import Content, Kind, content_of, opened, opened_text
from recsys.files.csv_rows import csv_names, csv_table_rows
from recsys.files.inputs import Input, Inputs, find_inputs
from recsys.files.json_rows import json_objects, json_rows, key_names
from recsys.files.parquet_rows import ParquetFile
from recsys.files.row import Row, Wanted
from recsys.files.unpacking import READING_ERRORS, plain
from recsys.runtime.progress import Advance, Stage, no_stage

_MOST_NAMES, _LONGEST_NAME = 40, 60
_PIECE = 1 << 20
_ANY_ENCODING = "utf-8-sig"
"""Its mark goes before any encoding that the options name."""
_SUFFIXES = {".parquet": Kind.PARQUET, ".jsonl": Kind.JSON_LINES, ".ndjson": Kind.JSON_LINES, ".json": Kind.JSON_LINES}


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
class _File:
    """A file of the table: where it is, what it is, and its columns, but for JSON Lines."""

    input: Input
    content: Content
    names: list[str]
    parquet: ParquetFile | None = None


class Table:
    """Files of one kind with the same named columns, read as one table: the rows of the second follow the first's.

    Parameters
    ----------
    source : Path or Inputs
        What to read; a path stands for what is there.
    form : CsvForm
        As the operator says.
    stage : callable
        Opened for what may take long.

    Attributes
    ----------
    inputs : Inputs
    kind : Kind
    form : CsvForm
        As rejected rows of the table are to be written, so that the same options read them: with the encoding that the
        byte order mark of the file names.
    is_utf_8_named : bool
        Whether the operator's form says UTF-8, as it does if nobody says anything.

    Raises
    ------
    InputFileError
        When a file is not there, is no table, or differs in its kind or its columns from the first; or all are empty.
    """

    def __init__(self, source: Path | Inputs, form: CsvForm, stage: Stage = no_stage) -> None:
        self._stage = stage
        self.inputs = source if isinstance(source, Inputs) else find_inputs([source])
        self._read, self._to_read = 0, 1  # bytes of text, or rows of Parquet, since reading last began
        self._delimiter = form.delimiter
        self.is_utf_8_named = codecs.lookup(form.encoding).name in ("utf-8", "utf-8-sig")
        found = [(file, self._opened(file, form)) for file in self.inputs.files]
        self._files = [opened for _, opened in found if opened is not None]
        self._empty = [file.name for file, opened in found if opened is None]
        if not self._files:
            raise InputFileError(f"{self._empty[0]}: the file is empty")
        first = self._files[0]
        self.kind = first.content.kind
        for file in self._files[1:]:
            self._ensure_alike(first, file)
        encodings = {file.content.encoding for file in self._files}
        keeps_encoding = self.kind is Kind.CSV and len(encodings) == 1
        self.form = CsvForm(encodings.pop() if keeps_encoding else _ANY_ENCODING, form.delimiter)

    @property
    def remarks(self) -> list[str]:
        """What should be said about the files: which are empty, a line each."""
        return [f"{name}: the file is empty, and passed over" for name in self._empty]

    @cached_property
    def names(self) -> list[str]:
        """The columns, without spaces around their names. Those of JSON Lines are the keys of all objects.

        Raises
        ------
        InputFileError
            As `_keys`.
        """
        return [key.strip() for key in self._keys] if self.kind is Kind.JSON_LINES else self._files[0].names

    @cached_property
    def _keys(self) -> list[str]:
        """The keys of all objects of JSON Lines: an object need not have every one, nor must a file.

        Raises
        ------
        InputFileError
            When no line is an object, or there are more keys than can be columns.
        """
        keys = list(dict.fromkeys(key for file in self._files for key in self._keys_of(file)))
        if not any(keys):
            raise InputFileError(f"{self.inputs.label}: no line is an object in JSON; write each in one line")
        return keys

    def _keys_of(self, file: _File) -> list[str]:
        self._begin(file.input.size)
        name = Path(file.input.name).name
        with (
            _errors_named(file.input),
            self._stage(f"look for fields in {name}", unit="lines", share=self.share) as advance,
            opened_text(file.input, file.content.encoding, self._count) as text,
        ):
            return key_names(text, advance)

    def share(self) -> float:
        """Return how much has been read, of 1, since reading last began."""
        return min(1.0, self._read / max(1, self._to_read))

    def columns(self) -> str:
        """Return the columns' names for an error text: the first ones, shortened, and without control characters."""
        left = len(self.names) - _MOST_NAMES
        return _shown(self.names[:_MOST_NAMES]) + (f" and {left:,} more" if left > 0 else "")

    def header_hint(self) -> str:
        """Return what to do about a header that looks as if the file were read wrongly, or nothing."""
        if len(self.names) == 1 and re.search("[;\t|]", self.names[0]):
            return "Name what separates the columns with --delimiter"
        says = _SUFFIXES.get(Path(self._files[0].input.name).suffix.lower(), self.kind)
        if says is not self.kind:
            return f"Its name says {says}, its content does not: if it is no {self.kind}, make the file anew"
        return ""

    def ensure_no_copies(self, partitions: Collection[str] = ()) -> None:
        """Refuse files with the same content, under whatever names: each of their rows would count twice.

        Parameters
        ----------
        partitions : collection of str
            The columns of which folders say the values, as far as these are used: there files may differ as well.

        Raises
        ------
        InputFileError
        """
        if len(self._files) > 1:
            self._digests(partitions)

    def content_digest(self, partitions: Collection[str] = ()) -> str:
        """Return the SHA-256 of what the files hold, unpacked, in hexadecimal digits: in any order, under any names.

        ``partitions`` are those of `ensure_no_copies`.
        """
        digests = sorted(self._digests(partitions))
        return digests[0] if len(self._files) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()

    def _digests(self, partitions: Collection[str]) -> dict[str, _File]:
        """Return SHA-256 → the file that has it. Files without rows, which many programs write, may be alike."""
        digests: dict[str, _File] = {}
        for file, content in zip(self._files, self._content_digests, strict=True):
            digest = _with_partitions(content, file, partitions)
            if digest in digests and self._has_rows(file):
                raise InputFileError(
                    f"{file.input.name}: holds the same as {digests[digest].input.name}, so that its rows would "
                    f"count twice; leave one of them out"
                )
            digests.setdefault(digest, file)
        return digests

    @cached_property
    def _content_digests(self) -> list[str]:
        """The SHA-256 of what each file holds itself."""
        self._begin(self.inputs.size)
        with self._stage(f"tell apart {self.inputs.name}", unit="bytes", share=self.share) as advance:
            return [self._digest(file, advance) for file in self._files]

    def _has_rows(self, file: _File) -> bool:
        return next(self._any_rows_of(file), None) is not None

    def _any_rows_of(self, file: _File) -> Iterator[Row]:
        if self.kind is Kind.JSON_LINES:
            return self._objects_of(file, 0, "")
        return self._rows_of(file, Wanted(self.names, (), lambda _: False))

    def rows(
        self, places: Collection[int], *, looks_like_row: Callable[[Sequence[Any]], bool] = lambda _: False
    ) -> Iterator[Row]:
        """Yield all rows in the files' order.

        Parameters
        ----------
        places : collection of int
            The columns that are needed.
        looks_like_row : callable
            See `recsys.files.csv_rows.read_rows`.

        Raises
        ------
        InputFileError
            When a file cannot be read to its end; it says how far it was read.
        """

        def rows_of(file: _File, before: int, name: str) -> Iterator[Row]:
            return self._rows_of(file, Wanted(self.names, places, looks_like_row, before, name))

        return self._in_order(rows_of)

    def records(self, *, looks_like_row: Callable[[Sequence[str]], bool] = lambda _: False) -> Iterator[Row]:
        """Yield all rows in the files' order, each with an object as its only value.

        Those of CSV files have their values in the order of the columns instead.

        Parameters
        ----------
        looks_like_row : callable
            See `recsys.files.csv_rows.read_rows`.

        Raises
        ------
        InputFileError
            As `rows`.
        """

        def records_of(file: _File, before: int, name: str) -> Iterator[Row]:
            if file.parquet is not None:
                return file.parquet.records(before, name)
            if self.kind is Kind.JSON_LINES:
                return self._objects_of(file, before, name)
            return self._rows_of(file, Wanted(self.names, (), looks_like_row, before, name))

        return self._in_order(records_of)

    def _in_order(self, rows_of: Callable[[_File, int, str], Iterator[Row]]) -> Iterator[Row]:
        """Yield the rows of all files; ``rows_of`` gets a file, how many rows stand before it, and its name."""
        number = 0
        is_parquet = self.kind is Kind.PARQUET
        self._begin(sum(f.parquet.rows_in_all if f.parquet else f.input.size for f in self._files))
        for file in self._files:
            before, name = number, f"{file.input.name} " if len(self._files) > 1 else ""
            try:
                for row in rows_of(file, before, name):
                    number = row.number
                    if is_parquet:
                        self._read = number
                    yield row
            except READING_ERRORS as error:
                reason = plain(error, file.input.packing) + _encoding_hint(error)
                raise InputFileError(
                    f"{file.input.name}: cannot be read after row {number - before:,}: {reason}"
                ) from error
            except InputFileError as error:
                raise InputFileError(
                    f"{file.input.name}: cannot be read after row {number - before:,}: {error}"
                ) from error

    def _rows_of(self, file: _File, wanted: Wanted) -> Iterator[Row]:
        if file.parquet is not None:
            yield from file.parquet.rows(wanted)
            return
        with opened_text(file.input, file.content.encoding, self._count) as text:
            if file.content.kind is Kind.JSON_LINES:
                yield from json_rows(text, replace(wanted, names=self._keys))
            else:
                yield from csv_table_rows(text, self._delimiter, file.names, wanted)

    def _objects_of(self, file: _File, before: int, name: str) -> Iterator[Row]:
        # What is not text in this encoding costs its own line alone.
        with opened_text(file.input, file.content.encoding, self._count, errors="surrogateescape") as text:
            yield from json_objects(text, before, name)

    def _begin(self, to_read: int) -> None:
        self._read, self._to_read = 0, to_read

    def _count(self, count: int) -> None:
        self._read += count

    def _opened(self, file: Input, form: CsvForm) -> _File | None:
        """Return a file with what it is; None if nothing is in it."""
        with _errors_named(file):
            content = content_of(file, form.encoding)
            if content.kind is Kind.PARQUET:
                parquet = ParquetFile(file)
                if any(parquet.names):
                    return _File(file, content, parquet.names, parquet)
            elif content.kind is Kind.JSON_LINES:
                return _File(file, content, [])
            else:
                with opened_text(file, content.encoding) as text:
                    names = csv_names(text, form.delimiter)
                if any(names):
                    return _File(file, content, names)
        return None

    def _ensure_alike(self, first: _File, other: _File) -> None:
        one, two = other.content.kind, first.content.kind
        if one is not two:
            raise InputFileError(
                f"{other.input.name} is {one}, and {first.input.name} is {two}; read files of one kind at a time"
            )
        if one is Kind.JSON_LINES:
            return
        lacks, has = Counter(first.names) - Counter(other.names), Counter(other.names) - Counter(first.names)
        if lacks or has:
            differs = {"lacks": lacks, "has": has}
            parts = [f"{what} {_shown(list(names)[:_MOST_NAMES])}" for what, names in differs.items() if names]
            raise InputFileError(
                f"{other.input.name}: other columns than in {first.input.name}: it {' and '.join(parts)}; read them "
                f"one after the other"
            )

    def _digest(self, file: _File, advance: Advance) -> str:
        digest = hashlib.sha256()
        with _errors_named(file.input), opened(file.input, self._count) as stream:
            while piece := stream.read(_PIECE):
                digest.update(piece)
                advance(len(piece))
        return digest.hexdigest()


def _with_partitions(content: str, file: _File, used: Collection[str]) -> str:
    """Return the digest of a file of which the folders say what counts as well."""
    of_folders = {} if file.parquet is None else file.parquet.partitions
    partitions = sorted((name, value) for name, value in of_folders.items() if name in used)
    return hashlib.sha256(f"{content} {partitions}".encode()).hexdigest() if partitions else content


@contextmanager
def _errors_named(file: Input) -> Iterator[None]:
    try:
        yield
    except READING_ERRORS as error:
        reason = plain(error, file.packing) + _encoding_hint(error)
        raise InputFileError(f"{file.name}: cannot be read: {reason}") from error
    except InputFileError as error:
        if str(error).startswith(file.name):
            raise
        raise InputFileError(f"{file.name}: cannot be read: {error}") from error


def _shown(names: Sequence[str]) -> str:
    return ", ".join("".join(c if c.isprintable() else "?" for c in name[:_LONGEST_NAME]) for name in names)


def _encoding_hint(error: Exception) -> str:
    return "; name the file's encoding with --encoding, such as cp1252" if isinstance(error, UnicodeError) else ""
