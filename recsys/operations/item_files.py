"""What a shop says of its items, in CSV and Parquet files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from pydantic import TypeAdapter, ValidationError

from recsys.data.event import Identifier
from recsys.errors import InputFileError
from recsys.redis import Store
from recsys.storage.catalogue import (
    _LONGEST,
    _NO,
    _YES,
    TITLE_COLUMNS,
    Catalogue,
    Item,
)
from recsys.storage.data_dir import DataDir

_IDENTIFIER: TypeAdapter[str] = TypeAdapter(Identifier)


@dataclass(frozen=True, slots=True)
class ItemColumns:
    """Where a file has what is to be known of items; an empty name = not at all, or under a usual name."""

    item_id: str = "item_id"
    title: str = ""
    category: str = ""
    available: str = ""


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row of a file that was not taken."""

    row: int
    reason: str


def read_items(path: Path, columns: ItemColumns) -> tuple[Catalogue, list[Rejected]]:
    """Read a Parquet or CSV file of items; of rows with the same id the last one counts.

    Raises
    ------
    InputFileError
        When the file cannot be read, or a column is not there.
    """
    table = _table(path)
    names = _names(path, table.column_names, columns)
    values = {what: table[name].to_pylist() for what, name in names.items()}
    items: dict[str, Item] = {}
    rejected: list[Rejected] = []
    for row in range(table.num_rows):
        try:
            item_id, item = _item({what: column[row] for what, column in values.items()})
        except ValueError as error:
            rejected.append(Rejected(row + 1, str(error)))
        else:
            items[item_id] = item
    return Catalogue(items), rejected


def import_items(found: Catalogue, data_dir: DataDir, store: Store) -> Catalogue:
    """Take over what was found of items into ``data_dir`` and Redis; return the whole catalogue.

    The caller holds the trainer's lock, unless no trainer is running.
    """
    data_dir.storage.check_writable()
    before = data_dir.catalogue.read()
    catalogue = before.updated(found)
    data_dir.catalogue.write(catalogue)
    store.catalogue.write(catalogue.titles(), catalogue.unavailable())
    store.item_lists.remove_popular(set(before.categories().values()) - set(catalogue.categories().values()))
    return catalogue


def _table(path: Path) -> pa.Table:
    if not path.is_file():
        problem = "this is a folder, not a file" if path.is_dir() else "there is no such file"
        raise InputFileError(f"{path}: {problem}")
    try:
        if path.suffix.lower() == ".parquet":
            return pq.read_table(path)
        if path.suffix.lower() != ".csv":
            raise InputFileError(f"{path}: must be a .parquet or .csv file")
        names = pyarrow.csv.open_csv(path).schema.names
        # Ids must come as they are written: "00123" is not 123.
        strings = pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True, null_values=[""]
        )
        return pyarrow.csv.read_csv(path, convert_options=strings)
    except (OSError, pa.ArrowException, UnicodeError) as error:
        raise InputFileError(f"{path}: cannot be read: {' '.join(str(error).split())}") from error


def _names(path: Path, there: list[str], columns: ItemColumns) -> dict[str, str]:
    """Return what is to be known → column, of the columns that are there."""
    chosen: dict[str, str] = {}
    usual = {
        "item_id": (columns.item_id,),
        "title": TITLE_COLUMNS,
        "category": ("category",),
        "available": ("available",),
    }
    for what, candidates in usual.items():
        named = getattr(columns, what)
        found = next((name for name in ((named,) if named else candidates) if name in there), None)
        if found is None and (named or what == "item_id"):
            raise InputFileError(
                f"{path}: there is no column {named or columns.item_id!r}; the columns are {', '.join(there)}. "
                f"Name the right one with --{what.replace('_', '-')}-column"
            )
        if found is not None:
            if there.count(found) > 1:
                raise InputFileError(f"{path}: column {found!r} appears more than once; keep one of them")
            chosen[what] = found
    if chosen.keys() == {"item_id"}:
        raise InputFileError(
            f"{path}: there is no column title, category or available; the columns are {', '.join(there)}"
        )
    return chosen


def _item(row: Mapping[str, Any]) -> tuple[str, Item]:
    try:
        item_id = _IDENTIFIER.validate_python(row["item_id"])
    except ValidationError:
        raise ValueError(
            f"item_id: {str(row['item_id'])[:40]!r} is not a valid id: use 1 to 256 characters, no control characters"
        ) from None
    texts = {what: " ".join(str(row[what]).split()) for what in ("title", "category") if row.get(what) is not None}
    for what, text in texts.items():
        if len(text) > _LONGEST:
            raise ValueError(f"{what}: is longer than {_LONGEST:,} characters")
    return item_id, Item(**texts, available=_is_available(row.get("available")))


def _is_available(value: Any) -> bool:
    if value is None:
        return True
    word = str(value).strip().lower().removesuffix(".0")
    if word in _YES | _NO:
        return word in _YES
    raise ValueError(f"available: must be true or false, not {value!r}")
