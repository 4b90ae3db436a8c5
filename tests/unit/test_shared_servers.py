from __future__ import annotations

import subprocess
from pathlib import Path

import psutil

from tests.shared_servers import SharedServers, StartedServer


def test_a_server_is_started_once_for_all_and_ends_with_the_run(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    started = []

    def start(folder: Path) -> StartedServer:
        started.append(subprocess.Popen(["sleep", "600"], cwd=folder))
        SharedServers(run).ends_with_the_run(started[-1].pid)
        return StartedServer("here", "sleeps")

    first, second = (SharedServers(run).get("server", start) for _ in range(2))
    assert first == second == StartedServer("here", "sleeps")
    assert len(started) == 1
    assert started[0].poll() is None
    SharedServers(run).end()
    assert not psutil.pid_exists(started[0].pid)
    assert not run.exists()


def test_another_process_that_has_the_number_of_one_that_ended_is_left_alone(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "processes").mkdir(parents=True)
    with subprocess.Popen(["sleep", "600"]) as other:
        (run / "processes" / f"{other.pid}-{psutil.Process(other.pid).create_time() - 100}").touch()
        SharedServers(run).end()
        assert other.poll() is None
        other.kill()
