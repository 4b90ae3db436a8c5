"""What processes keep to themselves, and what SIGHUP does to them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.services import PROJECT

_TELL = """
import os, resource, stat, subprocess, sys
from recsys.runtime.hardening import keep_to_itself
keep_to_itself()
keep_to_itself()  # a limit that is there already may not be exceeded
ask = "import resource; print(resource.getrlimit(resource.RLIMIT_CORE)[0])"
print(subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True).stdout.strip())
open("made", "w").close()
print(oct(stat.S_IMODE(os.stat("made").st_mode)))
"""
_CRASH = "import os; from recsys.runtime.hardening import keep_to_itself; keep_to_itself(); os.abort()"


def run(program: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {"PYTHONPATH": str(PROJECT), "PATH": os.environ["PATH"]}
    return subprocess.run(
        [sys.executable, "-c", program], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_a_process_and_its_children_make_private_files_and_no_core_dumps(tmp_path: Path) -> None:
    done = run(_TELL, tmp_path)
    assert done.stdout.split() in (["1", "0o600"], ["0", "0o600"]), (
        done.stderr
    )  # 0 where the machine allows none at all


def test_a_crash_leaves_nothing_behind(tmp_path: Path) -> None:
    assert run(_CRASH, tmp_path).returncode == -signal.SIGABRT
    assert list(tmp_path.iterdir()) == []


def test_the_command_keeps_to_itself(tmp_path: Path) -> None:
    program = """
import os, resource, sys
sys.argv = ["recsys", "--version"]
from recsys.cli import main
try:
    main()
finally:
    print(resource.getrlimit(resource.RLIMIT_CORE)[0] <= 1, oct(os.umask(0)))
"""
    assert run(program, tmp_path).stdout.splitlines()[-1] == "True 0o77"


def test_sighup_has_secrets_read_again_and_ends_nothing(tmp_path: Path) -> None:
    program = """
import os, signal, threading
from recsys.runtime.hangup import at_hangup
told = threading.Event()
def fail():
    told.set()
    raise RuntimeError("the service goes on")
at_hangup(fail)
os.kill(os.getpid(), signal.SIGHUP)
print(told.wait(60))
"""
    done = run(program, tmp_path)
    assert (done.returncode, done.stdout) == (0, "True\n")
