"""What a shop says of its items: titles, categories, and whether they are available."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from recsys.errors import DataDirError
from recsys.storage.files import Storage

_PATH = "catalogue.parquet"
TITLE_COLUMNS: Final = ("title", "name", "description")


@dataclass(frozen=True, slots=True)
class Item:
    """One item; an empty text = unknown."""

    title: str = ""
    category: str = ""
    available: bool = True


@dataclass(frozen=True)
class Catalogue:
    """Items by id."""

    items: Mapping[str, Item] = field(default_factory=dict)

    def updated(self, other: Catalogue) -> Catalogue:
        """Return this with the items of another one, which count where both know an item."""
        return Catalogue({**self.items, **other.items})

    def titles(self) -> dict[str, str]:
        """Return item id → title of those that have one."""
        return {item_id: item.title for item_id, item in self.items.items() if item.title}

    def categories(self) -> dict[str, str]:
        """Return item id → category of those that have one."""
        return {item_id: item.category for item_id, item in self.items.items() if item.category}

    def unavailable(self) -> frozenset[str]:
        """Return the items that are not available."""
        return frozenset(item_id for item_id, item in self.items.items() if not item.available)


class CatalogueFile:
    """The catalogue that was imported."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def read(self) -> Catalogue:
        """Return the catalogue; an empty one if none was imported."""
        try:
            content = self._storage.read_file(_PATH)
        except FileNotFoundError:
            return Catalogue()
        try:
            return Catalogue(dict(_rows(pq.read_table(io.BytesIO(content), page_checksum_verification=True))))
        except (pa.ArrowException, OSError, ValueError, KeyError) as error:
            reason = " ".join(str(error).split())
            raise DataDirError(
                f"{self._storage.uri(_PATH)} is damaged: {reason}; remove it, then import the items again"
            ) from error

    def write(self, catalogue: Catalogue) -> None:
        """Keep a catalogue in place of the one before."""
        rows = sorted(catalogue.items.items())
        table = pa.table(
            {
                "item_id": pa.array([item_id for item_id, _ in rows], pa.string()),
                "title": pa.array([item.title for _, item in rows], pa.string()),
                "category": pa.array([item.category for _, item in rows], pa.string()),
                "available": pa.array([item.available for _, item in rows], pa.bool_()),
            }
        )
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
        self._storage.write_file(_PATH, buffer.getvalue())


def _rows(table: pa.Table) -> Iterator[tuple[str, Item]]:
    columns = [table[name].to_pylist() for name in ("item_id", "title", "category", "available")]
    for item_id, title, category, available in zip(*columns, strict=True):
        yield item_id, Item(title, category, available)
