"""Ids in files of purchases: one reading for all formats, and who is no customer."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa
import pytest

from recsys.data.event import EventType
from recsys.files.batches import NO_CUSTOMER, NO_CUSTOMER_OF_RETURN, RowCounts
from recsys.files.columns import Columns
from recsys.files.purchases import PurchaseFile
from recsys.files.values import is_spoilt_id
from tests.builders import make_event, make_forget
from tests.purchase_files import (
    DAY_MS,
    HEADER,
    counts,
    csv_file,
    events,
    one_event,
    one_reject,
    parquet_file,
    rejects,
    written,
)


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
    assert counts(file) == RowCounts(rows=2, skipped_rows=1, read=2, valid=1, no_user=1)


@pytest.mark.parametrize("user", [None, float("nan"), 0.0])
def test_rows_of_no_user_in_parquet_are_skipped_and_counted(tmp_path: Path, user: float | None) -> None:
    file = parquet_file(
        tmp_path, {"user_id": [user, 7.0], "item_id": ["a", "b"], "timestamp": [datetime(2026, 1, 1)] * 2}
    )
    assert [event.user_id for _, event in events(file)] == ["7"]
    assert counts(file) == RowCounts(rows=2, skipped_rows=1, read=2, valid=1, no_user=1)


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

    assert file(2000, 10).frequent_users == (
        "user 'guest' has 10% of the 2,000 rows; if this is no customer, leave it out with --no-user 'guest'",
    )
    assert file(2000, 10).remarks == (), "a command with a summary has it there"
    assert file(2000, 40).frequent_users == file(900, 10).frequent_users == ()


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


def test_every_id_can_be_taken_for_a_customer(tmp_path: Path) -> None:
    text = "".join(f"{user},a,2026-01-01\n" for user in ("0", "NULL", "nan", "", "u"))
    found = csv_file(tmp_path, HEADER + text, Columns(every_user=True))
    assert [event.user_id for _, event in events(found)] == ["0", "NULL", "nan", "u"]


@pytest.mark.parametrize(
    ("skipped", "columns"),
    [
        ("n/a", Columns()), ("0", Columns()), ("-1", Columns()), ("0.0", Columns()), ("-1.0", Columns()),
        ("Guest", Columns(no_user=("guest",))), ("99.0", Columns(no_user=("99",))),
        ("99.0", Columns(no_user=("99.0",))), ("\\N", Columns()), ("", Columns()),
    ],
)  # fmt: skip
def test_rows_of_no_user_do_not_change_how_ids_are_read(tmp_path: Path, skipped: str, columns: Columns) -> None:
    file = csv_file(tmp_path, f"{HEADER}17891.0,a,2026-01-01\n{skipped},a,2026-01-01\n", columns)
    assert [event.user_id for _, event in events(file)] == ["17891"]
    assert counts(file).no_user == 1


@pytest.mark.parametrize("skipped", ["0.0", "-1.0", "99.0"])
def test_ids_in_float_form_that_are_no_users_are_no_remark(tmp_path: Path, skipped: str) -> None:
    text = f"{HEADER}abc,a,2026-01-01\n{skipped},a,2026-01-01\n"
    file = csv_file(tmp_path, text, Columns(no_user=("99",)))
    assert ([event.user_id for _, event in events(file)], file.remarks) == (["abc"], ())
    every = csv_file(tmp_path, text, Columns(every_user=True))
    assert [event.user_id for _, event in events(every)] == ["abc", skipped]
    assert "--integer-ids" in every.remarks[0]


@pytest.mark.parametrize("named", ["99", "99.0"])
def test_a_number_that_is_no_user_is_skipped_in_every_format(tmp_path: Path, named: str) -> None:
    columns = Columns(no_user=(named,))
    table = {"user_id": pa.array([99.0, 7.0]), "item_id": ["a", "b"], "timestamp": [datetime(2026, 1, 1)] * 2}
    assert [event.user_id for _, event in events(parquet_file(tmp_path, table, columns))] == ["7"]
    text = f"{HEADER}99.0,a,2026-01-01\n7.0,b,2026-01-01\n"
    assert [event.user_id for _, event in events(csv_file(tmp_path, text, columns))] == ["7"]


def test_ids_that_have_lost_digits_do_not_change_how_others_are_read(tmp_path: Path) -> None:
    file = csv_file(tmp_path, f"{HEADER}17891.0,a,2026-01-01\n1.2E+17,a,2026-01-01\n")
    assert [event.user_id for _, event in events(file)] == ["17891"]
    times = [datetime(2026, 1, 1)] * 2
    lost = parquet_file(tmp_path, {"user_id": [1e17, 1e17], "item_id": ["a", "b"], "timestamp": times})
    assert counts(lost).rejected == 2
    assert lost.remarks == ()


def test_a_forget_of_an_id_that_is_no_user_is_taken_from_every_format(tmp_path: Path) -> None:
    table = {"type": ["forget"], "user_id": [0.0], "item_id": [""], "timestamp": [datetime(2026, 1, 1)]}
    assert one_event(parquet_file(tmp_path, table)).type is EventType.FORGET


@pytest.mark.parametrize("user", ["1,23E+05", "-1.23e+05"])
def test_what_a_summary_calls_spoilt_an_import_rejects(tmp_path: Path, user: str) -> None:
    assert is_spoilt_id(user)
    row = f'"{user}",a,2026-01-01\n'
    assert "is a long number that a program has shortened" in one_reject(csv_file(tmp_path, HEADER + row))


def test_returns_of_nobody_are_told_from_purchases_of_nobody(tmp_path: Path) -> None:
    text = HEADER.replace("\n", ",type,quantity\n") + ",a,2026-01-01,return,1\n,a,2026-01-01,,-1\n,a,2026-01-01,,1\n"
    for negative_returns, expected in ((True, [2, 1]), (False, [1, 2])):
        file = csv_file(tmp_path, text, Columns(negative_returns=negative_returns))
        why = [why for row in file.read_rows() for _, why in row.left_out]
        assert [why.count(NO_CUSTOMER_OF_RETURN), why.count(NO_CUSTOMER)] == expected
        assert counts(file) == RowCounts(rows=3, skipped_rows=3, read=3, no_user=3)
