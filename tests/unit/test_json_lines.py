"""JSON Lines: objects, a line each, read like the rows of other files."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from recsys.data.event import EventType
from recsys.errors import InputFileError
from recsys.files.columns import Columns
from recsys.files.inputs import find_inputs
from recsys.files.items import ItemColumns, read_items
from recsys.files.purchases import PurchaseFile
from tests.builders import make_event
from tests.purchase_files import (
    DAY_MS,
    NOW,
    READING,
    counts,
    events,
    one_event,
    one_reject,
    opened,
    rejected_values,
    rejects,
    written,
)

ROW = {"user_id": "u", "item_id": "a", "timestamp": "2026-01-01T00:00:00Z"}


def lines(folder: Path, *objects: Any, name: str = "a.jsonl", columns: Columns | None = None) -> PurchaseFile:
    """Write objects, or lines as they are, and open the file."""
    text = "".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in objects)
    (folder / name).write_text(text)
    return opened(folder / name, columns)


def test_objects_with_every_field_are_read(tmp_path: Path) -> None:
    file = lines(
        tmp_path,
        ROW | {"event_id": "e1", "type": "purchase", "quantity": 2.5, "price": 3.5, "note": {"x": [1]}},
        "",
        {"timestamp": 1767225601000, "item_id": 9, "user_id": 42, "type": "return"},
        {"user_id": "42", "timestamp": "2026-01-01T00:00:02Z", "type": "forget", "item_id": None},
    )
    assert rejects(file) == []
    assert events(file) == [
        (1, make_event("u", "a", 2.5, price=3.5, event_id="e1", timestamp=DAY_MS)),
        (2, make_event("42", "9", type_=EventType.RETURN, timestamp=DAY_MS + 1000)),
        (3, make_event("42", None, type_=EventType.FORGET, timestamp=DAY_MS + 2000)),
    ]


@pytest.mark.parametrize("levels", [300, 900])
def test_an_object_that_is_nested_too_deeply_is_rejected_and_the_others_read(tmp_path: Path, levels: int) -> None:
    deep = json.dumps(ROW | {"x": 5}).replace("5}", f"{'[' * levels}{']' * levels}}}")
    file = lines(tmp_path, ROW, deep, ROW | {"x": [[["shallow"]]] * 300})
    assert [row for row, _ in events(file)] == [1, 3]
    assert rejects(file) == [(2, "is nested too deeply")]


def test_only_what_is_asked_for_is_taken_out_of_an_object(tmp_path: Path) -> None:
    file = lines(tmp_path, ROW | {"user_id": 7.0, "x": {"y": 1}}, ROW | {"item_id": None, "x": [1]})
    (rejected,) = [reject for batch in file.batches() for reject in batch.rejects]
    shown = dict(zip(file.table.names, map(str, rejected.values), strict=True))
    assert (shown["x"], shown["user_id"]) == ("[1]", "u"), "all of a row that is rejected is there to be mended"


def test_fields_of_other_names_are_read(tmp_path: Path) -> None:
    columns = Columns(user_id="customer", item_id="sku", quantity="units", timestamp="at", timestamp_unit="s")
    file = lines(tmp_path, {"customer": 7, "sku": "a", "units": "1,5", "at": 1767225600}, columns=columns)
    assert one_event(file) == make_event("7", "a", 1.5, timestamp=DAY_MS)


def test_a_field_that_only_the_last_object_has_is_found(tmp_path: Path) -> None:
    file = lines(tmp_path, *[ROW] * 5_000, ROW | {"type": "return"})
    assert [event.type for _, event in events(file)][-2:] == [EventType.PURCHASE, EventType.RETURN]


def test_a_field_that_no_object_has_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="no column 'timestamp' for timestamp; the columns are user_id, item_id"):
        lines(tmp_path, {"user_id": "u", "item_id": "a"})


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"user_id": "u", "item_id"', "is not JSON: "),
        ('["u", "a"]', "is JSON, but no object"),
        ("u,a,2026-01-01", "is not JSON: "),
        (json.dumps(ROW | {"item_id": {"sku": "a"}}), "item_id: "),
        (json.dumps(ROW | {"item_id": ["a"]}), "item_id: "),
        (json.dumps(ROW | {"item_id": True}), "item_id: "),
        (json.dumps(ROW | {"quantity": "many"}), "quantity: 'many' is not a number"),
        (json.dumps(ROW | {"user_id": 1.5e300}), "user_id: "),
        (json.dumps(ROW | {"timestamp": None}), "timestamp: is required"),
        (json.dumps(ROW).replace('"u"', '"\\ud800"'), "is not JSON: "),
        (json.dumps(ROW | {"quantity": float("nan")}), "is not JSON: "),
    ],
)
def test_a_broken_line_is_rejected_alone_and_named(tmp_path: Path, line: str, reason: str) -> None:
    file = lines(tmp_path, ROW, line, ROW | {"item_id": "b", "quantity": 1})
    assert [(row, event.item_id) for row, event in events(file)] == [(1, "a"), (3, "b")]
    (reject,) = (reject for batch in file.batches() for reject in batch.rejects)
    assert reject.why.startswith(f"line 2: {reason}")
    assert (counts(file).read, counts(file).rejected) == (3, 1)


def test_rejects_are_mended_as_csv(tmp_path: Path) -> None:
    late = ROW | {"timestamp": "soon", "user_id": 17850, "item_id": "é", "note": {"x": [1, "y"]}}
    rejected = written(lines(tmp_path, ROW, late, '{"user_id": "v", '), tmp_path / "r.csv")
    header, first, broken = rejected.splitlines()
    assert header == '"user_id","item_id","timestamp","note","why"'
    assert first.startswith('"17850","é","soon","{""x"":[1,""y""]}","line 2: timestamp')
    assert broken.startswith('"[broken row] {""user_id"": ""v"",","","","",')
    assert rejects(opened(tmp_path / "r.csv"))[1][1].startswith(
        "not mended yet: line 3: is not JSON: unexpected end of data, at character"
    )
    (tmp_path / "r.csv").write_text(rejected.replace("soon", "2026-01-01", 1), encoding="utf-8-sig")
    assert events(opened(tmp_path / "r.csv")) == [(1, make_event("17850", "é", timestamp=DAY_MS))]


def test_several_files_need_not_have_the_same_fields(tmp_path: Path) -> None:
    lines(tmp_path, ROW, name="a.jsonl")
    lines(tmp_path, ROW | {"type": "return", "item_id": "b"}, '{"', name="b.jsonl")
    file = PurchaseFile(find_inputs([tmp_path / "a.jsonl", tmp_path / "b.jsonl"]), Columns(), events=READING, now=NOW)
    assert [(row, event.type) for row, event in events(file)] == [(1, EventType.PURCHASE), (2, EventType.RETURN)]
    assert next(reject.why for batch in file.batches() for reject in batch.rejects).startswith(
        f"{tmp_path}/b.jsonl line 2: is not JSON"
    )


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_packed_files_and_byte_order_marks_are_read(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(ROW | {"item_id": "é"}, ensure_ascii=False).encode(encoding)))
    assert one_event(opened(path)).item_id == "é"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[{"user_id": "u"}]', "this is a list in JSON; write each of its objects in a line of its own"),
        ('{\n  "user_id": "u"\n}\n', "no line is an object in JSON; write each in one line"),
        ('{"user_id": "' + "x" * 2_000_000 + '"}', "line 1 is longer than 1,048,576 characters"),
        ("user_id;item_id", "Name what separates the columns with --delimiter"),
        ("user,item_id,timestamp", "Its name says JSON Lines, its content does not"),
    ],
)
def test_what_is_no_such_file_is_named(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "a.jsonl").write_text(text)
    with pytest.raises(InputFileError) as caught:
        list(opened(tmp_path / "a.jsonl").batches())
    assert str(caught.value).startswith(f"{tmp_path}/a.jsonl: ")
    assert words in str(caught.value)


def test_more_fields_than_a_table_has_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match=r"line 1,001: the objects have more than 1,000 keys"):
        lines(tmp_path, *({f"key-{n}": 1} for n in range(2_000)))


def test_ids_that_lost_digits_are_rejected_and_whole_ones_kept(tmp_path: Path) -> None:
    assert one_event(lines(tmp_path, ROW | {"user_id": 12345678901234567890})).user_id == "12345678901234567890"
    assert "lost digits" in one_reject(lines(tmp_path, ROW | {"user_id": 1.2345678901234567e19}))
    file = lines(tmp_path, ROW | {"user_id": 17850.0}, ROW | {"user_id": None}, ROW | {"user_id": "NULL"})
    assert [event.user_id for _, event in events(file)] == ["17850"]
    assert counts(file).no_user == 2
    assert rejected_values(file) == []


def test_items_are_read_from_json_lines_as_well(tmp_path: Path) -> None:
    (tmp_path / "items.jsonl").write_text('{"item_id": 7, "title": "Tea"}\n{"item_id": "b", "available": false}\n')
    found = read_items(tmp_path / "items.jsonl", ItemColumns())
    assert found.catalogue.titles() == {"7": "Tea"}
    assert found.catalogue.unavailable() == {"b"}
