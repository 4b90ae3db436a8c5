from __future__ import annotations

import csv
import gzip
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.data.event import Event, EventReading, EventType
from recsys.errors import InputFileError
from recsys.files import purchases, tables
from recsys.files.batches import Reject, RowCounts
from recsys.files.columns import Columns
from recsys.files.purchases import PurchaseFile
from recsys.files.rejects import RejectsFile
from recsys.files.tables import CsvForm, Table
from tests.builders import make_event, make_forget

HEADER = "user_id,item_id,timestamp\n"
DAY_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
READING = EventReading()
WRONG_NUMBERS = ["abc", "1_5", "inf", "-inf", "1e400", "(2)", "2-", "\u0663", "1 2", "--1", "€2"]


def opened(path: Path, columns: Columns | None = None) -> PurchaseFile:
    return PurchaseFile(path, columns or Columns(), events=READING, now=NOW)


def csv_file(folder: Path, text: str | bytes, columns: Columns | None = None) -> PurchaseFile:
    path = folder / "purchases.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return opened(path, columns)


def parquet_file(folder: Path, values: Mapping[str, Any], columns: Columns | None = None) -> PurchaseFile:
    path = folder / "purchases.parquet"
    pq.write_table(pa.table(values), path)
    return opened(path, columns)


def events(file: PurchaseFile) -> list[tuple[int, Event]]:
    return [placed for batch in file.batches() for placed in batch.events]


def rejects(file: PurchaseFile) -> list[tuple[int, str]]:
    """Return (row, reason) of each, the reason without the place."""
    return [(reject.row, reject.why.partition(": ")[2]) for batch in file.batches() for reject in batch.rejects]


def rejected_values(file: PurchaseFile) -> list[list[Any]]:
    return [list(reject.values) for batch in file.batches() for reject in batch.rejects]


def counts(file: PurchaseFile) -> RowCounts:
    found = RowCounts()
    for batch in file.batches():
        found.note(batch)
    assert found.read == found.valid + found.rejected + found.no_user
    return found


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


@pytest.mark.parametrize("text", ["00123", "1e5", "0x10", "1_000", "true", " 1", "é", "1.5"])
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


@pytest.mark.parametrize("values", [[float("inf")], [True], [b"\xff"], [["x"]], [{"a": 1}], [2.0**53], [-(2.0**60)]])
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
        "9" * 5000,
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


@pytest.mark.parametrize("values", [pa.array([None], pa.timestamp("ms")), pa.array([True]), pa.array([[1]])])
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


@pytest.mark.parametrize("text", WRONG_NUMBERS)
@pytest.mark.parametrize("negative_returns", [False, True])
def test_wrong_quantities_are_rejected(tmp_path: Path, text: str, negative_returns: bool) -> None:
    columns = Columns(negative_returns=negative_returns)
    file = csv_file(tmp_path, f'user_id,item_id,timestamp,quantity\nu,a,2026-01-01,"{text}"\n', columns)
    assert one_reject(file).startswith("quantity: ")


@pytest.mark.parametrize("text", [*WRONG_NUMBERS, "-1", "3.50 EUR"])
def test_a_wrong_price_costs_no_purchase_and_is_counted(tmp_path: Path, text: str) -> None:
    file = csv_file(tmp_path, f'user_id,item_id,timestamp,price\nu,a,2026-01-01,"{text}"\n')
    assert one_event(file).price is None
    assert counts(file).unread_prices == 1


def test_rejected_and_accepted_rows_keep_their_numbers(tmp_path: Path) -> None:
    file = csv_file(tmp_path, HEADER + "u,a,2026-01-01\n,a,2026-01-01\nu,,2026-01-01\nu,b,soon\nu,c,2026-01-01\n")
    assert [row for row, _ in events(file)] == [1, 5]
    assert [(row, reason.split(":")[0]) for row, reason in rejects(file)] == [
        (3, "item_id is required for a purchase"),
        (4, "timestamp"),
    ]
    assert counts(file) == RowCounts(read=5, valid=2, rejected=2, no_user=1)


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


@pytest.mark.parametrize("content", [b"", b"junk", b"PAR1junkPAR1"])
def test_a_file_that_is_not_parquet_is_an_input_file_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "purchases.parquet"
    path.write_bytes(content)
    with pytest.raises(InputFileError, match=r"purchases\.parquet: cannot be read"):
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


@pytest.mark.parametrize("zone", ["Mars/Olympus", "", "../../etc/passwd", "Europe"])
def test_an_unknown_zone_is_an_input_file_error(tmp_path: Path, zone: str) -> None:
    with pytest.raises(InputFileError, match="--timezone"):
        csv_file(tmp_path, HEADER, Columns(timezone=zone))


def test_rows_are_numbered_across_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(purchases, "_BATCH_ROWS", 4)
    monkeypatch.setattr(tables, "_BATCH_ROWS", 3)
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


def written(file: PurchaseFile, path: Path) -> str:
    with RejectsFile(path, file.table) as rejected:
        for batch in file.batches():
            rejected.add(batch.rejects)
    return path.read_text(encoding=file.table.form.encoding) if rejected.count else ""


def test_the_rejects_file_has_the_columns_of_the_input_and_why(tmp_path: Path) -> None:
    file = csv_file(tmp_path, "user_id,item_id,timestamp,note\nu,a,2026-01-01,\nv,é,soon,x\nu,b\nw,c,2026-01-01,1,2\n")
    assert written(file, tmp_path / "rejects.csv").splitlines() == [
        "user_id,item_id,timestamp,note,why",
        "v,é,soon,x,line 3: timestamp: 'soon' is not in the form ISO 8601; name another form with --timestamp-format",
        'u,b,,,"line 4: the line has 2 columns, the header 4"',
        'w,c,2026-01-01,"1,2","line 5: the line has 5 columns, the header 4"',
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
    assert rejected.splitlines()[1].startswith("8.0,,2.5,2026-01-01T10:00:01,")
    (tmp_path / "rejects.csv").write_text(rejected.replace("8.0,,", "8.0,b,"))
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
        rejected.add([Reject(1, 'say "no"', ["a\nb", "x", "y"])])
        rejected.add([Reject(3, "no", []), Reject(4, "no", [None, 1, True])])
    with (tmp_path / "rejects.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [
            ["user_id", "item_id", "timestamp", "why"],
            ["a\nb", "x", "y", 'say "no"'],
            ["", "", "", "no"],
            ["", "1", "True", "no"],
        ]


@pytest.mark.parametrize("path", ["nowhere/rejects.csv", "/dev/full"])
def test_rejects_that_cannot_be_written_name_the_option_that_helps(tmp_path: Path, path: str) -> None:
    with pytest.raises(InputFileError, match=r"cannot write rejected rows.*--rejects"):
        with rejects_file(tmp_path / path, tmp_path) as rejected:
            rejected.add([Reject(1, "no", ["u", "a", "t"])])


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


@pytest.mark.parametrize(
    ("texts", "unit", "epoch_ms"),
    [
        (["1790000000", "1790000001"], "seconds", 1_790_000_000_000),
        (["1790000000.25", "1790000001"], "seconds", 1_790_000_000_250),
        (["1790000000123"], "milliseconds", 1_790_000_000_123),
        (["1790000000123456"], "microseconds", 1_790_000_000_123),
        (["1790000000123456789"], "nanoseconds", 1_790_000_000_123),
        (["631152000"], "seconds", 631_152_000_000),
    ],
)
def test_the_unit_of_numbers_is_the_only_one_that_fits_and_is_said(
    tmp_path: Path, texts: list[str], unit: str, epoch_ms: int
) -> None:
    file = csv_file(tmp_path, HEADER + "".join(f"u,a,{text}\n" for text in texts))
    assert events(file)[0][1].timestamp == epoch_ms
    assert file.remarks == (f"column 'timestamp': numbers are read as {unit} since 1970",)
    numbers = [float(text) if "." in text else int(text) for text in texts]
    in_parquet = parquet_file(
        tmp_path, {"user_id": ["u"] * len(texts), "item_id": ["a"] * len(texts), "timestamp": numbers}
    )
    assert [event for _, event in events(in_parquet)] == [event for _, event in events(file)]


@pytest.mark.parametrize("text", ["20261001", "20362", "0", "-5", "9" * 30, "202610011230", "4070908800000", "46296.5"])
def test_numbers_that_fit_no_unit_are_refused_with_the_options_that_help(tmp_path: Path, text: str) -> None:
    file = csv_file(tmp_path, f"{HEADER}u,a,{text}\nu,b,{text}\n")
    with pytest.raises(InputFileError) as caught:
        list(file.batches())
    for word in (text.partition(".")[0], "timestamp", "--timestamp-unit", "--timestamp-format", "s, ms, us or ns"):
        assert word in str(caught.value)


def test_a_column_of_several_units_is_refused_with_an_example_of_each(tmp_path: Path) -> None:
    file = csv_file(tmp_path, HEADER + "u,a,1790000000\nu,b,1790000000000\n")
    with pytest.raises(InputFileError, match=r"1790000000 \(seconds\) and 1790000000000 \(milliseconds\)"):
        list(file.batches())


def test_a_number_outside_of_the_columns_unit_is_a_reject(tmp_path: Path) -> None:
    file = csv_file(tmp_path, HEADER + "u,a,1790000000\nu,b,0\nu,c,4070908800\n")
    assert [event.item_id for _, event in events(file)] == ["a"]
    assert [row for row, _ in rejects(file)] == [2, 3]


def test_the_unit_and_the_form_of_numbers_can_be_named(tmp_path: Path) -> None:
    assert one_event(csv_file(tmp_path, f"{HEADER}u,a,86400\n", Columns(timestamp_unit="s"))).timestamp == 86_400_000
    days = {"user_id": ["u"], "item_id": ["a"], "timestamp": [20_260_101]}
    assert one_event(parquet_file(tmp_path, days, Columns(timestamp_format="%Y%m%d"))).timestamp == DAY_MS
    with pytest.raises(InputFileError, match="--timestamp-unit: must be one of s, ms, us, ns, not 'm'"):
        csv_file(tmp_path, HEADER, Columns(timestamp_unit="m"))
    with pytest.raises(InputFileError, match="cannot be used together"):
        csv_file(tmp_path, HEADER, Columns(timestamp_unit="s", timestamp_format="%Y"))


def test_a_forget_is_not_rejected_for_its_number(tmp_path: Path) -> None:
    file = csv_file(tmp_path, "type,user_id,item_id,timestamp\nforget,u,,0\npurchase,v,a,1790000000\n")
    assert [event.type for _, event in events(file)] == [EventType.FORGET, EventType.PURCHASE]


def quantities(file: PurchaseFile) -> dict[str, float]:
    return {event.user_id: event.quantity for _, event in events(file)}


def quantity_file(folder: Path, texts: list[str], **columns: Any) -> PurchaseFile:
    rows = "".join(f"u{place};a;2026-01-01;{text}\n" for place, text in enumerate(texts))
    text = f"user_id;item_id;timestamp;quantity\n{rows}"
    return csv_file(folder, text, Columns(delimiter=";", **columns))


@pytest.mark.parametrize(
    ("texts", "columns", "numbers"),
    [
        (["1", "2.5", "1.250", "0.5", "3,000"], {}, {"u0": 1, "u1": 2.5, "u2": 1.25, "u3": 0.5}),
        (["1,5", "1.200", "2"], {}, {"u0": 1.5, "u2": 2}),
        (["1,5", "1.200", "2"], {"thousands": "."}, {"u0": 1.5, "u1": 1200, "u2": 2}),
        (["1.200"], {"decimal": "."}, {"u0": 1.2}),
        (["1.200"], {"decimal": ",", "thousands": "."}, {"u0": 1200}),
        (["1,200"], {"thousands": ","}, {"u0": 1200}),
        (["1,200.5", "3"], {"thousands": ","}, {"u0": 1200.5, "u1": 3}),
        (["1 234,5", "1\u00a0234,5"], {"thousands": " "}, {"u0": 1234.5, "u1": 1234.5}),
        (["1'234.5"], {"thousands": "'"}, {"u0": 1234.5}),
        (["1e3", "1E-2", " 5 ", "+2", ".5", "7."], {}, {"u0": 1000, "u1": 0.01, "u2": 5, "u3": 2, "u4": 0.5, "u5": 7}),
        (["1.5", "3,5"], {"decimal": "."}, {"u0": 1.5}),
        (["", "NULL", "nan", "2"], {}, {"u0": 1, "u1": 1, "u2": 1, "u3": 2}),
    ],
)
def test_numbers_are_read_as_the_column_or_the_options_say(
    tmp_path: Path, texts: list[str], columns: dict[str, Any], numbers: dict[str, float]
) -> None:
    assert quantities(quantity_file(tmp_path, texts, **columns)) == numbers


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["1.200", "2"], ["1.200 is 1.2 or 1200", "--decimal . for the first", "--decimal , --thousands ."]),
        (["1,200", "2"], ["1,200 is 1.2 or 1200", "--decimal , for the first", "--decimal . --thousands ,"]),
        (["1.5", "3,50"], ["1.5 and 3,50", "--decimal"]),
    ],
)
def test_a_column_that_can_be_read_in_two_ways_is_refused_with_both(
    tmp_path: Path, texts: list[str], words: list[str]
) -> None:
    with pytest.raises(InputFileError) as caught:
        list(quantity_file(tmp_path, texts).batches())
    for word in ["quantity", *words]:
        assert word in str(caught.value)


def test_a_price_that_can_be_read_in_two_ways_is_left_out_and_said(tmp_path: Path) -> None:
    file = csv_file(tmp_path, "user_id,item_id,timestamp,price\nu,a,2026-01-01,1.200\n")
    assert one_event(file).price is None
    assert "1.200 is 1.2 or 1200" in file.remarks[0]
    assert counts(file).unread_prices == 1


def test_the_reason_of_a_wrong_number_names_the_option_that_helps(tmp_path: Path) -> None:
    assert "--thousands '.'" in rejects(quantity_file(tmp_path, ["1,5", "1.200"]))[0][1]
    assert "--decimal ," in rejects(quantity_file(tmp_path, ["1.5", "2,5"], decimal="."))[0][1]
    with pytest.raises(InputFileError, match="--decimal and --thousands must be different"):
        quantity_file(tmp_path, ["1"], decimal=".", thousands=".")


@pytest.mark.parametrize("as_parquet", [False, True])
def test_ids_that_are_all_in_float_form_are_integers_and_that_is_said(tmp_path: Path, as_parquet: bool) -> None:
    def file(columns: Columns) -> PurchaseFile:
        if as_parquet:
            times = [datetime(2026, 1, 1)] * 3
            return parquet_file(
                tmp_path, {"user_id": [17850.0, None, 13047.0], "item_id": ["a"] * 3, "timestamp": times}, columns
            )
        return csv_file(tmp_path, HEADER + "17850.0,a,2026-01-01\n,a,2026-01-01\n13047.0,a,2026-01-01\n", columns)

    def users(file: PurchaseFile) -> list[str]:
        return [event.user_id for _, event in events(file)]

    assert users(file(Columns())) == ["17850", "13047"]
    assert "such as 17850.0, and read as integers, such as 17850; --no-integer-ids" in file(Columns()).remarks[0]
    assert users(file(Columns(integer_ids=True))) == ["17850", "13047"]
    assert file(Columns(integer_ids=True)).remarks == ()
    assert users(file(Columns(integer_ids=False))) == ["17850.0", "13047.0"]


def test_ids_some_of_which_are_in_float_form_stay_and_that_is_said(tmp_path: Path) -> None:
    text = HEADER + "17850.0,a,2026-01-01\n17850,a,2026-01-01\n"
    assert [event.user_id for _, event in events(csv_file(tmp_path, text))] == ["17850.0", "17850"]
    assert "--integer-ids" in csv_file(tmp_path, text).remarks[0]
    file = csv_file(tmp_path, text, Columns(integer_ids=True))
    assert [event.user_id for _, event in events(file)] == ["17850", "17850"]


@pytest.mark.parametrize("text", ["1,23E+05", "1.23E+05", "4E+12", "4,00634E+12", "1.2345678901234568e+18"])
@pytest.mark.parametrize("field", ["user_id", "item_id"])
def test_ids_that_a_spreadsheet_has_shortened_are_rejects(tmp_path: Path, text: str, field: str) -> None:
    row = {"user_id": "u", "item_id": "a", "timestamp": "2026-01-01"} | {field: f'"{text}"'}
    assert "export ids as text" in one_reject(csv_file(tmp_path, f"{HEADER}{','.join(row.values())}\n"))


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (pa.array([Decimal(17850)], pa.decimal128(38, 0)), "17850"),
        (pa.array([b"u1"], pa.binary()), "u1"),
        (pa.ExtensionArray.from_storage(pa.uuid(), pa.array([UUID(int=5).bytes], pa.binary(16))), str(UUID(int=5))),
    ],
)
def test_ids_of_other_types_are_read_as_their_text(tmp_path: Path, values: Any, text: str) -> None:
    table = {"user_id": values, "item_id": values, "timestamp": [datetime(2026, 1, 1)]}
    event = one_event(parquet_file(tmp_path, table))
    assert (event.user_id, event.item_id) == (text, text)


@pytest.mark.parametrize("user", ["", " ", "NULL", "null", "\\N", "nan", "None", "0", "guest"])
def test_rows_of_no_user_are_skipped_and_counted(tmp_path: Path, user: str) -> None:
    file = csv_file(tmp_path, f"{HEADER}{user},a,2026-01-01\nu,b,2026-01-01\n", Columns(no_user=("GUEST",)))
    assert [event.user_id for _, event in events(file)] == ["u"]
    assert counts(file) == RowCounts(read=2, valid=1, no_user=1)


@pytest.mark.parametrize("user", [None, float("nan"), 0.0])
def test_rows_of_no_user_in_parquet_are_skipped_and_counted(tmp_path: Path, user: float | None) -> None:
    file = parquet_file(
        tmp_path, {"user_id": [user, 7.0], "item_id": ["a", "b"], "timestamp": [datetime(2026, 1, 1)] * 2}
    )
    assert [event.user_id for _, event in events(file)] == ["7"]
    assert counts(file) == RowCounts(read=2, valid=1, no_user=1)


def test_words_for_no_value_are_no_item_and_no_event_id(tmp_path: Path) -> None:
    file = csv_file(tmp_path, "user_id,item_id,timestamp,event_id\nu,a,2026-01-01,NULL\nu,NULL,2026-01-01,e\n")
    assert [event.event_id for _, event in events(file)] == [None]
    assert [reason for _, reason in rejects(file)] == ["item_id is required for a purchase"]


def test_a_forget_of_an_id_that_is_no_user_is_taken(tmp_path: Path) -> None:
    file = csv_file(tmp_path, "type,user_id,item_id,timestamp\nforget,0,,2026-01-01\n")
    assert one_event(file) == make_forget("0", timestamp=DAY_MS)


def test_a_user_with_a_large_share_of_many_rows_is_said(tmp_path: Path) -> None:
    def file(rows: int, every: int) -> PurchaseFile:
        lines = (f"{'guest' if row % every == 0 else f'u{row}'},a,2026-01-01\n" for row in range(rows))
        return csv_file(tmp_path, HEADER + "".join(lines))

    assert "user 'guest' has 10% of the 2,000 rows" in file(2000, 10).remarks[0]
    assert file(2000, 40).remarks == ()
    assert file(900, 10).remarks == ()


def title_file(folder: Path, *titles: str, first: int = 1) -> PurchaseFile:
    rows = "".join(f"u{row},i{row},2026-01-01,{title}\n" for row, title in enumerate(titles, first))
    return csv_file(folder, f"user_id,item_id,timestamp,title\n{rows}")


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
        ({"decimal": ";"}, "--decimal: must be one of ., ,"), ({"thousands": "x"}, "--thousands"),
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


def test_text_of_parquet_that_is_not_utf_8_is_no_id(tmp_path: Path) -> None:
    broken = pa.Array.from_buffers(pa.string(), 2, pa.array([b"M\xfcller", b"J\xf6rg"], pa.binary()).buffers())
    times = [datetime(2026, 1, 1)] * 2
    file = parquet_file(tmp_path, {"user_id": broken, "item_id": ["a", "b"], "timestamp": times})
    assert [reason.partition(":")[0] for _, reason in rejects(file)] == ["user_id", "user_id"]
    assert "M\\xfcller" in written(file, tmp_path / "rejects.csv")


def test_bytes_are_read_as_their_text_also_where_they_stand_for_nothing(tmp_path: Path) -> None:
    table = {
        "user_id": [b"u", b"NULL"], "item_id": [b"a", b"b"], "event_id": [b"nan", b"e"],
        "type": [b"return", b"purchase"], "timestamp": [b"2026-01-01", b"2026-01-01"],
    }  # fmt: skip
    file = parquet_file(tmp_path, table)
    assert events(file) == [(1, make_event("u", "a", type_=EventType.RETURN, timestamp=DAY_MS))]
    assert counts(file).no_user == 1


def test_a_column_of_floats_some_of_which_are_whole_is_read_as_csv_has_it(tmp_path: Path) -> None:
    table = {"user_id": [1.0, 2.5], "item_id": ["a", "b"], "timestamp": [datetime(2026, 1, 1)] * 2}
    in_parquet = [event.user_id for _, event in events(parquet_file(tmp_path, table))]
    text = HEADER + "1.0,a,2026-01-01\n2.5,b,2026-01-01\n"
    assert in_parquet == [event.user_id for _, event in events(csv_file(tmp_path, text))] == ["1.0", "2.5"]


def test_a_forget_with_a_negative_quantity_is_no_return(tmp_path: Path) -> None:
    text = "type,user_id,item_id,quantity,timestamp\nforget,u,,-1,2026-01-01\n"
    assert counts(csv_file(tmp_path, text, Columns(negative_returns=True))).rejected == 1


def test_a_time_is_the_same_millisecond_in_every_form(tmp_path: Path) -> None:
    us = 1_767_225_600_123_600
    ways: list[Any] = [
        [us],
        pa.array([us], pa.timestamp("us")),
        ["2026-01-01T00:00:00.123600"],
        pa.array([us * 1000], pa.int64()),
    ]
    for values in ways:
        assert (
            one_event(parquet_file(tmp_path, {"user_id": ["u"], "item_id": ["a"], "timestamp": values})).timestamp
            == DAY_MS + 123
        )


def test_a_date_of_digits_that_has_lost_its_zero_is_a_reject(tmp_path: Path) -> None:
    columns = Columns(timestamp_format="%d%m%Y")
    assert one_event(csv_file(tmp_path, f"{HEADER}u,a,01012026\n", columns)).timestamp == DAY_MS
    assert one_reject(csv_file(tmp_path, f"{HEADER}u,a,1122024\n", columns)).startswith("timestamp: ")
    assert (
        one_event(csv_file(tmp_path, f"{HEADER}u,a,1.1.2026\n", Columns(timestamp_format="%d.%m.%Y"))).timestamp
        == DAY_MS
    )


def test_columns_that_are_not_needed_are_in_the_rejects_all_the_same(tmp_path: Path) -> None:
    table = {"user_id": ["u"], "item_id": [None], "timestamp": ["2026-01-01"], "note": ["x"], "more": [[1]]}
    file = parquet_file(tmp_path, table)
    assert written(file, tmp_path / "rejects.csv").splitlines()[1].startswith("u,,2026-01-01,x,[1],")


def test_a_file_of_nothing_but_open_quotes_is_all_rejects(tmp_path: Path) -> None:
    file = csv_file(tmp_path, HEADER + 'x","\n' * 3_000)
    assert counts(file).rejected == 3_000


def test_every_id_can_be_taken_for_a_customer(tmp_path: Path) -> None:
    text = "".join(f"{user},a,2026-01-01\n" for user in ("0", "NULL", "nan", "", "u"))
    found = csv_file(tmp_path, HEADER + text, Columns(every_user=True))
    assert [event.user_id for _, event in events(found)] == ["0", "NULL", "nan", "u"]
