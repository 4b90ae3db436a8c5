"""What is told of long work: how much is done, how fast, and what is left."""

from __future__ import annotations

import io
import logging
import re
from types import SimpleNamespace

import pytest
from rich.console import Console

from recsys.runtime import progress
from recsys.runtime.progress import ProgressReporter


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records]


@pytest.fixture(autouse=True)
def every_step_is_logged(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(progress, "_LOG_EVERY_S", 0.0)
    caplog.set_level(logging.INFO, "recsys.runtime.progress")


def test_rows_per_second_and_what_is_left_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    with ProgressReporter(console=Console(file=io.StringIO())).stage("import a.csv", 9_000, unit="rows") as advance:
        advance(1_500)
        advance(7_500)
    assert logged(caplog)[0] == "import a.csv: started"
    assert re.fullmatch(r"import a\.csv: 1,500 of 9,000 rows, [\d,]+ rows/s, \d:\d\d:\d\d left", logged(caplog)[1])
    assert logged(caplog)[2].endswith(", 0:00:00 left")
    assert logged(caplog)[3].startswith("import a.csv: done, 9,000 in ")


def test_what_is_left_follows_from_the_share_where_the_total_is_unknown(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter([100.0, 110.0, 120.0])
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: next(times)))
    with ProgressReporter(console=Console(file=io.StringIO())).stage(
        "look", unit="rows", share=lambda: 0.25
    ) as advance:
        advance(2_000)
    assert logged(caplog)[1] == "look: 2,000 rows, 200 rows/s, 0:00:30 left"


def test_of_what_has_no_end_yet_nothing_is_left(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter([100.0, 110.0, 120.0])
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: next(times)))
    with ProgressReporter(console=Console(file=io.StringIO())).stage("read standard input", unit="bytes") as advance:
        advance(25_000_000)
    assert logged(caplog)[1] == "read standard input: 25.0 MB, 2.5 MB/s"


def test_stages_without_a_unit_are_told_as_before(caplog: pytest.LogCaptureFixture) -> None:
    with ProgressReporter(console=Console(file=io.StringIO())).stage("fit", 15) as advance:
        advance(3)
    assert logged(caplog)[1] == "fit: 3 of 15"


@pytest.mark.parametrize(("total", "share"), [(9_000, None), (None, lambda: 0.5)])
def test_a_terminal_of_80_characters_shows_it_in_one_line(total: int | None, share: progress.Share | None) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=80, legacy_windows=False)
    with ProgressReporter(console=console).stage("look through orders.csv", total, unit="rows", share=share) as advance:
        advance(4_500)
    last = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue()).splitlines()[-1]
    assert "4,500" in last
    assert "rows/s" in last
    assert "left" in last
