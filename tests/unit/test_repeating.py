from __future__ import annotations

import logging
import threading

import pytest

from recsys.runtime import repeating
from recsys.runtime.repeating import repeated
from tests.services import wait_until


def test_it_is_done_at_once_and_again_whatever_fails_and_once_at_the_end(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repeating, "_LONGEST_WAIT_S", 240.0)  # the machine may be busy
    done: list[str] = []

    def work() -> None:
        done.append("work")
        raise ValueError("of all things")

    with caplog.at_level(logging.ERROR), repeated(
        work, name="the work", every_s=0.01, at_end=lambda: done.append("end")
    ):  # fmt: skip
        wait_until(lambda: done.count("work") >= 3, "it is done again and again")
    assert done[-1] == "end"
    assert done.count("end") == 1
    assert "unexpected error in the work" in caplog.text
    assert "ValueError: of all things" in caplog.text


def test_work_that_hangs_holds_up_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeating, "_LONGEST_WAIT_S", 0.01)
    began, hangs = threading.Event(), threading.Event()

    def work() -> None:
        began.set()
        hangs.wait()

    with repeated(work, name="what hangs", every_s=0.01):
        began.wait()
    hangs.set()
