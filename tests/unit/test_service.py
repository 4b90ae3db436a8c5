"""How the programs of the services end."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial

import pytest

from recsys.errors import KafkaUnavailable, RecsysError, SettingsError
from recsys.logger import logger
from recsys.runtime import startup
from recsys.runtime.logs import LastingProblem
from recsys.runtime.service import on_termination, run_service
from recsys.runtime.startup import until_ready
from recsys.settings import Settings
from tests.services import wait_until

log = logger("tests.service")


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


def test_the_exit_code_is_what_serving_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECSYS_KAFKA__TOPIC", "orders")
    served: list[str] = []

    def serve(settings: Settings) -> int:
        served.append(settings.kafka.topic)
        return 3

    assert run_service(serve, log) == 3
    assert served == ["orders"]


def test_a_wrong_setting_is_one_line_before_anything_is_served(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RECSYS_KAFKA__TOPIK", "orders")
    assert run_service(lambda _: pytest.fail("it is served"), log) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert "RECSYS_KAFKA__TOPIK" in said
    assert said.count("\n") == 1


def test_a_failed_check_is_one_line_before_anything_is_served(capsys: pytest.CaptureFixture[str]) -> None:
    def check(_: Settings) -> None:
        raise SettingsError("RECSYS_API__PORT: cannot listen on 127.0.0.1:80")

    assert run_service(lambda _: pytest.fail("it is served"), log, check=check) == 2
    assert capsys.readouterr().err == "error: RECSYS_API__PORT: cannot listen on 127.0.0.1:80\n"


@pytest.mark.parametrize(("error", "code"), [(SettingsError("wrong"), 2), (KafkaUnavailable("away"), 1)])
def test_an_error_while_serving_is_a_log_line(
    error: RecsysError, code: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECSYS_LOG__FORMAT", "text")

    def serve(_: Settings) -> int:
        raise error

    assert run_service(serve, log) == code
    assert capsys.readouterr().err.endswith(f"Z ERROR   tests.service: {error}\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_both_signals_ask_a_service_to_end(number: signal.Signals) -> None:
    before = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)}
    told: list[int] = []
    stopped = threading.Event()

    def note(sent: int) -> None:
        told.append(sent)
        stopped.set()

    try:
        on_termination(note)
        os.kill(os.getpid(), number)
        assert stopped.wait(60)
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
    assert told == [number]


_WAITS_FOR_EVER = """
import ctypes, logging
from recsys.logger import logger
from recsys.runtime.service import end_late, on_termination
logging.basicConfig()
on_termination(lambda _: None)
end_late(0.1, logger("service"))
libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)
libc.pthread_mutex_lock(mutex)
print("waiting", flush=True)
libc.pthread_mutex_lock(mutex)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_service_ends_also_from_a_call_that_no_signal_ends(number: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _WAITS_FOR_EVER], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(number)
        _, said = process.communicate()
    assert process.returncode == 0
    assert "not stopped within 0.1 s, ending as it is" in said


def test_who_is_asked_is_said_while_there_is_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    def check() -> str:
        wait_until(lambda: caplog.records, "it is said")
        return "ready"

    told: list[str] = []
    ready = until_ready(check, stop=threading.Event(), log=log, asked="Kafka at k:9092", slow_s=0, on_wait=told.append)
    assert ready == "ready"
    assert told == ["no answer yet from Kafka at k:9092", ""]
    assert [record.getMessage() for record in caplog.records] == ["waiting: no answer yet from Kafka at k:9092"]


def test_what_is_missing_is_said_again_at_growing_intervals_and_at_once_when_it_is_something_else(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = 0.0
    monkeypatch.setattr(startup, "LastingProblem", partial(LastingProblem, clock=lambda: now))
    problems = ["Kafka is away"] * 35 + ["Redis is away"] * 3 + ["Kafka is away", "Redis is away"] * 2

    def check() -> str:
        nonlocal now
        now += 1
        if problems:
            raise KafkaUnavailable(problems.pop(0))
        return "ready"

    told: list[str] = []
    stop = threading.Event()
    assert until_ready(check, stop=stop, log=log, asked="nobody", every_s=0, on_wait=told.append) == "ready"
    assert told == [*["Kafka is away"] * 35, *["Redis is away"] * 3, *["Kafka is away", "Redis is away"] * 2, ""]
    assert [record.getMessage() for record in caplog.records] == [
        *["waiting: Kafka is away"] * 3,
        "waiting: Redis is away",
    ]


@pytest.mark.parametrize(("name", "taken_apart"), [("asking", False), ("a worker", True)])
def test_a_command_ends_as_it_is_while_threads_wait_for_a_server(name: str, taken_apart: bool) -> None:
    program = f"""
import atexit, threading, time
from recsys import cli
atexit.register(print, "taken apart")
threading.Thread(target=time.sleep, args=(600,), name={name!r}, daemon=True).start()
print("said")
cli._end(2)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (2, "")
    assert ended.stdout.split("\n")[:-1] == ["said", *["taken apart"] * taken_apart]
