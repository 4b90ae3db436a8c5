"""What a shop says of its items, in files."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from recsys.data.event import Identifier
from recsys.errors import InputFileError, MalformedEvent
from recsys.files.batches import Reject
from recsys.files.inputs import Inputs
from recsys.files.tables import CsvForm, Table
from recsys.files.values import IdColumn, id_text, is_absent, is_kept_by_text
from recsys.storage.catalogue import TITLE_COLUMNS, Catalogue, Item

_IDENTIFIER: TypeAdapter[str] = TypeAdapter(Identifier)
_FORM = CsvForm()
_LONGEST = 1_000
_YES, _NO = frozenset({"true", "t", "yes", "y", "on"}), frozenset({"false", "f", "no", "n", "off"})


@dataclass(frozen=True, slots=True)
class ItemColumns:
    """Where a file has what is to be known of items; an empty name = not at all, or under a usual name."""

    item_id: str = "item_id"
    title: str = ""
    category: str = ""
    available: str = ""


@dataclass(frozen=True, slots=True)
class FoundItems:
    """What a file says of items.

    Attributes
    ----------
    catalogue : Catalogue
        Of rows with the same id the last one counts.
    rows, valid : int
    rejects : tuple of Reject
    table : Table
        The file.
    remarks : tuple of str
        What should be said about how the file is read.
    """

    catalogue: Catalogue
    rows: int
    valid: int
    rejects: tuple[Reject, ...]
    table: Table
    remarks: tuple[str, ...]


def read_items(
    source: Path | Inputs, columns: ItemColumns, form: CsvForm = _FORM, *, integer_ids: bool | None = None
) -> FoundItems:
    """Read a file of items; a path stands for what is there.

    Raises
    ------
    InputFileError
        When the file cannot be read, or a column is not there.
    """
    table = Table(source, form)
    names = _names(table, columns)
    places = {what: table.names.index(name) for what, name in names.items()}
    ids = IdColumn()
    for row in table.rows({places["item_id"]}):
        if not row.problem and not is_absent(value := row.values[places["item_id"]]):
            ids.note(value)
    integers = ids.are_integers(integer_ids)
    items: dict[str, Item] = {}
    rejects: list[Reject] = []
    number = 0
    for row in table.rows(set(places.values())):
        number = row.number
        try:
            if row.problem:
                raise MalformedEvent(row.problem)
            item_id, item = _item({what: row.values[place] for what, place in places.items()}, integers=integers)
        except MalformedEvent as error:
            is_broken = bool(row.problem) or not is_kept_by_text(row.values[places["item_id"]])
            rejects.append(Reject(row.number, row.place, error.reason, row.all_values(), is_broken=is_broken))
        else:
            items[item_id] = item
    remark = ids.remark(names["item_id"], integer_ids)
    return FoundItems(
        Catalogue(items), number, number - len(rejects), tuple(rejects), table, (remark,) if remark else ()
    )


def _names(table: Table, columns: ItemColumns) -> dict[str, str]:
    """Return what is to be known → column, of the columns that are there."""
    path, there = table.inputs.label, table.names
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
                f"{path}: there is no column {named or columns.item_id!r}; the columns are {table.columns()}. "
                + (table.header_hint() or f"Name the right one with --{what.replace('_', '-')}-column")
            )
        if found is not None:
            if there.count(found) > 1:
                raise InputFileError(f"{path}: column {found!r} appears more than once; keep one of them")
            chosen[what] = found
    if chosen.keys() == {"item_id"}:
        raise InputFileError(
            f"{path}: there is no column title, category or available; the columns are {table.columns()}"
        )
    return chosen


def _item(row: Mapping[str, Any], *, integers: bool) -> tuple[str, Item]:
    given = row["item_id"]
    try:
        item_id = _IDENTIFIER.validate_python(
            None if is_absent(given) else id_text("item_id", given, integers=integers)
        )
    except ValidationError:
        raise MalformedEvent(
            f"item_id: {str(given)[:40]!r} is not a valid id: use 1 to 256 characters, no control characters"
        ) from None
    texts = {what: " ".join(str(row[what]).split()) for what in ("title", "category") if not is_absent(row.get(what))}
    for what, text in texts.items():
        if len(text) > _LONGEST:
            raise MalformedEvent(f"{what}: is longer than {_LONGEST:,} characters")
    return item_id, Item(**texts, available=_is_available(row.get("available")))


def _is_available(value: Any) -> bool:
    """Read true, false, or a stock: items of which there are some are available."""
    if is_absent(value):
        return True
    word = str(value).strip().lower()
    if word in _YES | _NO:
        return word in _YES
    try:
        stock = float(word)
    except ValueError:
        stock = math.nan
    if not math.isfinite(stock):
        raise MalformedEvent(f"available: must be true, false or a number in stock, not {str(value)[:40]!r}")
    return stock > 0
