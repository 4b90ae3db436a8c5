"""Processes of ours that need not import the libraries anew: that is most of what a start costs.

They are forked from a process that has imported the libraries and, of ours, the classes of the settings, which read
nothing before they are used: no other module, no client, no thread of ours. All else is as `python -m` has it: process
and session of its own, environment, arguments, exit code.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from multiprocessing.connection import wait
from pathlib import Path

_LIBRARIES = [
    "confluent_kafka.admin", "fastapi", "fsspec", "implicit.als", "joblib", "msgpack", "numba", "orjson", "pandas",
    "prometheus_client", "pyarrow.dataset", "pyarrow.parquet", "pydantic_settings", "redis.asyncio.cluster",
    "redis.cluster", "rich.console", "rich.progress", "rich.table", "scipy.linalg.cython_blas", "scipy.sparse",
    "recsys.settings", "threadpoolctl", "typer", "uvicorn", "uvloop",
]  # fmt: skip
_FORKED = multiprocessing.get_context("forkserver")
_FORKED.set_forkserver_preload(_LIBRARIES)
_READ_AT_START = ("PYTHON", "NUMBA", "OMP_", "OPENBLAS", "MALLOC", "LD_", "LANG", "LC_", "TZ")
"""How variables begin that the interpreter and the libraries read when they are loaded."""


class ForkedProcess:
    """A process forked from the one that has imported the libraries; it has what tests use of `subprocess.Popen`.

    Parameters
    ----------
    module : str
        Run as `python -m <module> <arguments>`.
    arguments : list of str
    environment : mapping
    folder : Path
        In which it runs.
    out, err : Path
        Files to which its output is appended; they may be the same.
    """

    _one_at_a_time = threading.Lock()  # starting one looks after the others, and each tells of its end once

    def __init__(
        self, module: str, arguments: list[str], *, environment: Mapping[str, str], folder: Path, out: Path, err: Path
    ) -> None:
        self.args = [module, *arguments]
        for path in (out, err):
            path.touch()
        self._process = _FORKED.Process(
            target=_become, args=(module, arguments, dict(environment), folder, out, err), daemon=True
        )
        with self._one_at_a_time:
            self._process.start()
        self.pid: int = self._process.pid  # type: ignore[assignment]

    @property
    def returncode(self) -> int | None:
        """The exit code, or minus the signal that has ended it; None while it runs."""
        with self._one_at_a_time:
            return self._process.exitcode

    def poll(self) -> int | None:
        """Return the exit code, or None while it runs."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it ends; return the exit code.

        Raises
        ------
        subprocess.TimeoutExpired
        """
        if not wait([self._process.sentinel], timeout):
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        code = self.returncode
        assert code is not None
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


def can_fork(environment: Mapping[str, str]) -> bool:
    """Whether a process with this environment may be forked: the libraries would read the same in it as here."""
    main = sys.modules["__main__"]
    if main.__spec__ is None and hasattr(main, "__file__"):
        return False  # a script: multiprocessing would run it once more
    here, there = (
        {name: value for name, value in variables.items() if name.startswith(_READ_AT_START)}
        for variables in (os.environ, environment)
    )
    return here == there


def run_module(
    module: str, arguments: list[str], *, environment: Mapping[str, str], folder: Path, timeout_s: float
) -> subprocess.CompletedProcess[str]:
    """Run `python -m <module> <arguments>` in a folder to its end.

    Raises
    ------
    subprocess.TimeoutExpired
        When it took longer; it has been killed.
    """
    if not can_fork(environment):
        command = [sys.executable, "-m", module, *arguments]
        return subprocess.run(
            command, env=dict(environment), cwd=folder, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    with tempfile.TemporaryDirectory(prefix="recsys-run-") as name:
        out, err = Path(name) / "stdout", Path(name) / "stderr"
        process = ForkedProcess(module, arguments, environment=environment, folder=folder, out=out, err=err)
        try:
            code = process.wait(timeout_s)
            return subprocess.CompletedProcess(process.args, code, out.read_text(), err.read_text())
        finally:
            process.kill()
            process.wait()


def _become(module: str, arguments: list[str], environment: dict[str, str], folder: Path, out: Path, err: Path) -> None:
    os.setsid()
    # For itself it is no child of multiprocessing's: it may start others, and ends when it wants to.
    multiprocessing.current_process().daemon = False
    multiprocessing.process._parent_process = None  # type: ignore[attr-defined]
    multiprocessing.set_start_method(None, force=True)
    for path, descriptor in ((out, 1), (err, 2)):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        os.dup2(opened, descriptor)
        os.close(opened)
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", buffering=1, closefd=False)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = [module, *arguments]
    sys.orig_argv = [sys.executable, "-m", module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        # As the interpreter ends: executors stop their idle processes, which this one would otherwise wait for.
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
