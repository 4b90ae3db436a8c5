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

_BATCH_ROWS = 100_000
_BUFFER_BYTES = 1 << 20


class ParquetFile:
    """A Parquet file as rows.

    Attributes
    ----------
    names : list of str
        Its columns, and those that its folders name.
    rows_in_all : int
    """

    def __init__(self, file: Input) -> None:
        self._file = file
        with file.open() as stream, pq.ParquetFile(stream) as parquet:
            self._own = list(parquet.schema_arrow.names)
            self.rows_in_all: int = parquet.metadata.num_rows
        self._partitions = {name: value for name, value in file.partitions.items() if name not in self._own}
        self.names = [*self._own, *self._partitions]

    def rows(self, wanted: Wanted) -> Iterator[Row]:
        """Yield its rows."""
        number = 0
        order = places_of(wanted.names, self.names)
        needed = {order[place] for place in wanted.places}
        # Otherwise the columns of a whole row group, however large, would be read at once.
        in_pieces = {"buffer_size": _BUFFER_BYTES, "pre_buffer": False}
        with self._file.open() as stream, pq.ParquetFile(stream, **in_pieces) as parquet:
            for batch in parquet.iter_batches(_BATCH_ROWS):
                nothing = [None] * batch.num_rows
                own = [python_values(c) if at in needed else nothing for at, c in enumerate(batch.columns)]
                columns = own + [[value] * batch.num_rows for value in self._partitions.values()]
                for at, values in enumerate(zip(*(columns[place] for place in order), strict=True)):
                    number += 1
                    others = partial(self._all_values, batch, at, order)
                    yield Row(wanted.before + number, f"{wanted.file}row {number}", values, others=others)

    def _all_values(self, batch: pa.RecordBatch, at: int, order: Sequence[int]) -> list[Any]:
        own = [python_values(column.slice(at, 1))[0] for column in batch.columns]
        values = [*own, *self._partitions.values()]
        return [values[place] for place in order]


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
