from __future__ import annotations

import threading
import time

import pytest

from recsys.runtime.clock import restart_on_clock_rollback


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
def test_process_starts_again_only_if_the_clock_is_set_back(shift_s: float, times: int) -> None:
    wall, started_again = Wall(), []
    with restart_on_clock_rollback(wall=wall, start_again=lambda: started_again.append(1)):
        wall.await_looks(1)
        wall.shift_s = shift_s
        wall.await_looks(3)
    assert len(started_again) == times
