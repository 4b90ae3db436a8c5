"""Files of orders, each row of which is read by the mapping of a topic: lines, rejects, and what is counted."""

from __future__ import annotations

import csv
import gzip
import io
import json
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.data.event import EventOfLine, EventReading, EventType, ensure_fits_cluster
from recsys.data.mapping import EventMapping
from recsys.data.mapping_file import CONTRACT, preset, presets
from recsys.errors import InputFileError, MalformedEvent
from recsys.files import event_file, json_rows, parquet_rows
from recsys.files.batches import RowCounts
from recsys.files.inputs import find_inputs
from recsys.files.mapped import MappedFile
from recsys.files.tables import CsvForm
from recsys.operations import record_sources
from recsys.operations.record_sources import FileRecords
from tests.purchase_files import NOW, counts, events, rejects, written

ORDERS = """
where = "value.status == 'paid'"
lines = "value.lines"
zero_quantity = "skip"
missing_user = "skip"
timezone = "UTC"
[fields]
user_id = "value.customer"
item_id = "line.sku"
quantity = "line.n"
timestamp = "value.at"
event_id = ["value.id", "number"]
"""
COUNT = 'lines_that_are_good = "count"' + ORDERS
AT = "2026-11-22T10:59:00Z"


def order(number: int, *lines: Any, **fields: Any) -> dict[str, Any]:
    return {"id": number, "status": "paid", "customer": f"c{number}", "at": AT, "lines": list(lines)} | fields


def line(sku: Any, n: Any = 2) -> dict[str, Any]:
    return {"sku": sku, "n": n}


def opened(*paths: Path | str, mapping: str = ORDERS, **options: Any) -> MappedFile:
    given: dict[str, Any] = {"form": CsvForm(), "events": EventReading(), "now": NOW} | options
    return MappedFile(find_inputs(paths), EventMapping.parse(mapping, name="orders.toml"), **given)


def jsonl(folder: Path, *records: Any, mapping: str = ORDERS, name: str = "orders.jsonl", **options: Any) -> MappedFile:
    path = folder / name
    text = "".join(f"{one if isinstance(one, str) else json.dumps(one)}\n" for one in records)
    path.write_bytes(text.encode(errors="surrogateescape"))
    return opened(path, mapping=mapping, **options)


def csv_text(*records: Mapping[str, Any]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: json.dumps(v) if isinstance(v, list | dict) else v for k, v in r.items()} for r in records)
    return text.getvalue()


def found(file: MappedFile) -> list[tuple[int, str, str | None, float, str | None, int | None]]:
    return [
        (at, e.user_id, e.item_id, e.quantity, e.event_id, e.line if isinstance(e, EventOfLine) else None)
        for at, e in events(file)
    ]


TWO_ORDERS = (order(1, line("tea"), line("mug", 3)), order(2, line("tea", 1)))
THREE_LINES = [
    (1, "c1", "tea", 2.0, "1:1", 1),
    (2, "c1", "mug", 3.0, "1:2", 2),
    (3, "c2", "tea", 1.0, "2:1", 1),
]


def test_orders_of_json_lines_become_their_lines(tmp_path: Path) -> None:
    file = jsonl(tmp_path, *TWO_ORDERS)
    assert found(file) == THREE_LINES
    assert (file.rows, counts(file)) == (2, RowCounts(rows=2, read=3, valid=3))


def test_a_column_of_csv_holds_the_lines_as_json(tmp_path: Path) -> None:
    (tmp_path / "orders.csv").write_text(csv_text(*TWO_ORDERS))
    assert found(opened(tmp_path / "orders.csv")) == THREE_LINES


def test_lines_of_parquet_are_lists_of_structs_or_text(tmp_path: Path) -> None:
    for name, lines in (("a", [o["lines"] for o in TWO_ORDERS]), ("b", [json.dumps(o["lines"]) for o in TWO_ORDERS])):
        columns = {key: [o[key] for o in TWO_ORDERS] for key in ("id", "status", "customer", "at")}
        pq.write_table(pa.table(columns | {"lines": lines}), tmp_path / f"{name}.parquet")
        assert found(opened(tmp_path / f"{name}.parquet")) == THREE_LINES


def test_values_of_parquet_are_what_json_can_hold(tmp_path: Path) -> None:
    moment = datetime(2026, 11, 22, 10, 59)
    table = pa.table(
        {
            "id": [7], "status": ["paid"], "at": pa.array([moment], pa.timestamp("us")),
            "customer": pa.array([17850.0]),  # as pandas writes integers with gaps
            "lines": pa.array(
                [[{"sku": Decimal("12"), "n": Decimal("1.5")}]],
                pa.list_(pa.struct([("sku", pa.decimal128(9, 2)), ("n", pa.decimal128(9, 2))])),
            ),
        }
    )  # fmt: skip
    pq.write_table(table, tmp_path / "a.parquet")
    assert found(opened(tmp_path / "a.parquet")) == [(1, "17850", "12", 1.5, "7:1", 1)]
    assert events(opened(tmp_path / "a.parquet"))[0][1].timestamp == 1_795_345_140_000


def test_hive_partitions_are_in_reach(tmp_path: Path) -> None:
    folder = tmp_path / "status=paid"
    folder.mkdir()
    pq.write_table(
        pa.table({"id": [1], "customer": ["c1"], "at": [AT], "lines": [[line("tea")]]}), folder / "a.parquet"
    )
    assert found(opened(tmp_path)) == THREE_LINES[:1]


def test_a_mapping_without_lines_reads_a_row_as_one_event(tmp_path: Path) -> None:
    mapping = "negative_quantity = 'return'\n[fields]\nuser_id='value.\"Customer ID\"'\nitem_id='value.sku'\n"
    mapping += "timestamp='value.at'\nquantity='value.n'\n"
    (tmp_path / "a.csv").write_text(f"Customer ID,sku,at,n\n17850,a,{AT},\nNULL,a,{AT},1\n17851,b,{AT},-2\n")
    file = opened(tmp_path / "a.csv", mapping=mapping)
    assert [(at, e.user_id, e.quantity, e.type) for at, e in events(file)] == [
        (1, "17850", 1.0, EventType.PURCHASE), (3, "17851", 2.0, EventType.RETURN),
    ]  # fmt: skip
    assert rejects(file) == [(2, "user_id: is required")]
    assert counts(file).equations({"new": 2}) == ["3 rows read = 2 new + 1 rejected + 0 skipped (no customer)"]


def test_every_row_and_every_line_is_accounted_for(tmp_path: Path) -> None:
    file = jsonl(
        tmp_path,
        order(1, line("tea"), line("gone", 0), line("mug")),  # 2 count, 1 is left out
        order(2, line("tea"), line(None)),  # rejected with both lines
        order(3, line("tea"), line("mug"), status="open"),  # not looked at, so it counts as one line
        order(4),
        order(5, line("tea"), customer=None),
        "{broken",
        order(7, line("tea"), line("mug"), at="soon"),
    )
    numbers = counts(file)
    assert numbers == RowCounts(
        rows=7, rejected_rows=3, skipped_rows=3, read=11, valid=2, rejected=5, no_user=1, left_out=3
    )
    assert numbers.equations({"new": 1, "known": 1}) == [
        "7 rows read = 1 taken + 3 rejected + 3 skipped",
        "11 lines read = 1 new + 1 known + 5 rejected + 1 skipped (no customer) + 3 skipped (by the mapping)",
    ]
    assert [row for row, _ in rejects(file)] == [2, 6, 7]
    whys = [why for _, why in rejects(file)]
    assert whys[0] == "line 2: item_id is required for a purchase"
    assert whys[1].startswith("is not JSON: ")
    assert whys[2].startswith("line 1: timestamp: must be RFC 3339 with a zone")


def test_good_lines_count_where_the_mapping_says_so(tmp_path: Path) -> None:
    file = jsonl(
        tmp_path, order(1, line("tea"), line(None), line("gone", 0), line("mug")), order(2, line("tea")), mapping=COUNT
    )
    assert [at for at, _ in events(file)] == [1, 4, 5]
    assert counts(file) == RowCounts(rows=2, rejected_rows=1, read=5, valid=3, rejected=1, left_out=1)
    assert rejects(file) == [(1, "line 2: item_id is required for a purchase")]


def test_positions_follow_from_the_content_whatever_is_malformed(tmp_path: Path) -> None:
    """An import that goes on finds its lines under the numbers that they had."""
    orders = [order(1, line("a"), line("b")), order(2, line("a"), line("b"), line("c")), order(3, line("a"))]
    file = jsonl(tmp_path, *orders)

    def nobody_but_c3(user_id: str) -> None:
        if user_id != "c3":
            raise MalformedEvent("user_id: is not held here")

    def placed(check_user: Any = lambda user_id: None) -> Sequence[int]:
        return [at for batch in file.batches(check_user) for at, _ in batch.events]

    assert (placed(), placed(nobody_but_c3)) == ([1, 2, 3, 4, 5, 6], [6])
    forgets = [order(1, line("a") | {"kind": "forget"}, line("b")), order(2, line("a"))]
    with_types = jsonl(tmp_path, *forgets, mapping=f"{ORDERS}type = 'line.kind'\n")
    assert [at for at, _ in events(with_types)] == [3], "a forget must be alone; its order has two lines all the same"


def test_a_time_is_required_and_lies_at_most_a_day_ahead(tmp_path: Path) -> None:
    file = jsonl(tmp_path, order(1, line("a"), at=None), order(2, line("a"), at="2026-11-24T12:00:00Z"))
    reasons = [why for _, why in rejects(file)]
    assert reasons[0] == "line 1: timestamp: is required"
    assert reasons[1].startswith("line 1: timestamp: 2026-11-24T12:00:00Z is in the future")


def test_rejected_objects_are_mended_in_json(tmp_path: Path) -> None:
    bad = order(2, line("tea"), line(None)) | {"note": {"é": [1, 2.5, None]}}
    file = jsonl(tmp_path, order(1, line("tea")), bad, '{"id": 3, "\udcff', "[1]")
    assert file.rejects_path(None) == Path("orders.rejects.jsonl")
    rejected = written(file, tmp_path / "r.jsonl")
    mended = json.loads(rejected.splitlines()[0])
    assert mended == bad | {"why": "line 2: line 2: item_id is required for a purchase"}
    again = opened(tmp_path / "r.jsonl")
    assert events(again) == []
    assert [why.split(": ")[0] for _, why in rejects(again)] == ["line 2", "not mended yet", "not mended yet"]
    assert written(again, tmp_path / "r2.jsonl").count("not mended yet: ") == 2
    mended["lines"][1]["sku"] = "mug"
    lines = [json.dumps(mended), json.dumps(order(3, line("tea"))), *rejected.splitlines()[2:]]
    (tmp_path / "r.jsonl").write_text("\n".join(lines))
    assert [(e.user_id, e.item_id) for _, e in events(opened(tmp_path / "r.jsonl"))] == [
        ("c2", "tea"), ("c2", "mug"), ("c3", "tea"),
    ]  # fmt: skip


def test_rejected_rows_of_csv_are_mended_in_csv_and_those_of_parquet_in_json(tmp_path: Path) -> None:
    bad = order(2, line("tea"), line("=mug", -3))
    (tmp_path / "orders.csv").write_text(csv_text(order(1, line("tea")), bad) + "3,open\n")
    file = opened(tmp_path / "orders.csv")
    rejected = written(file, tmp_path / "r.csv")
    assert file.rejects_path(None) == Path("orders.rejects.csv")
    assert [why for _, why in rejects(opened(tmp_path / "r.csv"))] == [
        "line 2: quantity: must be more than 0",
        "not mended yet: line 4: the line has 2 columns, the header 5",
    ]
    (tmp_path / "r.csv").write_text(rejected.replace("-3", "3"))
    assert [item for _, _, item, *_ in found(opened(tmp_path / "r.csv"))] == ["tea", "=mug"]
    pq.write_table(pa.table({key: [value] for key, value in bad.items()}), tmp_path / "a.parquet")
    of_parquet = opened(tmp_path / "a.parquet")
    assert of_parquet.rejects_path(None) == Path("a.rejects.jsonl")
    mended = json.loads(written(of_parquet, tmp_path / "r.jsonl"))
    assert mended == bad | {"why": "row 1: line 2: quantity: must be more than 0"}


def test_a_stray_quote_costs_its_own_row(tmp_path: Path) -> None:
    mapping = "[fields]\nuser_id='value.customer'\nitem_id='value.sku'\ntimestamp='value.at'\n"
    rows = [f'1,c1,"a,{AT}', f"2,c2,b,{AT}", f'3,c3,c",{AT}', f"4,c4,d,{AT}"]
    (tmp_path / "a.csv").write_text("\n".join(["id,customer,sku,at", *rows]))
    file = opened(tmp_path / "a.csv", mapping=mapping)
    assert [event.user_id for _, event in events(file)] == ["c2", "c3", "c4"]
    assert [row for row, _ in rejects(file)] == [1]


def test_bytes_that_are_no_text_and_endless_lines_cost_their_own_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_rows, "_LONGEST_OBJECT", 300)
    first, last = (json.dumps(one).encode() for one in (order(1, line("tea")), order(2, line("tea", 1))))
    long_ones = [b'{"x": "' + b"x" * size + b'"}' for size in (300, 700, 591)]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join([first, b'{"id": "\xff"}', *long_ones, last, b'{"' + b"y" * 299]))
    file = opened(tmp_path / "a.jsonl")
    assert [(at, user) for at, user, *_ in found(file)] == [(1, "c1"), (6, "c2")]
    assert [why for _, why in rejects(file)][1:] == ["is longer than 300 characters"] * 4
    written(file, tmp_path / "r.jsonl")
    monkeypatch.undo()
    again = [why for _, why in rejects(opened(tmp_path / "r.jsonl"))]
    assert [why.startswith("not mended yet: ") for why in again] == [True] * 5


def test_a_batch_ends_after_so_many_lines_and_never_inside_of_an_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_file, "_BATCH_LINES", 4)
    file = jsonl(tmp_path, *(order(n, *(line(f"i{m}") for m in range(3))) for n in range(5)))
    assert [(b.first_row, b.last_row, b.rows) for b in file.batches()] == [(1, 6, 2), (7, 12, 2), (13, 15, 1)]


def test_rejected_orders_in_memory_are_few_however_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_file, "_MOST_HELD", 10_000)
    file = jsonl(tmp_path, *(order(n, line(None), note="x" * 4_000) for n in range(9)))
    assert [len(batch.rejects) for batch in file.batches()] == [3, 3, 3]


def test_large_rows_of_parquet_are_read_a_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_rows, "_SLICE_BYTES", 10_000)
    orders = [order(n, *(line(f"sku-{m}") for m in range(100))) for n in range(60)]
    pq.write_table(pa.Table.from_pylist(orders), tmp_path / "a.parquet")
    sizes: list[int] = []
    real = parquet_rows.python_values

    def noted(column: pa.Array) -> list[Any]:
        sizes.append(len(column))
        return real(column)

    monkeypatch.setattr(parquet_rows, "python_values", noted)
    assert len(events(opened(tmp_path / "a.parquet"))) == 6_000
    assert 0 < max(sizes) <= 6


def test_packed_files_several_of_them_and_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [json.dumps(one) for one in TWO_ORDERS]
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(texts[0].encode()))
    (tmp_path / "b.jsonl").write_text(texts[1])
    both = opened(tmp_path / "a.jsonl.gz", tmp_path / "b.jsonl")
    assert found(both) == THREE_LINES
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO("\n".join(texts).encode())))
    assert found(opened("-")) == THREE_LINES
    (tmp_path / "c.jsonl").write_text(texts[1])
    with pytest.raises(InputFileError, match=r"c\.jsonl: holds the same as .*b\.jsonl"):
        next(opened(tmp_path / "b.jsonl", tmp_path / "c.jsonl").batches())


def test_a_file_that_breaks_off_gives_nothing(tmp_path: Path) -> None:
    whole = gzip.compress("\n".join(json.dumps(order(n, line("tea"))) for n in range(20_000)).encode())
    (tmp_path / "a.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputFileError, match="the gzip data ends too early"):
        next(opened(tmp_path / "a.jsonl.gz").batches())


def test_cloud_events_are_unwrapped(tmp_path: Path) -> None:
    wrapped = {"specversion": "1.0", "id": "1", "source": "/", "type": "order", "data": order(1, line("tea"))}
    file = jsonl(tmp_path, wrapped, order(2, line("tea")), is_wrapped=True)
    assert [user for _, user, *_ in found(file)] == ["c1"]
    assert rejects(file)[0][1].startswith("it is no CloudEvent")


def test_a_column_that_is_named_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,id\n1,2\n")
    with pytest.raises(InputFileError, match="column 'id' appears more than once"):
        opened(tmp_path / "a.csv")


def test_what_a_mapping_looks_for_and_no_file_has_is_said(tmp_path: Path) -> None:
    assert jsonl(tmp_path, *TWO_ORDERS).remarks == []
    by_header = ORDERS.replace("value.status == 'paid'", "headers.kind == 'order' && cloudevent.type")
    assert jsonl(tmp_path, *TWO_ORDERS, mapping=by_header).remarks == [
        "the mapping looks at cloudevent, headers; in files there is no such thing"
    ]
    assert "cloudevent" not in jsonl(tmp_path, *TWO_ORDERS, mapping=by_header, is_wrapped=True).remarks[0]
    with pytest.raises(InputFileError, match="the mapping names no timestamp"):
        jsonl(tmp_path, *TWO_ORDERS, mapping=ORDERS.replace('timestamp = "value.at"', ""))
    if_absent = ORDERS.replace('"value.customer"', '"value.customer || key"')
    assert jsonl(tmp_path, *TWO_ORDERS, mapping=if_absent).remarks == []
    for name in presets():
        assert jsonl(tmp_path, {}, mapping=preset(name)).remarks == []


@pytest.mark.parametrize("text", ["", "\n\n", "\ufeff"])
def test_an_empty_file_among_several_is_said_and_passed_over(tmp_path: Path, text: str) -> None:
    paths = [tmp_path / f"{name}.jsonl" for name in "abc"]
    for path, content in zip(paths, (text, json.dumps(TWO_ORDERS[0]), text), strict=True):
        path.write_text(content)
    file = opened(*paths)
    assert found(file) == THREE_LINES[:2]
    assert file.remarks == [f"{path}: the file is empty, and passed over" for path in (paths[0], paths[2])]
    assert file.content_digest == opened(paths[1]).content_digest
    for alone in ((paths[0],), (paths[0], paths[2])):
        with pytest.raises(InputFileError, match="the file is empty"):
            opened(*alone)


def test_of_a_row_in_another_form_the_form_is_named(tmp_path: Path) -> None:
    request = {"client_id": "1.2", "user_id": "u", "timestamp_micros": 1, "events": [{"name": "purchase"}]}
    ((_, why),) = rejects(jsonl(tmp_path, request, mapping=preset(CONTRACT)))
    assert why.startswith(
        "the mapping finds no item_id and no timestamp; it looks like a request of Google Analytics 4"
    )
    file = jsonl(tmp_path, {"op": "c", "after": {"user_id": "u"}}, mapping=preset(CONTRACT))
    ((_, why),) = rejects(file)
    assert why.startswith(
        "the mapping finds no user_id, no item_id and no timestamp; it looks like a Debezium envelope"
    )


def test_users_who_cannot_be_are_seen_as_an_import_sees_them(tmp_path: Path) -> None:
    source = FileRecords(jsonl(tmp_path, order(1, line("tea"), customer="}u")), ensure_fits_cluster)
    assert (source.newest(1)[0].malformed or "").startswith("line 1: user_id: must not begin with }")


def test_orders_may_have_any_number_of_keys(tmp_path: Path) -> None:
    assert len(events(jsonl(tmp_path, *(order(n, line("a")) | {f"key-{n}": 1} for n in range(2_000))))) == 2_000


def test_options_name_what_changes_the_reading(tmp_path: Path) -> None:
    def digest(**options: Any) -> str:
        file = jsonl(tmp_path, *TWO_ORDERS, **options)
        return file.digest(sorted(file.options().items()))

    same = [digest(), digest(mapping=f"# a comment\n{ORDERS}")]
    others = [
        digest(mapping=ORDERS.replace("'paid'", "'open'")),
        digest(events=EventReading(no_user=frozenset({"guest"}))),
        digest(is_wrapped=True),
        digest(form=CsvForm("cp1252")),
    ]
    assert len(set(same)) == 1
    assert len({*same, *others}) == 5


def test_what_is_seen_of_a_file_is_what_an_import_makes_of_it(tmp_path: Path) -> None:
    source = FileRecords(jsonl(tmp_path, *TWO_ORDERS, order(3, line("gone", 0), line(None)), "{"))
    seen = [*source.oldest(2), *source.newest(2)]
    assert [one.place for one in seen] == ["line 1", "line 2", "line 3", "line 4"]
    assert [[event.event_id for event in one.events] for one in seen] == [["1:1", "1:2"], ["2:1"], [], []]
    assert json.loads(seen[0].value or b"") == TWO_ORDERS[0]
    assert seen[2].malformed == "line 2: item_id is required for a purchase"
    assert [(left.number, left.why) for left in seen[2].left_out] == [(1, "its quantity is 0")]
    assert seen[3].value == b"{"
    assert len(source.newest(100)) == 4


def test_folders_count_as_content_if_the_mapping_looks_at_their_column(tmp_path: Path) -> None:
    by_day = ORDERS.replace("value.at", "value.dt")
    paths = []
    for day in (1, 2):
        paths.append(tmp_path / f"snap={day}/dt=2026-01-0{day}/a.parquet")
        paths[-1].parent.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist([order(1, line("tea"))]), paths[-1])
    assert len(events(opened(*paths, mapping=by_day))) == 2
    with pytest.raises(InputFileError, match="holds the same as"):
        events(opened(*paths))
    all_values = by_day.replace("value.status == 'paid'", "contains(values(value), '2026-01-01')")
    assert opened(*paths, mapping=all_values).columns_used >= {"snap", "dt"}
    assert opened(*paths, mapping=by_day).columns_used.isdisjoint({"snap"})


def test_a_column_that_is_nested_deeply_is_shown_and_rejected_whole(tmp_path: Path) -> None:
    for levels in (248, 249, 250, 251, 252, 253, 254, 300):
        text = "[" * levels + "]" * levels
        (tmp_path / "a.csv").write_text(f"id,status,customer,at,lines\n1,paid,u,{AT},{text}\n")
        row = {"id": 1, "status": "paid", "customer": "u", "at": AT}
        pq.write_table(pa.Table.from_pylist([row | {"lines": text}]), tmp_path / "a.parquet")
        (tmp_path / "a.jsonl").write_text(f'{json.dumps(row)[:-1]}, "lines": {text}}}\n')
        for name in ("a.csv", "a.parquet", "a.jsonl"):
            file = opened(tmp_path / name)
            assert len(rejects(file)) == 1, (levels, name)
            assert written(file, tmp_path / "rejects")
            assert all(one.value for one in FileRecords(file).newest(1)), (levels, name)


def test_records_to_be_shown_take_bounded_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = FileRecords(jsonl(tmp_path, *(order(n, line("tea"), note="x" * 1_000) for n in range(1, 21))))
    monkeypatch.setattr(record_sources, "_MOST_HELD_BYTES", 3 << 20)
    assert len(source.newest(10_000)) == 20
    monkeypatch.setattr(record_sources, "_MOST_HELD_BYTES", 3 << 12)
    assert [one.place for one in source.newest(2)] == ["line 19", "line 20"]
    assert len(source.oldest(3)) == 3
    for show in (source.newest, source.oldest):
        with pytest.raises(InputFileError, match=r"^orders.jsonl: the records take more than .* show fewer with -n$"):
            show(20)


def test_a_time_in_a_file_that_is_too_late_is_said_to_be_later_than_now(tmp_path: Path) -> None:
    late = [order(1, line("tea"), at="2026-11-24T00:00:00Z"), order(2, line("tea"), at=None)]
    limit = "later than 2026-11-23T12:00:00Z, a day after now"
    assert rejects(jsonl(tmp_path, *late)) == [
        (1, f"line 1: timestamp: 2026-11-24T00:00:00Z is in the future: {limit}"),
        (2, "line 1: timestamp: is required"),
    ]


@pytest.mark.parametrize("encoding", ["utf8", "cp1252", "utf-16"])
@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_rejects_are_read_again_with_the_same_encoding_and_as_the_mapping_saw_them(
    tmp_path: Path, encoding: str, form: str
) -> None:
    row = order(1, line("té"), line(None), customer="ö")
    if form == "jsonl":
        (tmp_path / "a").write_text(json.dumps(row, ensure_ascii=False), encoding=encoding)
    else:
        pq.write_table(pa.Table.from_pylist([row | {"lines": json.dumps(row["lines"])}]), tmp_path / "a")
    csv_form = CsvForm(encoding)
    written(opened(tmp_path / "a", form=csv_form), tmp_path / "r.jsonl")
    rejected = (tmp_path / "r.jsonl").read_text(encoding="utf-8-sig")
    again = opened(tmp_path / "r.jsonl", form=csv_form)
    assert rejects(again) == [(1, "line 2: item_id is required for a purchase")]
    mended = rejected.replace("null", '"b"')
    (tmp_path / "r.jsonl").write_text(mended, encoding="utf8" if encoding == "utf8" else "utf-8-sig")
    found = [(event.user_id, event.item_id) for _, event in events(opened(tmp_path / "r.jsonl", form=csv_form))]
    assert found == [("ö", "té"), ("ö", "b")]
