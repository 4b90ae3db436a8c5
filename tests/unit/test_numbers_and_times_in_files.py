"""Quantities, prices and times in files of purchases."""

from __future__ import annotations

from contextlib import suppress
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from recsys.data.event import EventType
from recsys.errors import InputFileError
from recsys.files.columns import Columns
from recsys.files.purchases import PurchaseFile
from tests.builders import make_event, make_forget
from tests.purchase_files import DAY_MS, HEADER, counts, csv_file, events, one_event, one_reject, parquet_file, rejects

A_DAY_AFTER_NOW_MS = 1_795_435_200_000  # 2026-11-23T12:00:00Z
WRONG_NUMBERS = ["abc", "1_5", "inf", "-inf", "1e400", "(2)", "2-", "\u0663", "1 2", "--1", "€2"]


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


@pytest.mark.parametrize("zone", ["Mars/Olympus", "", "../../etc/passwd", "Europe"])
def test_an_unknown_zone_is_an_input_file_error(tmp_path: Path, zone: str) -> None:
    with pytest.raises(InputFileError, match="--timezone"):
        csv_file(tmp_path, HEADER, Columns(timezone=zone))


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
    with pytest.raises(InputFileError, match="--timestamp-unit: must be 's', 'ms', 'us' or 'ns', not 'm'"):
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
        (["5.", "3,50"], ["5. and 3,50", "--decimal"]),
        ([".5", "3,e1"], [".5 and 3,e1", "--decimal"]),
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


@pytest.mark.parametrize(
    "text", ["9999-12-31", "2027-11-22T10:00:00Z", "2026-11-23T12:00:01Z", "2026-11-24", "1826798400000"]
)
@pytest.mark.parametrize("unit", ["", "ms"])
def test_a_time_later_than_a_day_after_now_is_a_reject_in_every_form(tmp_path: Path, text: str, unit: str) -> None:
    good = "1790000000000" if text.isdigit() else "2026-11-23T12:00:00Z"
    file = csv_file(tmp_path, f"{HEADER}u,a,{text}\nu,b,{good}\n", Columns(timestamp_unit=unit))
    assert [event.item_id for _, event in events(file)] == ["b"]
    ((row, reason),) = rejects(file)
    assert row == 1
    assert text in reason
    assert "2026-11-23" in reason


def test_a_future_time_of_parquet_is_a_reject(tmp_path: Path) -> None:
    table = {"user_id": ["u"], "item_id": ["a"], "timestamp": [datetime(2027, 11, 22)]}
    reason = one_reject(parquet_file(tmp_path, table))
    assert reason.startswith("timestamp: '2027-11-22 00:00:00' is in the future: later than 2026-11-23T12:00:00Z")


@pytest.mark.parametrize("text", ["9999-12-31", "1826798400000"])
def test_a_forget_is_not_rejected_for_a_time_in_the_future(tmp_path: Path, text: str) -> None:
    file = csv_file(tmp_path, f"type,user_id,item_id,timestamp\nforget,u,,{text}\n")
    assert one_event(file) == make_forget("u", timestamp=A_DAY_AFTER_NOW_MS)


@pytest.mark.parametrize(
    ("texts", "columns", "hint"),
    [
        (["1,5", "1.5"], {"decimal": ","}, "if . is the decimal mark, say --decimal ."),
        (["1.5", "1,5"], {"decimal": "."}, "if , is the decimal mark, say --decimal ,"),
        (["1,5", "1.5"], {"decimal": ",", "thousands": "."}, "three digits must follow it"),
    ],
)
def test_a_number_with_the_other_mark_is_told_which_option_helps(
    tmp_path: Path, texts: list[str], columns: dict[str, Any], hint: str
) -> None:
    ((row, reason),) = rejects(quantity_file(tmp_path, texts, **columns))
    assert row == 2
    assert reason.endswith(hint)
