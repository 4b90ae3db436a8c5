"""The real services that tests run against: Apache Kafka, Redis, and this project's own processes."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from recsys.demo.services import embedded_broker, free_port

PROJECT = Path(__file__).parent.parent
IN_CI = os.environ.get("CI") == "true"
_PATIENCE_S = 60.0
T = TypeVar("T")


def wait_until(condition: Callable[[], T | None], what: str, patience_s: float = _PATIENCE_S) -> T:
    """Return the first true result of ``condition``, asked again and again; fail when patience ends."""
    until = time.monotonic() + patience_s
    while True:
        if result := condition():
            return result
        if time.monotonic() > until:
            raise AssertionError(f"after {patience_s:g} s still not: {what}")
        time.sleep(0.02)


@dataclass(frozen=True, slots=True)
class KafkaServer:
    """A broker for tests."""

    address: str
    is_real: bool
    description: str


@contextmanager
def kafka_server() -> Iterator[KafkaServer]:
    """Find or start a broker: RECSYS_TEST_KAFKA, else Apache Kafka on Java 17, else (not in CI) the embedded one."""
    if address := os.environ.get("RECSYS_TEST_KAFKA"):
        yield KafkaServer(address, True, f"the Kafka at {address}, from RECSYS_TEST_KAFKA")
        return
    try:
        jars = kafka_jars()
    except (OSError, subprocess.CalledProcessError) as error:
        if IN_CI:
            raise RuntimeError(f"real Kafka is required in CI but cannot be had: {error}") from error
        with embedded_broker() as address:
            yield KafkaServer(address, False, f"librdkafka's embedded broker; no real Kafka: {error}")
        return
    with apache_kafka(jars) as address:
        yield KafkaServer(address, True, "Apache Kafka 4.1.1, started for these tests")


def kafka_jars() -> Path:
    """Fetch the broker's jars with Maven, once."""
    java = subprocess.run(["java", "-version"], capture_output=True, text=True, check=True)
    version = re.search(r'version "(\d+)', java.stderr)
    if version is None or int(version[1]) < 17:
        raise OSError(f"Java 17 or newer is needed, found {java.stderr.splitlines()[0]}")
    pom = PROJECT / "tests" / "kafka" / "pom.xml"
    digest = hashlib.sha256(pom.read_bytes()).hexdigest()[:12]
    jars = PROJECT / ".cache" / f"kafka-{digest}"
    if not jars.exists():
        jars.parent.mkdir(exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix="kafka-", dir=jars.parent))
        command = ["mvn", "-q", "-B", "-f", str(pom), "dependency:copy-dependencies", f"-DoutputDirectory={fresh}"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=600)
        try:
            fresh.rename(jars)
        except OSError:  # another run was quicker
            shutil.rmtree(fresh)
    return jars


@contextmanager
def apache_kafka(jars: Path) -> Iterator[str]:
    """Run one Apache Kafka broker (KRaft) and yield its address."""
    with tempfile.TemporaryDirectory(prefix="recsys-kafka-") as name:
        folder = Path(name)
        port, controller = free_port(), free_port()
        (folder / "server.properties").write_text(
            f"""
            process.roles=broker,controller
            node.id=1
            controller.quorum.bootstrap.servers=127.0.0.1:{controller}
            controller.listener.names=CONTROLLER
            inter.broker.listener.name=PLAINTEXT
            listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
            advertised.listeners=PLAINTEXT://127.0.0.1:{port}
            log.dirs={folder}/data
            offsets.topic.replication.factor=1
            offsets.topic.num.partitions=4
            transaction.state.log.replication.factor=1
            transaction.state.log.min.isr=1
            group.initial.rebalance.delay.ms=0
            auto.create.topics.enable=false
            """
        )
        java = ["java", "-Xms256m", "-Xmx512m", "-cp", f"{jars}/*"]
        properties = str(folder / "server.properties")
        storage = [*java, "kafka.tools.StorageTool"]
        cluster = subprocess.run([*storage, "random-uuid"], capture_output=True, text=True, check=True).stdout.strip()
        subprocess.run(
            [*storage, "format", "-t", cluster, "-c", properties, "--standalone"], check=True, capture_output=True
        )
        log = folder / "kafka.log"
        with running([*java, "kafka.Kafka", properties], log, os.environ) as process:

            def started() -> bool:
                if process.poll() is not None:
                    raise RuntimeError(f"Kafka did not start:\n{log.read_text()[-4000:]}")
                return "Kafka Server started" in log.read_text(errors="replace")

            wait_until(started, "Kafka started", patience_s=120)
            yield f"127.0.0.1:{port}"


@contextmanager
def running(command: list[str], log: Path, environment: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process until the block ends; kill it if it is still there."""
    with log.open("ab") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, env=dict(environment), start_new_session=True
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.kill()
        process.wait()


@dataclass
class Shop:
    """One installation: its own topic, group, key prefix and data folder, and the processes it runs."""

    kafka: KafkaServer
    redis_url: str
    folder: Path
    name: str
    stack: ExitStack
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("RECSYS_")},
            "RECSYS_KAFKA__BOOTSTRAP_SERVERS": self.kafka.address,
            "RECSYS_KAFKA__TOPIC": f"purchases-{self.name}",
            "RECSYS_KAFKA__GROUP_ID": f"recsys-{self.name}",
            "RECSYS_REDIS__URL": self.redis_url,
            "RECSYS_REDIS__PREFIX": f"recsys-{self.name}",
            "RECSYS_DATA_DIR": str(self.folder / "data"),
            "RECSYS_CONSUMER__STATS_INTERVAL_S": "1",
            # A killed member must not keep its partitions for the default 45 s.
            "RECSYS_KAFKA__LIBRDKAFKA": '{"session.timeout.ms": 6000}',
            "RECSYS_MODEL__FACTORS": "8",
            "COLUMNS": "200",
        }

    @property
    def topic(self) -> str:
        """The purchases topic."""
        return self.environment["RECSYS_KAFKA__TOPIC"]

    def start_consumer(self, **settings: str) -> Consumer:
        """Start `python -m consumer` with a log and metrics of its own."""
        port = free_port()
        environment = {**self.environment, "RECSYS_CONSUMER__METRICS_PORT": str(port), **settings}
        log = self.folder / f"consumer-{port}.log"
        command = [sys.executable, "-m", "consumer"]
        process = self.stack.enter_context(running(command, log, environment))
        return Consumer(process, log, port)

    def start_trainer(self, **settings: str) -> Service:
        """Start `python -m trainer`."""
        log = self.folder / f"trainer-{free_port()}.log"
        command = [sys.executable, "-m", "trainer"]
        process = self.stack.enter_context(running(command, log, {**self.environment, **settings}))
        return Service(process, log)

    def run(self, *arguments: str, expect: int = 0, **settings: str) -> subprocess.CompletedProcess[str]:
        """Run `python -m <arguments>` to its end."""
        done = subprocess.run(
            [sys.executable, "-m", *arguments],
            env={**self.environment, **settings},
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == expect, f"exit {done.returncode}, not {expect}:\n{done.stdout}\n{done.stderr}"
        return done

    def recsys(self, *arguments: str, expect: int = 0, **settings: str) -> subprocess.CompletedProcess[str]:
        """Run the operator's command."""
        return self.run("recsys", *arguments, expect=expect, **settings)


@dataclass
class Service:
    """A running process of ours."""

    process: subprocess.Popen[bytes]
    log: Path

    def stop(self) -> int:
        """Send SIGTERM and return the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=_PATIENCE_S)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.process.kill()
        self.process.wait()

    def said(self) -> str:
        """Return the log so far; fail if the process has ended with an error."""
        return self.log.read_text(errors="replace")

    def ensure_running(self) -> None:
        """Fail with the log if the process has ended."""
        assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.said()}"


@dataclass
class Consumer(Service):
    """A running consumer."""

    metrics_port: int

    def metrics(self) -> dict[str, Any]:
        """Return its metrics by name; empty while it starts."""
        from recsys.demo.services import ConsumerProcess

        self.ensure_running()
        return dict(ConsumerProcess(self.process, self.log, self.metrics_port).metrics())

    def await_assigned(self) -> None:
        """Wait until it has partitions."""
        wait_until(lambda: self.metrics().get("partitions", 0) > 0, "the consumer has partitions")
