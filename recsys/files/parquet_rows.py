"""Rows of Parquet files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from recsys.files.inputs import Input
from recsys.files.row import Row, Unreadable, Wanted, places_of
from recsys.files.unpacking import READING_ERRORS
from recsys.files.values import json_value

_BATCH_ROWS = 20_000
_BATCH_BYTES = 1 << 25
"""Of a batch, as far as the file tells; what is in it may be packed."""
_SLICE_BYTES = 1 << 22
"""As Python's values these take ten times as much, or more."""
_LEAST_ROWS = 100
_BUFFER_BYTES = 1 << 20
# Otherwise the columns of a whole row group, however large, would be read at once.
_IN_PIECES = {"buffer_size": _BUFFER_BYTES, "pre_buffer": False}


class ParquetFile:
    """A Parquet file as rows.

    Attributes
    ----------
    names : list of str
        Its columns, without spaces around their names, and those that its folders name.
    partitions : mapping
        Those of them that its folders name → the value; none that the file has itself.
    rows_in_all : int
    """

    def __init__(self, file: Input) -> None:
        self._file = file
        with file.open() as stream, pq.ParquetFile(stream) as parquet:
            self._own = [name.strip() for name in parquet.schema_arrow.names]
            self.rows_in_all: int = parquet.metadata.num_rows
        self.partitions = {name: value for name, value in file.partitions.items() if name not in self._own}
        self.names = [*self._own, *self.partitions]

    def rows(self, wanted: Wanted) -> Iterator[Row]:
        """Yield its rows."""
        number = 0
        order = places_of(wanted.names, self.names)
        needed = {order[place] for place in wanted.places}
        with self._file.open() as stream, pq.ParquetFile(stream, **_IN_PIECES) as parquet:
            for batch in _batches(parquet):
                nothing = [None] * batch.num_rows
                own = [python_values(c) if at in needed else nothing for at, c in enumerate(batch.columns)]
                columns = own + [[value] * batch.num_rows for value in self.partitions.values()]
                for at, values in enumerate(zip(*(columns[place] for place in order), strict=True)):
                    number += 1
                    others = partial(self._all_values, batch, at, order)
                    yield Row(wanted.before + number, f"{wanted.file}row {number}", values, others=others)

    def records(self, before: int, in_file: str) -> Iterator[Row]:
        """Yield its rows, each with one value: an object of what JSON can hold, its columns by name.

        Parameters
        ----------
        before : int
            Rows that stand in earlier files.
        in_file : str
            The file's name and a space, if there are several.
        """
        number = 0
        with self._file.open() as stream, pq.ParquetFile(stream, **_IN_PIECES) as parquet:
            for batch in _batches(parquet):
                columns = [map(json_value, python_values(column)) for column in batch.columns]
                for values in zip(*columns, strict=True) if columns else [()] * batch.num_rows:
                    number += 1
                    found = dict(zip(self._own, values, strict=True)) | self.partitions
                    yield Row(before + number, f"{in_file}row {number}", [found])

    def _all_values(self, batch: pa.RecordBatch, at: int, order: Sequence[int]) -> list[Any]:
        own = [python_values(column.slice(at, 1))[0] for column in batch.columns]
        values = [*own, *self.partitions.values()]
        return [values[place] for place in order]


def _batches(parquet: pq.ParquetFile) -> Iterator[pa.RecordBatch]:
    """Yield the rows in batches that are small as Python's values as well, however large a row is."""
    metadata = parquet.metadata
    size = sum(metadata.row_group(at).total_byte_size for at in range(metadata.num_row_groups))
    fitting = _BATCH_BYTES // max(1, size // max(1, metadata.num_rows))
    for batch in parquet.iter_batches(min(_BATCH_ROWS, max(_LEAST_ROWS, fitting))):
        rows = max(1, batch.num_rows // (1 + batch.nbytes // _SLICE_BYTES))
        for start in range(0, batch.num_rows, rows):
            yield batch.slice(start, rows)


def python_values(column: pa.Array) -> list[Any]:
    """Return a column's values: bytes as text where they are UTF-8, and what Python cannot hold as `Unreadable`."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        column = column.cast(pa.large_binary())  # a file may say that bytes are text
    try:
        values: list[Any] = column.to_pylist()
    except READING_ERRORS:
        values = [_python_value(scalar) for scalar in column]
    return [_decoded(value) if isinstance(value, bytes) else value for value in values]


def _python_value(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except READING_ERRORS:
        return Unreadable(f"{getattr(scalar, 'value', '?')} ({scalar.type})")


def _decoded(value: bytes) -> str | bytes:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value
