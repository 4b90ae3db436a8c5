from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest

from recsys.runtime.clock import ended_by_clock_rollback


class Wall:
    """A wall clock that tells when it has been looked at."""

    def __init__(self) -> None:
        self.shift_s = 0.0
        self._looks = 0
        self._looked = threading.Condition()

    def __call__(self) -> float:
        with self._looked:
            self._looks += 1
            self._looked.notify_all()
        return time.monotonic() + self.shift_s

    def await_looks(self, count: int) -> None:
        with self._looked:
            until = self._looks + count
            assert self._looked.wait_for(lambda: self._looks >= until, timeout=60)


@pytest.mark.parametrize(("shift_s", "times"), [(-86_400.0, 1), (-1.5, 1), (-0.5, 0), (0.0, 0), (86_400.0, 0)])
def test_process_ends_only_if_the_clock_is_set_back(shift_s: float, times: int) -> None:
    wall, ended = Wall(), threading.Event()
    with ended_by_clock_rollback(wall=wall, end=ended.set):
        wall.await_looks(1)
        wall.shift_s = shift_s
        if times:
            assert ended.wait(60)
        else:
            wall.await_looks(3)
    assert ended.is_set() == bool(times)


def test_it_ends_as_a_failure_with_a_line_that_says_who_starts_it_again() -> None:
    program = (
        "import logging, time\n"
        "from recsys.runtime.clock import ended_by_clock_rollback\n"
        "logging.basicConfig()\n"
        "with ended_by_clock_rollback(wall=lambda: -9 * time.monotonic()):\n"  # a clock that runs backwards
        "    time.sleep(240)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=240)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "started again by its supervisor, or else by you" in line
