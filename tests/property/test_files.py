"""Whatever bytes a file holds: one clear error, or every row is accounted for."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from recsys.data.event import EventReading
from recsys.errors import InputFileError
from recsys.files.batches import RowCounts
from recsys.files.columns import Columns
from recsys.files.marks import with_formula, without_formula
from recsys.files.numbers import NumberColumn
from recsys.files.purchases import PurchaseFile
from recsys.files.rejects import RejectsFile
from tests import fuzz

NOW = datetime(2026, 11, 22, tzinfo=UTC)
HEADER = b"user_id,item_id,timestamp,quantity,title\n"
texts = st.text(st.sampled_from('ab12.,;"\n\r\t -+eE0\u00e9\\x00\\') | st.characters(codec="utf-8"), max_size=60)
cells = st.sampled_from([*fuzz.IDS, *fuzz.NUMBERS, *fuzz.TIMES, *fuzz.TITLES])
rows = st.lists(st.lists(cells, min_size=4, max_size=6).map(",".join), max_size=12).map("\n".join)


@given(st.sampled_from([b"", HEADER]), st.binary(max_size=200) | (texts | rows).map(str.encode), st.sampled_from(",;"))
@example(HEADER, b'u,a,2026-01-01,1,"open\nv,b,2026-01-01,1,x\n', ",")
@example(HEADER, b"u,a,2026-01-01,1.200,x\nv,b,2026-01-01,1,x", ",")
@example(b"PAR1", b"PAR1", ",")
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_one_clear_error_or_every_row_is_accounted_for(
    tmp_path: Path, start: bytes, content: bytes, delimiter: str
) -> None:
    (tmp_path / "a.csv").write_bytes(start + content)
    counts, refused = RowCounts(), ""
    try:
        file = PurchaseFile(tmp_path / "a.csv", Columns(delimiter=delimiter), events=EventReading(), now=NOW)
        with RejectsFile(tmp_path / "rejects.csv", file.table) as rejects:
            for batch in file.batches():
                counts.note(batch)
                rejects.add(batch.rejects)
    except InputFileError as error:
        refused = str(error)
    if refused:
        assert refused.isprintable()
        return
    assert counts.read == counts.valid + counts.rejected + counts.no_user == file.rows
    assert rejects.count == counts.rejected
    if rejects.count:
        with suppress(InputFileError):  # what a column means may be unclear without the rows that were taken
            again = PurchaseFile(rejects.path, Columns(delimiter=delimiter), events=EventReading(), now=NOW)
            assert not any(batch.events for batch in again.batches()), "what nobody has mended is rejected again"


@given(st.text(st.sampled_from("'=+-@\t\r 1.,e\uff1da")))
def test_no_value_begins_a_formula_and_every_one_comes_back(value: str) -> None:
    shown = without_formula(value)
    assert with_formula(shown) == value
    assert not shown.startswith(("=", "@", "\t", "\r"))
    if shown.startswith(("+", "-")):
        float(shown.replace(",", "").replace(".", ""))  # a number, which is what it looks like


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_two_minutes_of_hostile_files_and_records() -> None:
    report = fuzz.run(minutes=2, seed=int(NOW.timestamp()))
    assert not report.failures, report.failures[:3]
    assert {"file: read", "file: one clear error", "items: read"} <= report.outcomes.keys()


def test_the_first_cases_are_fine(tmp_path: Path) -> None:
    report = fuzz.Report()
    for number in range(300):
        fuzz.attempt(number, tmp_path, report)
    assert not report.failures, report.failures[:3]


numbers = st.from_regex(r"[+-]?[0-9]{0,4}[.,][0-9]{0,4}([eE]-?[0-9])?", fullmatch=True) | st.sampled_from(fuzz.NUMBERS)


@settings(deadline=None)
@given(st.lists(numbers, max_size=4))
@example(["5.", "1.200,50"])
def test_numbers_that_a_column_rejects_are_rejected_in_a_column_of_their_own(texts: list[str]) -> None:
    """As those of a rejects file are that nobody has mended."""
    with suppress(InputFileError):  # the whole column is refused
        rejected = _rejected(texts)
        assert _rejected(rejected) == rejected


def _rejected(texts: list[str]) -> list[str]:
    column = NumberColumn()
    for text in texts:
        column.note(text)
    form, rejected = column.decide("quantity", decimal="", thousands=""), []
    for text in texts:
        try:
            form.read(text)
        except ValueError:
            rejected.append(text)
    return rejected


@given(st.text(st.sampled_from("=+-@\uff1d'\" ;,|\t\r\n1.ae"), max_size=12))
@settings(max_examples=500, deadline=None)
def test_no_part_of_a_value_is_a_formula_and_the_value_comes_back(value: str) -> None:
    written = without_formula(value)
    assert with_formula(written) == value
    for part in re.split("[;,|\t\r\n]", written):
        assert not re.match(r"[\s\"]*[=@\uff1d]", part)
        assert not re.match(r"[\s\"]*[+-]", part) or re.fullmatch(r"[+-][0-9.,]+(e[+-]?[0-9]+)?", part)
    assert value[:1] not in ("\t", "\r", "\n") or written.startswith("'")
