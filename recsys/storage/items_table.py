"""items.parquet of a model: a small table may decode to very much, so its metadata are looked at first."""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from recsys.storage.manifest import _BYTES_PER_ITEM, _SLACK_BYTES

_MOST_ROW_GROUPS = 100_000
_MOST_COLUMNS = 64
_NEEDED = "it needs a column item_id of strings without nulls"


def item_ids(content: bytes, n_items: int) -> list[str]:
    """Return the ids in a table that has one for each item.

    Raises
    ------
    ValueError
        When it cannot be the table of so many items.
    """
    file = _ensured(content, n_items)
    names = file.schema_arrow.names
    if names.count("item_id") != 1 or file.schema_arrow.field("item_id").type != pa.dictionary(pa.int32(), pa.string()):
        raise ValueError(_NEEDED)
    ids: list[str] = []
    # Not pq.read_table(), which imports pandas: 40 MiB. Not in Arrow's threads, which keep memory of their own.
    for part in file.read(["item_id"], use_threads=False)["item_id"].chunks:
        if part.null_count:
            raise ValueError(_NEEDED)
        if len(part.dictionary) != len(part):  # a long id that is repeated would take its memory each time
            raise ValueError("item ids are not strictly increasing: some are there more than once")
        ids.extend(part.dictionary_decode().to_pylist())
    return ids


def item_popularity(content: bytes, n_items: int) -> NDArray[np.float64]:
    """Return how popular the items are, or their numbers of buyers: float64, (n_items,).

    Raises
    ------
    ValueError
        When it cannot be the table of so many items, or a value is no finite number.
    """
    file = _ensured(content, n_items)
    name = "popularity" if "popularity" in file.schema_arrow.names else "buyers"
    kind = file.schema_arrow.field(name).type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise ValueError(f"column {name} is no column of numbers")
    popularity: NDArray[np.float64] = file.read([name], use_threads=False)[name].to_numpy().astype(np.float64)
    if not np.isfinite(popularity).all():
        raise ValueError(f"column {name} holds a value that is no finite number")
    return popularity


def _ensured(content: bytes, n_items: int) -> pq.ParquetFile:
    """Open a table whose metadata say that it has a row for each item, and decodes to no more than ids need.

    Ids are read with a dictionary, so that one that is repeated takes no memory for each time.
    """
    file = pq.ParquetFile(io.BytesIO(content), read_dictionary=["item_id"])
    metadata = file.metadata
    if metadata.num_rows != n_items:
        raise ValueError(f"it has {metadata.num_rows:,} rows, but item_factors.npy has {n_items:,}")
    if metadata.num_columns > _MOST_COLUMNS or metadata.num_row_groups > _MOST_ROW_GROUPS:
        raise ValueError(
            f"it has {metadata.num_columns:,} columns and {metadata.num_row_groups:,} row groups, too many"
        )
    groups = [metadata.row_group(at) for at in range(metadata.num_row_groups)]
    decoded = sum(group.column(at).total_uncompressed_size for group in groups for at in range(group.num_columns))
    if decoded > (most := n_items * _BYTES_PER_ITEM + _SLACK_BYTES):
        raise ValueError(f"it has {decoded:,} bytes when it is decompressed, more than {most:,}")
    return file
