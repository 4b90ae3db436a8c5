"""Processes of ours that need not import the libraries anew: that is most of what a short command costs.

They are forked from a process that has imported the libraries and nothing else: none of our modules, no client, no
thread of ours. All else is as `python -m` has it: process and session of its own, environment, arguments, exit code.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path

_LIBRARIES = [
    "confluent_kafka.admin", "fsspec", "implicit.als", "joblib", "msgpack", "numba", "orjson", "pandas",
    "prometheus_client", "pyarrow.dataset", "pyarrow.parquet", "pydantic_settings", "redis.asyncio.cluster",
    "redis.cluster", "rich.console", "rich.progress", "rich.table", "scipy.sparse", "threadpoolctl", "typer",
]  # fmt: skip
_FORKED = multiprocessing.get_context("forkserver")
_FORKED.set_forkserver_preload(_LIBRARIES)


def run_module(
    module: str, arguments: list[str], *, environment: Mapping[str, str], folder: Path, timeout_s: float
) -> subprocess.CompletedProcess[str]:
    """Run `python -m <module> <arguments>` in a folder to its end.

    Raises
    ------
    subprocess.TimeoutExpired
        When it took longer; it has been killed.
    """
    main = sys.modules["__main__"]
    is_script = main.__spec__ is None and hasattr(main, "__file__")  # multiprocessing would run it once more
    if is_script or environment.get("PYTHONPATH") != os.environ.get("PYTHONPATH"):  # or other modules are asked for
        command = [sys.executable, "-m", module, *arguments]
        return subprocess.run(
            command, env=dict(environment), cwd=folder, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    with tempfile.TemporaryDirectory(prefix="recsys-run-") as name:
        out, err = Path(name) / "stdout", Path(name) / "stderr"
        process = _FORKED.Process(target=_become, args=(module, arguments, dict(environment), folder, out, err))
        process.start()
        try:
            process.join(timeout_s)
            if process.exitcode is None:
                raise subprocess.TimeoutExpired([module, *arguments], timeout_s, out.read_bytes(), err.read_bytes())
            return subprocess.CompletedProcess([module, *arguments], process.exitcode, out.read_text(), err.read_text())
        finally:
            process.kill()
            process.join()
            process.close()


def _become(module: str, arguments: list[str], environment: dict[str, str], folder: Path, out: Path, err: Path) -> None:
    os.setsid()
    for path, descriptor in ((out, 1), (err, 2)):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
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
