"""Fail points: nothing happens unless the environment says so, and a wrong specification is refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from recsys.runtime import fail_points


def run(specification: str, code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", f"from recsys.runtime import fail_points\n{code}"],
        env={**os.environ, fail_points.VARIABLE: specification},
        capture_output=True,
        text=True,
    )


def test_without_the_variable_nothing_happens() -> None:
    fail_points.reach("applied")
    assert list(fail_points.halves("between-applies", [1, 2, 3])) == [[1, 2, 3]]


def test_action_happens_at_its_count_and_once() -> None:
    done = run("applied=raise@2", "fail_points.reach('applied'); print('first'); fail_points.reach('applied')")
    assert done.stdout == "first\n"
    assert "FailPointReached" in done.stderr
    assert run("applied=kill", "fail_points.reach('applied')").returncode == -signal.SIGKILL
    full = "try: fail_points.reach('in-model')\nexcept OSError as error: print(error.strerror)\n"
    assert run("in-model=full", f"{full}fail_points.reach('in-model')").stdout == "No space left on device\n"


def test_halves_have_the_point_between_them() -> None:
    done = run("between-applies=kill", "for half in fail_points.halves('between-applies', 'abc'): print(half, flush=1)")
    assert done.stdout == "a\n"


def test_hold_waits_until_its_file_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "held"
    code = (
        f"import pathlib, threading\np = pathlib.Path({str(path)!r})\n"
        "t = threading.Thread(target=fail_points.reach, args=('applied',))\nt.start()\n"
        "while not p.exists(): pass\nassert t.is_alive()\np.unlink()\nt.join(10)\nprint(t.is_alive())"
    )
    assert run(f"applied=hold:{path}", code).stdout == "False\n"


@pytest.mark.parametrize("wrong", ["applied", "nowhere=kill", "applied=explode", "applied=kill@often", "applied=hold"])
def test_wrong_specification_is_refused(wrong: str) -> None:
    assert "is not name=action@count" in run(wrong, "").stderr
