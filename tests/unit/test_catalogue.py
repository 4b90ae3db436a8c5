from __future__ import annotations

import uuid
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.errors import DataDirError, InputFileError
from recsys.files.items import ItemColumns, read_items
from recsys.files.tables import CsvForm
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
    read = read_items(file, ItemColumns())
    found = read.catalogue
    assert (read.rows, read.valid, read.rejects) == (3, 3, ())
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
    found = read_items(tmp_path / "items.parquet", columns)
    assert found.catalogue.items == {"1": Item("A", "g", available=False), "2": Item("", "h")}


def test_rows_that_make_no_sense_are_named_and_the_others_taken(tmp_path: Path) -> None:
    file = written(tmp_path / "items.csv", "item_id,available\na,maybe\n,yes\nb,1\nb,0\nNA,1.0\n")
    found = read_items(file, ItemColumns())
    assert found.catalogue.items == {"b": Item(available=False), "NA": Item()}  # the last one counts
    assert [(one.row, one.why.split(": ")[:2]) for one in found.rejects] == [
        (1, ["line 2", "available"]),
        (2, ["line 3", "item_id"]),
    ]
    assert (found.rows, found.valid) == (5, 3)


@pytest.mark.parametrize(
    ("text", "is_available"),
    [
        ("5", True),
        ("0", False),
        ("0.0", False),
        ("2.5", True),
        ("-3", False),
        ("1e3", True),
        ("NULL", True),
        ("off", False),
    ],
)
def test_any_number_is_a_stock(tmp_path: Path, text: str, is_available: bool) -> None:
    found = read_items(written(tmp_path / "items.csv", f"item_id,available\na,{text}\n"), ItemColumns())
    assert found.catalogue.items == {"a": Item(available=is_available)}


def test_a_file_of_items_is_read_like_one_of_purchases(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_bytes(
        'item_id\tTitle\n85123.0\tCaf\u00e9 12" wide\n7.0\t"open\n8.0\tx\n'.encode("cp1252")
    )
    form = CsvForm("cp1252", "\\t")
    found = read_items(tmp_path / "items.csv", ItemColumns(title="Title"), form)
    assert found.catalogue.titles() == {"85123": 'Caf\u00e9 12" wide', "8": "x"}
    assert [(one.row, one.why.partition(":")[0]) for one in found.rejects] == [(2, "line 3")]
    assert "--no-integer-ids" in found.remarks[0]
    kept = read_items(tmp_path / "items.csv", ItemColumns(title="Title"), form, integer_ids=False)
    assert set(kept.catalogue.items) == {"85123.0", "8.0"}


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("none.csv", None, "there is no such file"),
        ("items.txt", "PK\x03\x04", "an Excel workbook: save it as CSV"),
        ("items.csv", "sku,title\na,b\n", "no column 'item_id'; the columns are sku, title.*--item-id-column"),
        ("items.csv", "item_id,title,title\na,b,c\n", "'title' appears more than once"),
        ("items.csv", "", "the file is empty"),
        ("items.csv", "item_id,price\na,1\n", "no column title, category or available"),
        ("items.parquet", "not parquet", "Its name says Parquet, its content does not"),
        ("items.csv", "item_id;title\n1;Tea\n", "Name what separates the columns with --delimiter"),
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
