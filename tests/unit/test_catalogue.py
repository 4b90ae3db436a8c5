from __future__ import annotations

import uuid
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.errors import DataDirError, InputFileError
from recsys.operations.item_files import ItemColumns, read_items
from recsys.storage.catalogue import Catalogue, CatalogueFile, Item
from recsys.storage.files import Storage


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_a_csv_file_is_read_as_it_is_written(tmp_path: Path) -> None:
    file = written(
        tmp_path / "items.csv",
        "item_id,description,category,available\n00123, Tea   pot ,Kitchen,yes\nsku-2,,,no\nsku-ü,Würfel,Spiele,\n",
    )
    found, rejected = read_items(file, ItemColumns())
    assert rejected == []
    assert found.items == {
        "00123": Item("Tea pot", "Kitchen"),
        "sku-2": Item(available=False),
        "sku-ü": Item("Würfel", "Spiele"),
    }
    assert found.titles() == {"00123": "Tea pot", "sku-ü": "Würfel"}
    assert found.categories() == {"00123": "Kitchen", "sku-ü": "Spiele"}
    assert found.unavailable() == {"sku-2"}


def test_a_parquet_file_may_hold_numbers_and_truth_values(tmp_path: Path) -> None:
    table = pa.table({"sku": [1, 2], "label": ["A", None], "in_stock": [False, True], "group": ["g", "h"]})
    pq.write_table(table, tmp_path / "items.parquet")
    columns = ItemColumns("sku", "label", "group", "in_stock")
    found, _ = read_items(tmp_path / "items.parquet", columns)
    assert found.items == {"1": Item("A", "g", available=False), "2": Item("", "h")}


def test_rows_that_make_no_sense_are_named_and_the_others_taken(tmp_path: Path) -> None:
    file = written(tmp_path / "items.csv", "item_id,available\na,maybe\n,yes\nb,1\nb,0\nNA,1.0\n")
    found, rejected = read_items(file, ItemColumns())
    assert found.items == {"b": Item(available=False), "NA": Item()}  # the last one counts
    assert [(one.row, one.reason.split(":")[0]) for one in rejected] == [(1, "available"), (2, "item_id")]


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("none.csv", None, "there is no such file"),
        ("items.txt", "item_id\na\n", "must be a .parquet or .csv file"),
        ("items.csv", "sku,title\na,b\n", "no column 'item_id'; the columns are sku, title.*--item-id-column"),
        ("items.csv", "item_id,title,title\na,b,c\n", "'title' appears more than once"),
        ("items.csv", "", "cannot be read"),
        ("items.csv", "item_id,price\na,1\n", "no column title, category or available"),
        ("items.parquet", "not parquet", "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_clear_error(
    tmp_path: Path, name: str, text: str | None, problem: str
) -> None:
    if text is not None:
        written(tmp_path / name, text)
    with pytest.raises(InputFileError, match=problem):
        read_items(tmp_path / name, ItemColumns())


def test_a_column_that_was_named_must_be_there(tmp_path: Path) -> None:
    file = written(tmp_path / "items.csv", "item_id,title\na,b\n")
    with pytest.raises(InputFileError, match=r"no column 'group'.*--category-column"):
        read_items(file, ItemColumns(category="group"))


@pytest.mark.parametrize("kind", ["local", "memory"])
def test_what_is_imported_later_counts_and_what_it_does_not_name_stays(kind: str, tmp_path: Path) -> None:
    storage = Storage(str(tmp_path) if kind == "local" else f"memory://{uuid.uuid4().hex}")
    file = CatalogueFile(storage)
    assert file.read() == Catalogue()
    first = Catalogue({"a": Item("A", "x"), "b": Item("B", "y", available=False)})
    file.write(first)
    assert file.read() == first
    both = first.updated(Catalogue({"b": Item("B2", "y"), "c": Item()}))
    file.write(both)
    assert file.read().items == {"a": Item("A", "x"), "b": Item("B2", "y"), "c": Item()}
    whole = storage.read_file("catalogue.parquet")
    for content in (b"gone", whole[:-5], b"".join((whole[:40], b"xxxx", whole[44:]))):
        storage.write_file("catalogue.parquet", content)
        with pytest.raises(DataDirError, match="remove it, then import the items again"):
            file.read()
