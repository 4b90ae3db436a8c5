"""Processes that are forked from one with the libraries behave as those that `python -m` starts."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.preloaded import ForkedProcess, can_fork, run_module
from tests.services import wait_until

TOLD = """
import multiprocessing, os, sys
print(__name__, sys.argv[1:], os.environ["WORD"], os.getcwd(), "RECSYS_TESTS_ONLY" in os.environ)
print(multiprocessing.parent_process(), multiprocessing.get_start_method(allow_none=True), file=sys.stderr)
other = multiprocessing.get_context("fork").Process(target=print, args=["from another one"])
other.start()
other.join()
sys.exit(7)
"""
WAITS = """
import time
print("waits", flush=True)
time.sleep(600)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two modules that can be run."""
    (tmp_path / "told_of_itself.py").write_text(TOLD)
    (tmp_path / "waits_for_ever.py").write_text(WAITS)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_it_has_arguments_environment_folder_and_exit_code_of_its_own(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = {**os.environ, "WORD": "tea"}
    monkeypatch.setenv("RECSYS_TESTS_ONLY", "1")
    done = run_module("told_of_itself", ["a", "b"], environment=environment, folder=folder, timeout_s=240)
    assert done.returncode == 7
    assert done.stdout == f"__main__ ['a', 'b'] tea {folder} False\nfrom another one\n"
    assert done.stderr == "None None\n"


def test_it_runs_until_a_signal_ends_it_and_tells_which(folder: Path) -> None:
    log = folder / "log"
    process = ForkedProcess("waits_for_ever", [], environment=os.environ, folder=folder, out=log, err=log)
    try:
        wait_until(lambda: log.read_text() == "waits\n", "it waits")
        assert process.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.01)
        process.send_signal(signal.SIGTERM)
        assert process.wait() == process.poll() == process.returncode == -signal.SIGTERM
    finally:
        process.kill()


def test_what_is_read_at_the_start_of_a_process_needs_one_that_starts() -> None:
    assert can_fork({**os.environ, "RECSYS_DATA_DIR": "/elsewhere"}) == can_fork(os.environ)
    assert not can_fork({**os.environ, "PYTHONPATH": "/elsewhere"})
    assert not can_fork({**os.environ, "OMP_NUM_THREADS": "7"})
