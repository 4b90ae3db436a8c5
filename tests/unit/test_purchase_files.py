from __future__ import annotations

import csv
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.data.event import Event, EventType
from recsys.errors import InputFileError
from recsys.operations import purchase_files
from recsys.operations.purchase_files import Batch, Columns, PurchaseFile, RejectsFile
from tests.builders import make_event

HEADER = "user_id,item_id,timestamp\n"
DAY_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z
WRONG_NUMBERS = ["abc", "1,5", "nan", "inf", "-inf", "1e400"]


def csv_file(folder: Path, text: str | bytes, columns: Columns | None = None) -> PurchaseFile:
    path = folder / "purchases.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return PurchaseFile(path, columns or Columns())


def parquet_file(folder: Path, values: Mapping[str, Any], columns: Columns | None = None) -> PurchaseFile:
    path = folder / "purchases.parquet"
    pq.write_table(pa.table(values), path)
    return PurchaseFile(path, columns or Columns())


def events(file: PurchaseFile) -> list[tuple[int, Event]]:
    return [placed for batch in file.batches() for placed in batch.events]


def rejects(file: PurchaseFile) -> list[tuple[int, str]]:
    return sorted((row, reason) for batch in file.batches() for row, reason, _ in batch.rejects)


def one_event(file: PurchaseFile) -> Event:
    assert rejects(file) == []
    ((row, event),) = events(file)
    assert row == 1
    return event


def one_reject(file: PurchaseFile) -> str:
    assert events(file) == []
    ((row, reason),) = rejects(file)
    assert row == 1
    return reason


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


@pytest.mark.parametrize("text", ["00123", "1e5", "0x10", "1_000", "true", "NaN", "null", "17850.0", " 1", "é"])
def test_ids_in_csv_stay_as_they_are_written(tmp_path: Path, text: str) -> None:
    event = one_event(csv_file(tmp_path, f"{HEADER}{text},{text},2026-01-01\n"))
    assert (event.user_id, event.item_id) == (text, text)


def test_ids_in_csv_stay_as_they_are_written_in_every_row(tmp_path: Path) -> None:
    file = csv_file(tmp_path, HEADER + "1,2,2026-01-01\n001,002,2026-01-01\nabc,2.0,2026-01-01\n")
    assert [(event.user_id, event.item_id) for _, event in events(file)] == [("1", "2"), ("001", "002"), ("abc", "2.0")]


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([17850.0], "17850"),
        ([17850], "17850"),
        (pa.array([2**64 - 1], pa.uint64()), str(2**64 - 1)),
        (pa.array(["00123"]).dictionary_encode(), "00123"),
        (pa.array(["00123"], pa.large_string()), "00123"),
    ],
)
def test_ids_in_parquet_become_their_decimal_strings(tmp_path: Path, values: Any, text: str) -> None:
    table = {"user_id": values, "item_id": values, "event_id": values, "timestamp": [DAY_MS]}
    event = one_event(parquet_file(tmp_path, table))
    assert (event.user_id, event.item_id, event.event_id) == (text, text, text)


@pytest.mark.parametrize("values", [[1.5], [float("nan")], [float("inf")], [None], [True], [""], [b"x"], [["x"]]])
def test_ids_in_parquet_that_are_none_are_rejected(tmp_path: Path, values: list[object]) -> None:
    file = parquet_file(tmp_path, {"user_id": values, "item_id": ["a"], "timestamp": [DAY_MS]})
    assert one_reject(file).startswith("user_id: ")


@pytest.mark.parametrize(
    ("text", "zone", "epoch_ms"),
    [
        ("2026-07-01T12:00:00", "UTC", 1_782_907_200_000),
        ("2026-07-01T12:00:00", "Europe/London", 1_782_903_600_000),
        ("2026-07-01 12:00", "Europe/London", 1_782_903_600_000),
        ("2026-01-01", "Asia/Tokyo", DAY_MS - 9 * 3_600_000),
        ("2026-07-01T12:00:00Z", "Europe/London", 1_782_907_200_000),
        ("2026-07-01T12:00:00+02:00", "Europe/London", 1_782_900_000_000),
        ("2026-01-01T00:00:00.250", "UTC", DAY_MS + 250),
        ("1767225600000", "Asia/Tokyo", DAY_MS),
        (" 2026-01-01 ", "utc", DAY_MS),
    ],
)
def test_times_in_csv_are_read_in_their_zone(tmp_path: Path, text: str, zone: str, epoch_ms: int) -> None:
    assert one_event(csv_file(tmp_path, f"{HEADER}u,a,{text}\n", Columns(timezone=zone))).timestamp == epoch_ms


@pytest.mark.parametrize(
    ("values", "zone", "epoch_ms"),
    [
        (pa.array([DAY_MS], pa.timestamp("ms")), "UTC", DAY_MS),
        (pa.array([DAY_MS], pa.timestamp("ms")), "Asia/Tokyo", DAY_MS - 9 * 3_600_000),
        (pa.array([DAY_MS], pa.timestamp("ms", tz="UTC")), "Asia/Tokyo", DAY_MS),
        (pa.array([DAY_MS], pa.timestamp("ms", tz="America/New_York")), "Asia/Tokyo", DAY_MS),
        (pa.array([DAY_MS * 1_000_000 + 1], pa.timestamp("ns")), "UTC", DAY_MS),
        (pa.array([DAY_MS // 1000], pa.timestamp("s")), "UTC", DAY_MS),
        (pa.array([date(2026, 1, 1)]), "Asia/Tokyo", DAY_MS - 9 * 3_600_000),
        (pa.array([DAY_MS]), "Asia/Tokyo", DAY_MS),
        (pa.array(["2026-01-01"]), "Asia/Tokyo", DAY_MS - 9 * 3_600_000),
    ],
)
def test_times_in_parquet_are_read_in_their_zone(tmp_path: Path, values: pa.Array, zone: str, epoch_ms: int) -> None:
    file = parquet_file(tmp_path, {"user_id": ["u"], "item_id": ["a"], "timestamp": values}, Columns(timezone=zone))
    assert one_event(file).timestamp == epoch_ms


@pytest.mark.parametrize(
    ("text", "form", "zone", "epoch_ms"),
    [
        ("12/1/2010 8:26", "%m/%d/%Y %H:%M", "UTC", 1_291_191_960_000),
        ("01.07.2026 12:00", "%d.%m.%Y %H:%M", "Europe/London", 1_782_903_600_000),
        ("01.07.2026 12:00 +0200", "%d.%m.%Y %H:%M %z", "Europe/London", 1_782_900_000_000),
        ("20260101", "%Y%m%d", "UTC", DAY_MS),
        ("202601010000", "%Y%m%d%H%M", "UTC", DAY_MS),
    ],
)
def test_times_of_another_form_are_read(tmp_path: Path, text: str, form: str, zone: str, epoch_ms: int) -> None:
    columns = Columns(timestamp_format=form, timezone=zone)
    assert one_event(csv_file(tmp_path, f"{HEADER}u,a,{text}\n", columns)).timestamp == epoch_ms


@pytest.mark.parametrize(
    "text",
    [
        "12/1/2010 8:26",
        "yesterday",
        "1969-12-31",
        "9" * 30,
        "9" * 5000,
        "-5",
        "2026-02-30",
        "１７６７２２５６０００００",
    ],
)
def test_other_times_in_csv_are_rejected(tmp_path: Path, text: str) -> None:
    assert one_reject(csv_file(tmp_path, f"{HEADER}u,a,{text}\n")).startswith("timestamp: ")


def test_the_reason_of_a_rejected_time_names_the_option_that_helps(tmp_path: Path) -> None:
    assert "--timestamp-format" in one_reject(csv_file(tmp_path, f"{HEADER}u,a,12/1/2010 8:26\n"))
    file = csv_file(tmp_path, f"{HEADER}u,a,2026-01-01\n", Columns(timestamp_format="%d.%m.%Y"))
    assert "%d.%m.%Y" in one_reject(file)


@pytest.mark.parametrize("values", [pa.array([1.5e12]), pa.array([None], pa.timestamp("ms")), pa.array([True])])
def test_other_times_in_parquet_are_rejected(tmp_path: Path, values: pa.Array) -> None:
    assert one_reject(parquet_file(tmp_path, {"user_id": ["u"], "item_id": ["a"], "timestamp": values})).startswith(
        "timestamp: "
    )


def test_a_time_that_no_calendar_holds_is_no_crash(tmp_path: Path) -> None:
    times = pa.array([9 * 10**18, DAY_MS * 1000], pa.timestamp("us"))
    file = parquet_file(tmp_path, {"user_id": ["u", "u"], "item_id": ["a", "a"], "timestamp": times})
    with suppress(InputFileError):
        assert [row for row, _ in rejects(file)] == [1]
        assert [row for row, _ in events(file)] == [2]


def test_negative_quantities_are_rejected_by_default(tmp_path: Path) -> None:
    text = "user_id,item_id,timestamp,quantity\nu,a,2026-01-01,-2\n"
    assert one_reject(csv_file(tmp_path, text)).startswith("quantity: ")


def test_negative_quantities_are_returns_when_asked(tmp_path: Path) -> None:
    text = "user_id,item_id,timestamp,quantity\nu,a,2026-01-01,-2.5\nu,a,2026-01-01,3\nu,a,2026-01-01,0\n"
    file = csv_file(tmp_path, text, Columns(negative_returns=True))
    assert events(file) == [
        (1, make_event("u", "a", 2.5, type_=EventType.RETURN, timestamp=DAY_MS)),
        (2, make_event("u", "a", 3.0, timestamp=DAY_MS)),
    ]
    assert [row for row, _ in rejects(file)] == [3]


@pytest.mark.parametrize("column", ["quantity", "price"])
@pytest.mark.parametrize("text", WRONG_NUMBERS)
@pytest.mark.parametrize("negative_returns", [False, True])
def test_wrong_numbers_are_rejected(tmp_path: Path, column: str, text: str, negative_returns: bool) -> None:
    columns = Columns(negative_returns=negative_returns)
    file = csv_file(tmp_path, f'user_id,item_id,timestamp,{column}\nu,a,2026-01-01,"{text}"\n', columns)
    assert one_reject(file).startswith(f"{column}: ")


def test_rejected_and_accepted_rows_keep_their_numbers(tmp_path: Path) -> None:
    file = csv_file(tmp_path, HEADER + "u,a,2026-01-01\n,a,2026-01-01\nu,,2026-01-01\nu,b,soon\nu,c,2026-01-01\n")
    assert [row for row, _ in events(file)] == [1, 5]
    assert [(row, reason.split(":")[0]) for row, reason in rejects(file)] == [
        (2, "user_id"),
        (3, "item_id is required for a purchase"),
        (4, "timestamp"),
    ]


def test_lines_with_the_wrong_number_of_columns_are_rejects(tmp_path: Path) -> None:
    file = csv_file(tmp_path, HEADER + "u,a,2026-01-01\nu,b\nu,c,2026-01-01,1,2\nu,d,2026-01-01\n")
    assert [event.item_id for _, event in events(file)] == ["a", "d"]
    assert rejects(file) == [
        (2, "the line has 2 columns, the header 3"),
        (3, "the line has 5 columns, the header 3"),
    ]
    assert [values for batch in file.batches() for _, _, values in batch.rejects] == [
        {"line": "u,b"},
        {"line": "u,c,2026-01-01,1,2"},
    ]


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
    assert [values for batch in file.batches() for _, _, values in batch.rejects] == [{"line": "José,café"}]


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
        PurchaseFile(path, Columns())
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


@pytest.mark.parametrize("content", [b"", b"junk", b"PAR1junkPAR1"])
def test_a_file_that_is_not_parquet_is_an_input_file_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "purchases.parquet"
    path.write_bytes(content)
    with pytest.raises(InputFileError, match=r"purchases\.parquet: cannot be read"):
        PurchaseFile(path, Columns())


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
        PurchaseFile(tmp_path / "missing.csv", Columns())
    with pytest.raises(InputFileError, match="this is a folder, not a file"):
        PurchaseFile(tmp_path, Columns())
    (tmp_path / "purchases.xlsx").write_bytes(b"")
    with pytest.raises(InputFileError, match=r"\.parquet or \.csv"):
        PurchaseFile(tmp_path / "purchases.xlsx", Columns())


@pytest.mark.parametrize("zone", ["Mars/Olympus", "", "../../etc/passwd", "Europe"])
def test_an_unknown_zone_is_an_input_file_error(tmp_path: Path, zone: str) -> None:
    with pytest.raises(InputFileError, match="--timezone"):
        csv_file(tmp_path, HEADER, Columns(timezone=zone))


def test_rows_are_numbered_across_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(purchase_files, "_BATCH_ROWS", 4)
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


def test_the_digest_names_content_and_reading(tmp_path: Path) -> None:
    digest = csv_file(tmp_path, HEADER + "u,a,2026-01-01\n").digest()
    assert len(digest) == 16
    assert int(digest, 16) >= 0
    assert csv_file(tmp_path, HEADER + "u,a,2026-01-01\n").digest() == digest
    assert csv_file(tmp_path, HEADER + "u,b,2026-01-01\n").digest() != digest
    assert csv_file(tmp_path, HEADER + "u,a,2026-01-01\n", Columns(timezone="Asia/Tokyo")).digest() != digest
    (tmp_path / "elsewhere").mkdir()
    assert csv_file(tmp_path / "elsewhere", HEADER + "u,a,2026-01-01\n").digest() == digest


def test_the_rejects_file_holds_row_reason_and_values(tmp_path: Path) -> None:
    file = csv_file(tmp_path, HEADER + "u,a,2026-01-01\n,é,2026-01-01\nu,b\n")
    with RejectsFile(tmp_path / "rejects.csv") as rejected:
        for batch in file.batches():
            rejected.add(batch)
    assert rejected.count == 2
    with (tmp_path / "rejects.csv").open(encoding="utf-8", newline="") as written:
        header, *lines = csv.reader(written)
    assert header == ["row", "reason", "values"]
    assert sorted(lines) == [
        ["2", "user_id: is required", "user_id=None; item_id=é; timestamp=2026-01-01"],
        ["3", "the line has 2 columns, the header 3", "line=u,b"],
    ]


def test_there_is_no_rejects_file_without_rejects(tmp_path: Path) -> None:
    with RejectsFile(tmp_path / "rejects.csv") as rejected:
        rejected.add(Batch(1, 1, [(1, make_event())]))
    assert rejected.count == 0
    assert not (tmp_path / "rejects.csv").exists()


def test_rejects_of_several_batches_are_in_one_file_and_replace_an_old_one(tmp_path: Path) -> None:
    (tmp_path / "rejects.csv").write_text("old")
    with RejectsFile(tmp_path / "rejects.csv") as rejected:
        rejected.add(Batch(1, 2, rejects=[(1, 'say "no"', {"user_id": "a\nb"})]))
        rejected.add(Batch(3, 4, rejects=[(3, "no", {}), (4, "no", {"x": 1})]))
    with (tmp_path / "rejects.csv").open(encoding="utf-8", newline="") as written:
        assert list(csv.reader(written)) == [
            ["row", "reason", "values"],
            ["1", 'say "no"', "user_id=a\nb"],
            ["3", "no", ""],
            ["4", "no", "x=1"],
        ]


def test_rejects_that_cannot_be_written_name_the_option_that_helps(tmp_path: Path) -> None:
    with RejectsFile(tmp_path / "nowhere" / "rejects.csv") as rejected, pytest.raises(InputFileError) as caught:
        rejected.add(Batch(1, 1, rejects=[(1, "no", {})]))
    assert "--rejects" in str(caught.value)


def test_rows_of_a_long_file_keep_their_numbers_past_invalid_lines(tmp_path: Path) -> None:
    path = tmp_path / "long.csv"
    invalid = {1, 2, 30_000, 60_000, 99_999, 100_000}
    lines = [
        "too,many,columns,here" if row in invalid else f"user-{row},item-{row},2026-01-01T00:00:00Z"
        for row in range(1, 100_001)
    ]
    path.write_text("user_id,item_id,timestamp\n" + "\n".join(lines) + "\n")
    batches = list(PurchaseFile(path, Columns()).batches())
    assert len(batches) > 1
    assert {row for batch in batches for row, _, _ in batch.rejects} == invalid
    rows = [(row, event.user_id) for batch in batches for row, event in batch.events]
    assert rows == [(row, f"user-{row}") for row in range(1, 100_001) if row not in invalid]
    assert [batch.first_row for batch in batches[1:]] == [batch.last_row + 1 for batch in batches[:-1]]


def test_a_column_that_is_there_twice_is_refused_unless_it_is_not_needed(tmp_path: Path) -> None:
    path = tmp_path / "twice.csv"
    path.write_text("user_id,item_id,timestamp,user_id\n1,a,2026-11-22T10:00:00Z,2\n")
    with pytest.raises(InputFileError, match="column 'user_id' appears more than once"):
        PurchaseFile(path, Columns())
    path.write_text("user_id,item_id,timestamp,note,note\n1,a,2026-11-22T10:00:00Z,x,y\n")
    (batch,) = PurchaseFile(path, Columns()).batches()
    assert [event.user_id for _, event in batch.events] == ["1"]
