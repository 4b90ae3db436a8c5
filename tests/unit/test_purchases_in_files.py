"""Rows of files of purchases: formats, columns, quotes, and rejects."""

from __future__ import annotations

import csv
import gzip
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.data.event import EventType
from recsys.errors import InputFileError
from recsys.files import event_file, parquet_rows
from recsys.files.batches import Reject, RowCounts
from recsys.files.columns import Columns
from recsys.files.purchases import PurchaseFile
from recsys.files.rejects import RejectsFile
from recsys.files.tables import CsvForm, Table
from tests.builders import make_event
from tests.purchase_files import (
    DAY_MS,
    HEADER,
    counts,
    csv_file,
    events,
    one_event,
    one_reject,
    opened,
    parquet_file,
    rejected_values,
    rejects,
    title_file,
    written,
)


def test_a_csv_file_with_every_column_is_read(tmp_path: Path) -> None:
    file = csv_file(
        tmp_path,
        "event_id,type,user_id,item_id,quantity,price,timestamp,note\n"
        "e1,purchase,42,sku-9,2.5,3.5,2026-01-01T00:00:01Z,x\n"
        "e2,return,42,sku-9,1,,2026-01-01T00:00:02Z,\n"
        ",,43,sku-8,,,2026-01-01T00:00:03Z,\n"
        ",forget,42,,,,2026-01-01T00:00:04Z,\n",
    )
    assert rejects(file) == []
    assert events(file) == [
        (1, make_event("42", "sku-9", 2.5, price=3.5, event_id="e1", timestamp=DAY_MS + 1000)),
        (2, make_event("42", "sku-9", 1.0, type_=EventType.RETURN, event_id="e2", timestamp=DAY_MS + 2000)),
        (3, make_event("43", "sku-8", 1.0, timestamp=DAY_MS + 3000)),
        (4, make_event("42", None, type_=EventType.FORGET, timestamp=DAY_MS + 4000)),
    ]


def test_a_parquet_file_with_every_column_is_read(tmp_path: Path) -> None:
    file = parquet_file(
        tmp_path,
        {
            "event_id": ["e1", None, None],
            "type": ["purchase", "return", "forget"],
            "user_id": ["42", "42", "42"],
            "item_id": ["sku-9", "sku-9", None],
            "quantity": [2.5, 1.0, None],
            "price": [3.5, None, None],
            "timestamp": [datetime(2026, 1, 1, 0, 0, second, tzinfo=UTC) for second in (1, 2, 3)],
        },
    )
    assert file.rows == 3
    assert rejects(file) == []
    assert events(file) == [
        (1, make_event("42", "sku-9", 2.5, price=3.5, event_id="e1", timestamp=DAY_MS + 1000)),
        (2, make_event("42", "sku-9", 1.0, type_=EventType.RETURN, timestamp=DAY_MS + 2000)),
        (3, make_event("42", None, type_=EventType.FORGET, timestamp=DAY_MS + 3000)),
    ]


RENAMED = Columns(
    user_id="Customer ID",
    item_id="StockCode",
    quantity="Quantity",
    timestamp="InvoiceDate",
    price="Price",
    event_id="Line",
    type="Kind",
)


def test_columns_of_other_names_are_read_from_csv(tmp_path: Path) -> None:
    text = "Line,Kind,StockCode,Quantity,InvoiceDate,Price,Customer ID\nL1,return,85048,12,2026-01-01,6.95,13085\n"
    expected = make_event("13085", "85048", 12.0, type_=EventType.RETURN, price=6.95, event_id="L1", timestamp=DAY_MS)
    assert one_event(csv_file(tmp_path, text, RENAMED)) == expected


def test_columns_of_other_names_are_read_from_parquet(tmp_path: Path) -> None:
    values: dict[str, Any] = {
        "Line": [7],
        "Kind": pa.array(["return"]).dictionary_encode(),
        "StockCode": ["85048"],
        "Quantity": pa.array([12], pa.int16()),
        "InvoiceDate": [date(2026, 1, 1)],
        "Price": pa.array([6.5], pa.float32()),
        "Customer ID": [13085.0],
    }
    expected = make_event("13085", "85048", 12.0, type_=EventType.RETURN, price=6.5, event_id="7", timestamp=DAY_MS)
    assert one_event(parquet_file(tmp_path, values, RENAMED)) == expected


def test_rejected_and_accepted_rows_keep_their_numbers(tmp_path: Path) -> None:
    file = csv_file(tmp_path, HEADER + "u,a,2026-01-01\n,a,2026-01-01\nu,,2026-01-01\nu,b,soon\nu,c,2026-01-01\n")
    assert [row for row, _ in events(file)] == [1, 5]
    assert [(row, reason.split(":")[0]) for row, reason in rejects(file)] == [
        (3, "item_id is required for a purchase"),
        (4, "timestamp"),
    ]
    assert counts(file) == RowCounts(rows=5, rejected_rows=2, skipped_rows=1, read=5, valid=2, rejected=2, no_user=1)


def test_lines_with_the_wrong_number_of_columns_are_rejects(tmp_path: Path) -> None:
    file = csv_file(tmp_path, HEADER + "u,a,2026-01-01\nu,b\nu,c,2026-01-01,1,2\nu,d,2026-01-01\n")
    assert [event.item_id for _, event in events(file)] == ["a", "d"]
    assert rejects(file) == [
        (2, "the line has 2 columns, the header 3"),
        (3, "the line has 5 columns, the header 3"),
    ]
    assert rejected_values(file) == [["u", "b"], ["u", "c", "2026-01-01", "1", "2"]]


def test_rows_after_a_line_with_the_wrong_number_of_columns_keep_their_numbers(tmp_path: Path) -> None:
    file = csv_file(tmp_path, HEADER + "u,a,2026-01-01\nu,b\nu,c,2026-01-01\nu,d,soon\nu\n")
    assert [row for row, _ in events(file)] == [1, 3]
    assert [row for row, _ in rejects(file)] == [2, 4, 5]
    assert [(batch.first_row, batch.last_row) for batch in file.batches()][-1][1] >= 4


def test_a_file_of_nothing_but_wrong_lines_is_all_rejects(tmp_path: Path) -> None:
    file = csv_file(tmp_path, HEADER + "u\nv\n")
    assert events(file) == []
    assert [row for row, _ in rejects(file)] == [1, 2]


def test_quoted_fields_may_hold_separators_and_quotes(tmp_path: Path) -> None:
    assert one_event(csv_file(tmp_path, HEADER + '"u,1","a ""b""",2026-01-01\n')) == make_event(
        "u,1", 'a "b"', timestamp=DAY_MS
    )


def test_a_line_break_inside_quotes_ends_no_row(tmp_path: Path) -> None:
    file = csv_file(tmp_path, HEADER + 'u,"a\nb",2026-01-01\nu,c,2026-01-01\n')
    assert [(row, event.item_id) for row, event in events(file)] == [(2, "c")]
    assert [row for row, _ in rejects(file)] == [1]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("last", [True, False])
def test_lines_may_end_either_way(tmp_path: Path, end: str, last: bool) -> None:
    text = end.join(["user_id,item_id,timestamp", "u,a,2026-01-01"]) + (end if last else "")
    assert one_event(csv_file(tmp_path, text)) == make_event("u", "a", timestamp=DAY_MS)


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    assert one_event(csv_file(tmp_path, b"\xef\xbb\xbf" + f"{HEADER}u,a,2026-01-01\n".encode())).user_id == "u"


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16"])
def test_other_encodings_are_read(tmp_path: Path, encoding: str) -> None:
    text = "usér,item_id,timestamp\nJosé,café,2026-01-01\n".encode(encoding)
    event = one_event(csv_file(tmp_path, text, Columns(user_id="usér", encoding=encoding)))
    assert (event.user_id, event.item_id) == ("José", "café")


def test_wrong_lines_of_other_encodings_are_rejects(tmp_path: Path) -> None:
    file = csv_file(tmp_path, (HEADER + "José,café\n").encode("latin-1"), Columns(encoding="latin-1"))
    assert rejected_values(file) == [["José", "café"]]


@pytest.mark.parametrize("rows_before", [0, 100_000])
def test_bytes_of_another_encoding_are_an_input_file_error(tmp_path: Path, rows_before: int) -> None:
    text = HEADER.encode() + b"u,a,2026-01-01\n" * rows_before + "José,café,2026-01-01\n".encode("latin-1")
    with pytest.raises(InputFileError, match=r"purchases\.csv: cannot be read"):
        events(csv_file(tmp_path, text))


def test_an_unknown_encoding_is_an_input_file_error(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="klingon"):
        csv_file(tmp_path, HEADER, Columns(encoding="klingon"))


@pytest.mark.parametrize("column", ["user_id", "item_id", "timestamp"])
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_missing_column_names_the_option_that_helps(tmp_path: Path, column: str, suffix: str) -> None:
    names = [name if name != column else "other" for name in ("user_id", "item_id", "timestamp")]
    path = tmp_path / f"purchases.{suffix}"
    if suffix == "csv":
        path.write_text(",".join(names) + "\n")
    else:
        pq.write_table(pa.table({name: ["x"] for name in names}), path)
    with pytest.raises(InputFileError) as caught:
        opened(path)
    text = str(caught.value)
    assert f"purchases.{suffix}" in text
    assert f"--{column.replace('_', '-')}-column" in text
    assert "other" in text


@pytest.mark.parametrize("field", ["quantity", "price", "event_id", "type"])
def test_an_optional_column_may_be_missing_unless_it_was_named(tmp_path: Path, field: str) -> None:
    text = HEADER + "u,a,2026-01-01\n"
    assert one_event(csv_file(tmp_path, text)) == make_event("u", "a", timestamp=DAY_MS)
    columns = Columns(**{field: "nowhere"})  # type: ignore[arg-type]
    with pytest.raises(InputFileError, match=f"'nowhere' for {field}.*--{field.replace('_', '-')}-column"):
        csv_file(tmp_path, text, columns)


def test_an_empty_csv_file_is_an_input_file_error(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match=r"purchases\.csv"):
        csv_file(tmp_path, "")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the file is empty"), (b"junk", "Its name says Parquet, its content does not"),
        (b"PAR1junkPAR1", "cannot be read"), (b"\x00\x01", "neither text nor Parquet"),
        (b"PAREjunkPARE", "encrypted Parquet"),
    ],
)  # fmt: skip
def test_a_file_that_is_not_parquet_is_an_input_file_error(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "purchases.parquet"
    path.write_bytes(content)
    with pytest.raises(InputFileError, match=rf"purchases\.parquet: .*{words}"):
        opened(path)


@pytest.mark.parametrize("header", [HEADER, HEADER.strip(), HEADER.strip() + "\r\n"])
def test_a_header_alone_is_no_purchase(tmp_path: Path, header: str) -> None:
    file = csv_file(tmp_path, header)
    assert events(file) == []
    assert rejects(file) == []


def test_a_parquet_file_without_rows_is_no_purchase(tmp_path: Path) -> None:
    nothing = pa.array([], pa.string())
    file = parquet_file(tmp_path, {"user_id": nothing, "item_id": nothing, "timestamp": nothing})
    assert file.rows == 0
    assert events(file) == []


def test_a_file_that_is_not_there_or_of_another_kind_is_an_input_file_error(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="there is no such file"):
        opened(tmp_path / "missing.csv")
    with pytest.raises(InputFileError, match="this is a folder, not a file"):
        opened(tmp_path)
    (tmp_path / "purchases.xlsx").write_bytes(b"")
    with pytest.raises(InputFileError, match="the file is empty"):
        opened(tmp_path / "purchases.xlsx")


def test_rows_are_numbered_across_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_file, "_BATCH_LINES", 4)
    monkeypatch.setattr(parquet_rows, "_BATCH_ROWS", 3)
    users = [str(number) for number in range(1, 11)]
    file = parquet_file(tmp_path, {"user_id": users, "item_id": users, "timestamp": [DAY_MS] * 10})
    assert [(batch.first_row, batch.last_row) for batch in file.batches()] == [(1, 4), (5, 8), (9, 10)]
    assert [(row, event.user_id) for row, event in events(file)] == [(int(user), user) for user in users]


def test_a_long_csv_file_is_read_in_consecutive_batches(tmp_path: Path) -> None:
    lines = "".join(f"u,{number},2026-01-01\n" for number in range(1, 150_001))
    file = csv_file(tmp_path, HEADER + lines)
    batches = list(file.batches())
    assert len(batches) > 1
    ends = [0, *(batch.last_row for batch in batches)]
    assert [batch.first_row for batch in batches] == [end + 1 for end in ends[:-1]]
    assert ends[-1] == 150_000
    assert all(str(row) == event.item_id for batch in batches for row, event in batch.events)


def digest_of(file: PurchaseFile) -> str:
    return file.digest(sorted(file.options().items()))


def test_the_digest_names_content_and_reading(tmp_path: Path) -> None:
    digest = digest_of(csv_file(tmp_path, HEADER + "u,a,2026-01-01\n"))
    assert len(digest) == 16
    assert int(digest, 16) >= 0
    assert digest_of(csv_file(tmp_path, HEADER + "u,a,2026-01-01\n")) == digest
    assert digest_of(csv_file(tmp_path, HEADER + "u,b,2026-01-01\n")) != digest
    assert digest_of(csv_file(tmp_path, HEADER + "u,a,2026-01-01\n", Columns(timezone="Asia/Tokyo"))) != digest
    assert digest_of(csv_file(tmp_path, HEADER + "u,a,2026-01-01\n", Columns(no_user=("guest",)))) != digest
    (tmp_path / "elsewhere").mkdir()
    assert digest_of(csv_file(tmp_path / "elsewhere", HEADER + "u,a,2026-01-01\n")) == digest


def test_the_rejects_file_has_the_columns_of_the_input_and_why(tmp_path: Path) -> None:
    file = csv_file(tmp_path, "user_id,item_id,timestamp,note\nu,a,2026-01-01,\nv,é,soon,x\nu,b\nw,c,2026-01-01,1,2\n")
    assert written(file, tmp_path / "rejects.csv").splitlines() == [
        '"user_id","item_id","timestamp","note","why"',
        '"v","é","soon","x","line 3: timestamp: \'soon\' is not in the form ISO 8601; name another form with '
        '--timestamp-format"',
        '"[broken row] u","b","","","line 4: the line has 2 columns, the header 4; mend the values, then remove '
        '[broken row]"',
        '"[broken row] w","c","2026-01-01","1,2","line 5: the line has 5 columns, the header 4; mend the values, then '
        'remove [broken row]"',
    ]


@pytest.mark.parametrize(("delimiter", "encoding"), [(",", "utf-8"), (";", "cp1252"), ("\t", "utf-16")])
def test_mended_rejects_are_read_with_the_options_of_the_file(tmp_path: Path, delimiter: str, encoding: str) -> None:
    columns = Columns(delimiter=delimiter, encoding=encoding)
    text = "user_id,item_id,timestamp\nu,a,2026-01-01\nv,é,soon\n".replace(",", delimiter)
    rejected = written(csv_file(tmp_path, text.encode(encoding), columns), tmp_path / "rejects.csv")
    (tmp_path / "rejects.csv").write_text(rejected.replace("soon", "2026-01-01", 1), encoding=encoding)
    again = opened(tmp_path / "rejects.csv", columns)
    assert [event for _, event in events(again)] == [make_event("v", "é", timestamp=DAY_MS)]
    (tmp_path / "rejects.csv").write_text(rejected, encoding=encoding)
    assert written(opened(tmp_path / "rejects.csv", columns), tmp_path / "more.csv").count("why") == 1


@pytest.mark.parametrize(("encoding", "delimiter"), [("utf8", ","), ("cp1252", ","), ("utf-16", ";")])
def test_rejects_of_parquet_are_read_back_as_they_were_with_any_options(
    tmp_path: Path, encoding: str, delimiter: str
) -> None:
    """Parquet has no encoding; an option that names one must not make other letters of what was rejected."""
    columns = Columns(encoding=encoding, delimiter=delimiter)
    values = {"user_id": ["u"], "item_id": ["a"], "timestamp": ["2026-01-01"], "event_id": ["a\x85b"]}
    file = parquet_file(tmp_path, values, columns)
    assert len(rejects(file)) == 1
    with RejectsFile(tmp_path / "rejects.csv", file.table) as rejected:
        rejected.add(reject for batch in file.batches() for reject in batch.rejects)
    again = opened(tmp_path / "rejects.csv", columns)
    assert [values[:4] for values in rejected_values(again)] == [["u", "a", "2026-01-01", "a\x85b"]]


def test_rejects_of_parquet_can_be_mended_as_csv(tmp_path: Path) -> None:
    file = parquet_file(
        tmp_path,
        {
            "user_id": [7.0, 8.0],
            "item_id": [b"a", None],
            "quantity": [float("nan"), 2.5],
            "timestamp": [datetime(2026, 1, 1, 10, second=1)] * 2,
        },
    )
    rejected = written(file, tmp_path / "rejects.csv")
    assert rejected.splitlines()[1].startswith('"8.0","","2.5","2026-01-01T10:00:01",')
    (tmp_path / "rejects.csv").write_text(rejected.replace('"8.0",""', "8.0,b"))
    assert events(opened(tmp_path / "rejects.csv"))[0][1] == make_event("8", "b", 2.5, timestamp=DAY_MS + 36_001_000)


def rejects_file(path: Path, folder: Path) -> RejectsFile:
    (folder / "in.csv").write_text("user_id,item_id,timestamp\n")
    return RejectsFile(path, Table(folder / "in.csv", CsvForm()))


def test_there_is_no_rejects_file_without_rejects(tmp_path: Path) -> None:
    with rejects_file(tmp_path / "rejects.csv", tmp_path) as rejected:
        rejected.add([])
    assert rejected.count == 0
    assert not (tmp_path / "rejects.csv").exists()


def test_rejects_of_several_batches_are_in_one_file_and_replace_an_old_one(tmp_path: Path) -> None:
    (tmp_path / "rejects.csv").write_text("old")
    with rejects_file(tmp_path / "rejects.csv", tmp_path) as rejected:
        rejected.add([Reject(1, "line 2", 'say "no"', ["a\nb", "x", "y"])])
        rejected.add([Reject(3, "line 4", "no", []), Reject(4, "line 5", "no", [None, 1, True])])
    with (tmp_path / "rejects.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [
            ["user_id", "item_id", "timestamp", "why"],
            [
                "[broken row] a b",
                "x",
                "y",
                'line 2: say "no"; mend the values, then remove [broken row]',
            ],  # a row of two lines
            ["", "", "", "line 4: no"],
            ["", "1", "True", "line 5: no"],
        ]


@pytest.mark.parametrize("path", ["nowhere/rejects.csv", "/dev/full"])
def test_rejects_that_cannot_be_written_name_the_option_that_helps(tmp_path: Path, path: str) -> None:
    with pytest.raises(InputFileError, match=r"cannot write rejected rows.*--rejects"):
        with rejects_file(tmp_path / path, tmp_path) as rejected:
            rejected.add([Reject(1, "line 2", "no", ["u", "a", "t"])])


def test_rows_of_a_long_file_keep_their_numbers_past_invalid_lines(tmp_path: Path) -> None:
    path = tmp_path / "long.csv"
    invalid = {1, 2, 30_000, 60_000, 99_999, 100_000}
    lines = [
        "too,many,columns,here" if row in invalid else f"user-{row},item-{row},2026-01-01T00:00:00Z"
        for row in range(1, 100_001)
    ]
    path.write_text("user_id,item_id,timestamp\n" + "\n".join(lines) + "\n")
    batches = list(opened(path).batches())
    assert len(batches) > 1
    assert {reject.row for batch in batches for reject in batch.rejects} == invalid
    rows = [(row, event.user_id) for batch in batches for row, event in batch.events]
    assert rows == [(row, f"user-{row}") for row in range(1, 100_001) if row not in invalid]
    assert [batch.first_row for batch in batches[1:]] == [batch.last_row + 1 for batch in batches[:-1]]


def test_a_column_that_is_there_twice_is_refused_unless_it_is_not_needed(tmp_path: Path) -> None:
    path = tmp_path / "twice.csv"
    path.write_text("user_id,item_id,timestamp,user_id\n1,a,2026-11-22T10:00:00Z,2\n")
    with pytest.raises(InputFileError, match="column 'user_id' appears more than once"):
        opened(path)
    path.write_text("user_id,item_id,timestamp,note,note\n1,a,2026-11-22T10:00:00Z,x,y\n")
    (batch,) = opened(path).batches()
    assert [event.user_id for _, event in batch.events] == ["1"]


def test_a_quote_inside_of_a_value_is_text(tmp_path: Path) -> None:
    assert len(events(title_file(tmp_path, 'pan 12" wide', "pot", 'lid 5"', "cup"))) == 4


@pytest.mark.parametrize("later", ['5" nail', 'a 5" nail', 'lid 5"', '"', "x", '"quoted"', '"two\nlines"'])
@pytest.mark.parametrize("between", [0, 3, 5000])
def test_an_unclosed_quote_costs_its_own_row_alone_and_names_its_line(tmp_path: Path, later: str, between: int) -> None:
    file = title_file(tmp_path, "a", '"24in monitor', *["x" * 40] * between, later, "f", "g")
    lost = {f"u{row}" for row in range(1, between + 6)} - {event.user_id for _, event in events(file)}
    assert "u2" in lost
    assert lost <= {"u2", f"u{between + 3}"} if later.startswith('"') else lost == {"u2"}
    assert len(rejects(file)) == len(lost)
    assert next(r.why for b in file.batches() for r in b.rejects).startswith("line 3: a quote is opened in this line")


def test_a_text_of_several_lines_is_one_value(tmp_path: Path) -> None:
    texts = [f'"line one of {row}, 2026-01-01\r\nline two {"y" * (row % 97)}"' for row in range(3_000)]
    file = title_file(tmp_path, *texts)
    assert [row for row, _ in events(file)] == list(range(1, 3_001))


def test_backslashes_do_not_escape_quotes(tmp_path: Path) -> None:
    file = title_file(tmp_path, '"12\\" pan"', "pot")
    assert [event.user_id for _, event in events(file)] == ["u2"]
    assert "written twice" in rejects(file)[0][1]


def test_what_a_file_is_follows_from_its_content(tmp_path: Path) -> None:
    text = f"{HEADER}u,a,2026-01-01\n".encode()
    (tmp_path / "a.csv").write_bytes(gzip.compress(text))
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(text))
    (tmp_path / "a.txt").write_bytes(text)
    pq.write_table(
        pa.table({"user_id": ["u"], "item_id": ["a"], "timestamp": [datetime(2026, 1, 1)]}), tmp_path / "a.dat"
    )
    for name in ("a.csv", "a.csv.gz", "a.txt", "a.dat"):
        assert one_event(opened(tmp_path / name)) == make_event("u", "a", timestamp=DAY_MS)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"PK\x03\x04xyz", "Excel workbook"), (b"%PDF-1.7", "a PDF"), (b"BZh91", "bzip2"),
        (b"user_id\0,item_id", "neither text nor Parquet"),
        (gzip.compress(b"x" * 99_999, mtime=0)[:60], "ends too early"),
        (b"\x1f\x8b junk", "cannot be read"),
    ],
)  # fmt: skip
def test_files_of_other_formats_are_named(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(InputFileError, match=words):
        list(opened(tmp_path / "a.csv").batches())


def test_a_gzip_file_that_is_cut_short_is_an_error_and_no_end(tmp_path: Path) -> None:
    text = HEADER + "".join(f"u{row},i{row * row},2026-01-01\n" for row in range(50_000))
    (tmp_path / "a.csv").write_bytes(gzip.compress(text.encode())[:-1_000])
    with pytest.raises(InputFileError, match=r"cannot be read after row [0-9,]+: the gzip data ends too early"):
        list(opened(tmp_path / "a.csv").batches())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"delimiter": ""}, "--delimiter"), ({"delimiter": ";;"}, "--delimiter"), ({"delimiter": '"'}, "--delimiter"),
        ({"decimal": ";"}, r"--decimal: must be '\.' or ',', not ';'"),
        ({"thousands": "_"}, r"--thousands: must be '\.', ',', ' ' or \"'\", not '_'"),
        ({"timestamp_format": "YYYY-MM-DD"}, "--timestamp-format: 'YYYY-MM-DD' names no part of a time"),
        ({"timestamp_format": "100%%"}, "--timestamp-format"),
    ],
)  # fmt: skip
def test_options_that_make_no_sense_are_refused(tmp_path: Path, options: dict[str, str], words: str) -> None:
    with pytest.raises(InputFileError, match=words):
        csv_file(tmp_path, HEADER, Columns(**options))  # type: ignore[arg-type]


def test_a_tab_can_be_named(tmp_path: Path) -> None:
    text = f"{HEADER}u,a,2026-01-01\n".replace(",", "\t")
    assert one_event(csv_file(tmp_path, text, Columns(delimiter="\\t"))).user_id == "u"


def test_a_very_long_line_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match="line 2 is longer than 1,048,576 characters"):
        list(csv_file(tmp_path, HEADER + "x" * 2_000_000).batches())


def test_columns_that_are_not_needed_are_in_the_rejects_all_the_same(tmp_path: Path) -> None:
    table = {"user_id": ["u"], "item_id": [None], "timestamp": ["2026-01-01"], "note": ["x"], "more": [[1]]}
    file = parquet_file(tmp_path, table)
    assert written(file, tmp_path / "rejects.csv").splitlines()[1].startswith('"u","","2026-01-01","x","[1]",')


def test_a_file_of_nothing_but_open_quotes_is_all_rejects(tmp_path: Path) -> None:
    file = csv_file(tmp_path, HEADER + 'x","\n' * 3_000)
    assert counts(file).rejected == 3_000


BROKEN_QUOTES = ['"24in monitor', '"12\\" pan"', '"', '"a"b"', 'x,"y', '"two\nlines']


@pytest.mark.parametrize("title", BROKEN_QUOTES)
@pytest.mark.parametrize("place", [0, 1, 3])
def test_a_row_of_broken_quotes_is_rejected_again_until_it_is_mended(tmp_path: Path, title: str, place: int) -> None:
    values = ["u", "a", "2026-01-01", "note"]
    values[place] = title
    text = f"user_id,item_id,timestamp,title\n{','.join(values)}\nv,b,2026-01-01,x\n"
    rejected = written(csv_file(tmp_path, text), tmp_path / "rejects.csv")
    again = opened(tmp_path / "rejects.csv")
    assert events(again) == []
    assert counts(again).rejected == again.rows == rejected.count("[broken row]") // 2 > 0
    more = written(again, tmp_path / "more.csv")
    assert more.count("[broken row]") == rejected.count("[broken row]")
    assert written(opened(tmp_path / "more.csv"), tmp_path / "rejects.csv") == more, "and so on"
    mended = next(csv.reader([rejected.splitlines()[0]]))
    with (tmp_path / "mended.csv").open("w", newline="") as file:
        csv.writer(file).writerows([mended, ["u", 'a "b"', "2026-01-01", title.strip("\n"), "line 2: why"]])
    assert one_event(opened(tmp_path / "mended.csv")).item_id == 'a "b"'


@pytest.mark.parametrize("line", ["u,a,2026-01-01", "u,a,2026-01-01,x,y", "u,a,2026-01-01,x\0"])
def test_a_row_that_is_none_is_rejected_again_until_it_is_mended(tmp_path: Path, line: str) -> None:
    text = f"user_id,item_id,timestamp,title\n{line}\nv,b,2026-01-01,x\n"
    rejected = written(csv_file(tmp_path, text), tmp_path / "rejects.csv")
    reason = one_reject(opened(tmp_path / "rejects.csv"))
    assert reason.startswith(("not mended yet: line 2: ", "a NUL character"))
    (tmp_path / "rejects.csv").write_text(rejected.replace("[broken row] ", "", 1).replace("\0", ""))
    assert one_event(opened(tmp_path / "rejects.csv")) == make_event("u", "a", timestamp=DAY_MS)


@pytest.mark.parametrize("value", [True, b"\xff", float("inf"), ["x"], {"a": 1}, datetime(2026, 1, 1)])
def test_ids_of_parquet_that_are_none_are_rejected_again_as_text(tmp_path: Path, value: object) -> None:
    table = {"user_id": ["u"], "item_id": [value], "timestamp": [datetime(2026, 1, 1)]}
    assert '"[broken row] u",' in written(parquet_file(tmp_path, table), tmp_path / "rejects.csv")
    assert one_reject(opened(tmp_path / "rejects.csv")).startswith("not mended yet: row 1: item_id: ")


def test_a_rejected_value_of_several_lines_is_never_taken_for_rows(tmp_path: Path) -> None:
    inside = "v,b,2026-01-01,1,2,x"
    text = f'user_id,item_id,timestamp,title,more\nu,a,soon,"one\n{inside}\nthree",\n'
    written(csv_file(tmp_path, text), tmp_path / "rejects.csv")
    assert inside in (tmp_path / "rejects.csv").read_text()
    assert one_reject(opened(tmp_path / "rejects.csv")).startswith("not mended yet: line 2: timestamp: 'soon'")


@pytest.mark.parametrize("rows_before", [0, 10, 1_000])
@pytest.mark.parametrize("line", ["u\0,a,2026-01-01,x", "u,a,2026-01-01,x\0", 'u,a,2026-01-01,"x\0"'])
def test_a_nul_in_text_costs_its_row_wherever_it_is(tmp_path: Path, rows_before: int, line: str) -> None:
    before = "".join(f"u{row},a,2026-01-01,x\n" for row in range(rows_before))
    file = csv_file(tmp_path, f"user_id,item_id,timestamp,title\n{before}{line}\nv,b,2026-01-01,x\n")
    assert rejects(file) == [(rows_before + 1, "a NUL character (byte 0) stands in this line")]
    assert len(events(file)) == rows_before + 1


@pytest.mark.parametrize(
    "content",
    [
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x10",
        b"a,b\n" + bytes(range(256)) * 9,
        (HEADER + "u,a,b").encode("utf-16-le"),
    ],
)
def test_what_is_no_text_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(InputFileError, match=r"this is neither text nor Parquet; .*--encoding, such as utf-16"):
        csv_file(tmp_path, content)


@pytest.mark.parametrize("length", [131_073, 500_000])
def test_a_value_in_quotes_may_be_as_long_as_one_without(tmp_path: Path, length: int) -> None:
    text = f"user_id,item_id,timestamp,title\nu,a,2026-01-01,%s{'x' * length}%s\n"
    for quote in ("", '"'):
        assert one_event(csv_file(tmp_path, text % (quote, quote))).user_id == "u"


def test_a_value_in_quotes_that_is_too_long_is_named(tmp_path: Path) -> None:
    lines = "\n".join("x" * 700_000 for _ in range(2))
    file = csv_file(tmp_path, f'user_id,item_id,timestamp,title\nu,a,2026-01-01,"{lines}"\nv,b,2026-01-01,x\n')
    assert [event.user_id for _, event in events(file)] == ["v"]
    assert rejects(file)[0] == (1, "a value in quotes is longer than 1,048,576 characters")


def test_a_csv_file_that_is_named_parquet_is_read_by_its_content(tmp_path: Path) -> None:
    text = f"{HEADER}u,a,2026-01-01\n".encode()
    for content in (text, gzip.compress(text)):
        (tmp_path / "a.parquet").write_bytes(content)
        assert one_event(opened(tmp_path / "a.parquet")) == make_event("u", "a", timestamp=DAY_MS)


def test_gzip_that_cannot_be_read_says_why_and_what_to_do(tmp_path: Path) -> None:
    pq.write_table(pa.table({"user_id": ["u"]}), tmp_path / "a.parquet")
    packed = gzip.compress(f"{HEADER}u,a,2026-01-01\n".encode())
    large = gzip.compress((HEADER + "".join(f"u{n},i{n * n},2026-01-01\n" for n in range(50_000))).encode())
    for content, words in (
        (gzip.compress((tmp_path / "a.parquet").read_bytes()), "this is Parquet inside of gzip: unpack it first"),
        (packed + b"junk", "other bytes follow the end of the gzip data: unpack it"),
        (large + b"junk", "cannot be read after row 50,000: other bytes follow the end of the gzip data"),
        (packed[:-6] + b"junk" + packed[-2:], "the gzip data is damaged"),
        (packed[:12] + b"\xff\xff" + packed[14:], "the gzip data is damaged"),
    ):
        (tmp_path / "a.csv.gz").write_bytes(content)
        with pytest.raises(InputFileError) as caught:
            list(opened(tmp_path / "a.csv.gz").batches())
        assert words in str(caught.value)
        assert "\n" not in str(caught.value)
    (tmp_path / "a.csv.gz").write_bytes(packed + gzip.compress(b"v,b,2026-01-01\n"))
    assert len(events(opened(tmp_path / "a.csv.gz"))) == 2, "a file may hold several parts"


def test_a_line_of_one_column_is_said_in_good_grammar(tmp_path: Path) -> None:
    assert one_reject(csv_file(tmp_path, f"{HEADER}u\n")) == "the line has 1 column, the header 3"
