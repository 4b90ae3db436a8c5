"""The real services that tests run against: Apache Kafka, Redis, and this project's own processes."""

from __future__ import annotations

import base64
import hashlib
import os
import random
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import httpx
import redis

from recsys.demo.services import ConsumerProcess, find_redis_server
from recsys.kafka.embedded import embedded_broker
from recsys.settings import Settings, load_settings
from tests.preloaded import ForkedProcess, can_fork, run_module
from tests.shared_servers import SharedServers, StartedServer

PROJECT = Path(__file__).parent.parent
IN_CI = os.environ.get("CI") == "true"
_PATIENCE_S = 240.0
"""So long that only what hangs exceeds it, however busy the machine is."""
NO_AUTHORITIES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For requests without TLS: each would read all certificates of the system, which takes a hundred times as long."""
Process = subprocess.Popen[bytes] | ForkedProcess
T = TypeVar("T")
K = TypeVar("K", bound="ApacheKafka")


def wait_until(condition: Callable[[], T | None], what: str, patience_s: float = _PATIENCE_S) -> T:
    """Return the first true result of ``condition``, asked again and again; fail when patience ends.

    What takes long to ask is asked less often: for that it waits must not wait for the asking.
    """
    until = time.monotonic() + patience_s
    while True:
        asked = time.monotonic()
        if result := condition():
            return result
        answered = time.monotonic()
        if answered > until:
            raise AssertionError(f"after {patience_s:g} s still not: {what}")
        time.sleep(min(max(0.02, 2 * (answered - asked)), 0.5))


def freeze(process: Process) -> None:
    """Stop a process by SIGSTOP: on a busy machine its threads go on for a while after the signal."""
    process.send_signal(signal.SIGSTOP)
    await_standing(process)


def await_standing(process: Process) -> None:
    """Wait until a process stands still, with all its threads."""
    threads = Path(f"/proc/{process.pid}/task")

    def stands() -> bool:
        try:
            return all("\nState:\tT" in (thread / "status").read_text() for thread in threads.iterdir())
        except (FileNotFoundError, ProcessLookupError):  # a thread has ended meanwhile
            return process.poll() is not None

    wait_until(stands, f"process {process.pid} stands")


def catches(process: Process, number: signal.Signals) -> bool:
    """Whether the process has a handler of this signal, or has ended."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return bool(int(status.split("\nSigCgt:")[1].split()[0], 16) >> (number - 1) & 1)


@dataclass(frozen=True, slots=True)
class KafkaServer:
    """A broker for tests."""

    address: str
    is_real: bool
    description: str


@contextmanager
def kafka_server(shared: SharedServers | None = None) -> Iterator[KafkaServer]:
    """Find or start a broker: RECSYS_TEST_KAFKA, else Apache Kafka on Java 17, else (not in CI) the embedded one.

    Apache Kafka is started once for all to whom it is ``shared``.
    """
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
    if shared is not None:
        started = shared.get("kafka", partial(_started_kafka, jars))
        yield KafkaServer(started.address, True, started.description)
        return
    with apache_kafka(jars) as broker:
        yield KafkaServer(broker.address, True, _APACHE_KAFKA)


_APACHE_KAFKA = "Apache Kafka 4.1.1, started for these tests"


def _started_kafka(jars: Path, folder: Path) -> StartedServer:
    broker = ApacheKafka(jars, folder)
    broker.start()
    return StartedServer(broker.address, _APACHE_KAFKA)


def started_redis(folder: Path) -> StartedServer:
    """Start a Redis server; whoever asked for it ends it."""
    server = RedisServer(folder)
    server.start()
    return StartedServer(server.url, "a Redis server, started for these tests")


def kafka_jars() -> Path:
    """Fetch the broker's jars with Maven, once."""
    java = subprocess.run(["java", "-version"], capture_output=True, text=True, check=True)
    version = re.search(r'version "(\d+)', java.stderr)
    if version is None or int(version[1]) < 17:
        raise OSError(f"Java 17 or newer is needed, found {java.stderr.splitlines()[0]}")
    return from_maven("kafka")


def from_maven(name: str, unpack: Callable[[Path], None] = lambda folder: None) -> Path:
    """Fetch what the POM of `tests/<name>` asks for, once, and unpack it; return the folder where it is."""
    pom = PROJECT / "tests" / name / "pom.xml"
    digest = hashlib.sha256(pom.read_bytes()).hexdigest()[:12]
    folder = (PROJECT / ".cache").resolve() / f"{name}-{digest}"
    if not folder.exists():
        folder.parent.mkdir(exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=folder.parent))
        command = ["mvn", "-q", "-B", "-f", str(pom), "dependency:copy-dependencies", f"-DoutputDirectory={fresh}"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=600)
        unpack(fresh)
        try:
            fresh.rename(folder)
        except OSError:  # another run was quicker
            shutil.rmtree(fresh)
    return folder


def _class_archive(jars: Path) -> Path:
    """Return the broker's classes as Java maps them into memory: with them it starts in a third of the time.

    They are made once and kept beside the jars. Java passes over those that another Java or other jars have made.
    """
    archive = jars.with_name(f"{jars.name}.jsa")
    with SharedServers(jars.parent).alone(jars.name):
        if not archive.exists():
            unfinished = archive.with_suffix(".unfinished")
            with tempfile.TemporaryDirectory(prefix="recsys-kafka-") as name:
                broker = ApacheKafka(jars, Path(name), f"-XX:ArchiveClassesAtExit={unfinished}")
                broker.start()
                broker.stop()
            unfinished.rename(archive)
    return archive


class OwnServer:
    """A server in a process of its own, which may be killed, started again, and made to stand still."""

    _process: subprocess.Popen[bytes] | None = None

    def is_alive(self) -> bool:
        """Whether it has been started and not ended."""
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """Send SIGKILL."""
        if self._process is not None:
            end_process(self._process)

    def freeze(self) -> None:
        """Send SIGSTOP, and return when it stands: connections stay, nothing answers."""
        if self._process is not None:
            freeze(self._process)

    def thaw(self) -> None:
        """Send SIGCONT."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)


class ApacheKafka(OwnServer):
    """One Apache Kafka broker (KRaft) on ports and a folder of its own; it may be killed and started again.

    Parameters
    ----------
    jars, folder : Path
    class_archive : str, optional
        Java's option that names the archive of classes to use or to make; by default the one of these jars is used.
    """

    def __init__(self, jars: Path, folder: Path, class_archive: str | None = None) -> None:
        self._folder = folder
        self._java = [
            "java", "-Xms256m", "-Xmx512m", class_archive or f"-XX:SharedArchiveFile={_class_archive(jars)}",
            "-Xlog:cds=off", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC",  # other compilers pay in the long run only
            "-cp", f"{jars}/*",
        ]  # fmt: skip
        self._properties = str(folder / "server.properties")
        self.port, controller = kept_port(), kept_port()
        self.address = f"127.0.0.1:{self.port}"
        properties = self.properties(folder, controller)
        Path(self._properties).write_text("".join(f"{name}={value}\n" for name, value in properties.items()))
        cluster = base64.urlsafe_b64encode(b"\0" + os.urandom(15)).decode().rstrip("=")
        tool = [*self._java, "kafka.tools.StorageTool", "format", "-t", cluster, "-c", self._properties, "--standalone"]
        subprocess.run(tool, check=True, capture_output=True)

    def properties(self, folder: Path, controller_port: int) -> dict[str, object]:
        """Return the broker's configuration."""
        return {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.bootstrap.servers": f"127.0.0.1:{controller_port}",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "listeners": f"PLAINTEXT://{self.address},CONTROLLER://127.0.0.1:{controller_port}",
            "advertised.listeners": f"PLAINTEXT://{self.address}",
            "log.dirs": f"{folder}/data",
            "offsets.topic.replication.factor": 1,
            "offsets.topic.num.partitions": 4,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "group.initial.rebalance.delay.ms": 0,
            "group.min.session.timeout.ms": 1000,
            "auto.create.topics.enable": "false",
        }

    def start(self) -> None:
        """Start the broker and wait until it serves."""
        log = self._folder / f"kafka-{time.monotonic_ns()}.log"
        process = self._process = start_process([*self._java, "kafka.Kafka", self._properties], log, os.environ)

        def started() -> bool:
            if process.poll() is not None:
                raise RuntimeError(f"Kafka did not start:\n{log.read_text()[-4000:]}")
            return "Kafka Server started" in log.read_text(errors="replace")

        wait_until(started, "Kafka started")

    def stop(self) -> None:
        """Send SIGTERM, and wait until it has ended."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(timeout=_PATIENCE_S)


def apache_kafka(jars: Path) -> AbstractContextManager[ApacheKafka]:
    """Run one Apache Kafka broker until the block ends."""
    return running_kafka(ApacheKafka, jars)


@contextmanager
def running_kafka(kind: type[K], jars: Path) -> Iterator[K]:
    """Run a broker of some kind until the block ends."""
    with tempfile.TemporaryDirectory(prefix="recsys-kafka-") as name:
        broker = kind(jars, Path(name))
        broker.start()
        try:
            yield broker
        finally:
            broker.kill()


class RedisServer(OwnServer):
    """A real Redis server on a port and a folder of its own; it may be killed and started again.

    Parameters
    ----------
    folder : Path
    options : str
        As on the command line, such as ``"--appendonly", "yes"``; without any, nothing is kept on disk.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        self.port = kept_port()
        self.folder = folder / f"redis-{self.port}"
        self.folder.mkdir(parents=True)
        self.options = options
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.client: Any = redis.Redis.from_url(self.url, socket_timeout=5, retry=None)

    def start(self, *options: str) -> None:
        """Start the server and wait until it answers."""
        command = [
            find_redis_server(), "--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.folder),
            "--save", "", "--appendonly", "no", *self.options, *options,
        ]  # fmt: skip
        process = self._process = start_process(command, self.folder / "redis.log", os.environ)

        def answers() -> bool:
            if process.poll() is not None:
                raise RuntimeError(f"Redis did not start:\n{(self.folder / 'redis.log').read_text()[-4000:]}")
            try:
                return bool(self.client.ping())
            except redis.RedisError:
                return False

        wait_until(answers, "Redis answers")


class RedisCluster:
    """A real Redis Cluster on loopback: masters that share the slots evenly, and replicas of them.

    Parameters
    ----------
    folder : Path
    options : str
        Of each node, as on the command line.
    masters : int
    replicas : int
        For each master.
    """

    def __init__(self, folder: Path, *options: str, masters: int = 3, replicas: int = 0) -> None:
        options = (
            "--cluster-enabled",
            "yes",
            "--cluster-node-timeout",
            "2000",
            "--repl-diskless-sync-delay",
            "0",
            *options,
        )
        self.nodes = [RedisServer(folder, *options) for _ in range(masters * (1 + replicas))]
        self._folder = folder
        self._options = options
        self._masters = masters
        self.url = self.nodes[0].url

    def start(self) -> None:
        """Start all nodes, make them one cluster, and wait until it serves."""
        for node in self.nodes:
            node.start()
        masters, replicas = self.nodes[: self._masters], self.nodes[self._masters :]
        for number, master in enumerate(masters):
            slots = range(_SLOTS * number // len(masters), _SLOTS * (number + 1) // len(masters))
            master.client.execute_command("CLUSTER ADDSLOTS", *slots)
            master.client.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
        self._meet(*self.nodes[1:])
        for number, replica in enumerate(replicas):
            replica.client.execute_command("CLUSTER REPLICATE", self.id_of(masters[number % len(masters)]))
        self.await_whole()

    def join(self) -> RedisServer:
        """Start one more master, without slots."""
        node = RedisServer(self._folder, *self._options)
        self.nodes.append(node)
        node.start()
        self._meet(node)
        self.await_whole()
        return node

    def _meet(self, *newcomers: RedisServer) -> None:
        for node in newcomers:
            node.client.execute_command("CLUSTER MEET", "127.0.0.1", self.nodes[0].port)
        wait_until(lambda: all(len(self._known_to(node)) == len(self.nodes) for node in self.nodes), "the nodes meet")

    def kill(self) -> None:
        """Send SIGKILL to all nodes."""
        for node in self.nodes:
            node.kill()

    def await_whole(self) -> None:
        """Wait until every node is up, serves or follows its master, and knows that the others do."""

        def whole() -> bool:
            states = [node.client.execute_command("CLUSTER INFO")["cluster_state"] for node in self.nodes]
            links = [node.client.info("replication").get("master_link_status", "up") for node in self.nodes]
            fine = all("fail" not in known["flags"] for node in self.nodes for known in self._known_to(node))
            return fine and set(states) == {"ok"} and set(links) == {"up"}

        wait_until(whole, "the cluster is whole")

    def await_promoted(self, replica: RedisServer) -> None:
        """Wait until every node that is alive takes a replica for a master, and serves."""

        def promoted() -> bool:
            name = self.id_of(replica)
            for node in self.nodes:
                if node.is_alive():
                    (known,) = (known for known in self._known_to(node) if known["node_id"] == name)
                    if not known["slots"] or node.client.execute_command("CLUSTER INFO")["cluster_state"] != "ok":
                        return False
            return True

        wait_until(promoted, "the replica is promoted")

    def masters(self) -> list[RedisServer]:
        """Return the nodes that are alive and masters, in no order."""
        return [node for node in self.nodes if node.is_alive() and node.client.info("replication")["role"] == "master"]

    def master_of(self, slot: int) -> RedisServer:
        """Return the master that says it owns a slot."""
        for master in self.masters():
            (own,) = (known for known in self._known_to(master) if "myself" in known["flags"])
            if any(int(part[0]) <= slot <= int(part[-1]) for part in own["slots"]):
                return master
        raise AssertionError(f"no master owns slot {slot}")

    def replica_of(self, master: RedisServer) -> RedisServer:
        """Return a replica of a master."""
        for node in self.nodes:
            replication = node.client.info("replication") if node.is_alive() else {}
            if replication.get("master_port") == master.port:
                return node
        raise AssertionError(f"the node at port {master.port} has no replica")

    def open_slot(self, slot: int, target: RedisServer) -> RedisServer:
        """Begin to move a slot; return the master that it moves away from."""
        source = self.master_of(slot)
        target.client.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", self.id_of(source))
        source.client.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", self.id_of(target))
        return source

    def move_key(self, key: bytes, source: RedisServer, target: RedisServer) -> None:
        """Move a key of an open slot."""
        source.client.migrate("127.0.0.1", target.port, key, 0, 5000)

    def close_slot(self, slot: int, target: RedisServer) -> None:
        """End a move: the slot is the target's."""
        for node in [target, *(master for master in self.masters() if master is not target)]:
            node.client.execute_command("CLUSTER SETSLOT", slot, "NODE", self.id_of(target))

    def keys_in(self, slot: int) -> list[bytes]:
        """Return the keys of a slot that its owner has."""
        keys: list[bytes] = self.master_of(slot).client.execute_command("CLUSTER GETKEYSINSLOT", slot, 10_000)
        return keys

    def errors(self, name: str) -> int:
        """Return how often the nodes have answered an error such as ASK, since each was started."""
        statistics = [node.client.info("errorstats") for node in self.nodes if node.is_alive()]
        return sum(found.get(f"errorstat_{name}", {"count": 0})["count"] for found in statistics)

    def id_of(self, node: RedisServer) -> str:
        """Return a node's id."""
        return str(node.client.execute_command("CLUSTER MYID").decode())

    def _known_to(self, node: RedisServer) -> list[dict[str, Any]]:
        known = node.client.execute_command("CLUSTER NODES").values()
        return [other for other in known if "handshake" not in other["flags"]]


_SLOTS = 16384


_PORTS = range(10_000, 20_000)
_BUS_OFFSET = 10_000
_kept: list[socket.socket] = []
"""Bound to the ports of servers that may be killed and started again, until this process ends; none ever listens."""


def kept_port() -> int:
    """Return a port for a server that comes and goes; it, and the one of a cluster's own traffic, stay its own.

    On Linux a socket that is bound without listening keeps everyone away who does not ask for SO_REUSEADDR: probes for
    a free port, of this run and of others, and the system when it gives a port to a client. Servers do ask for it.
    """
    while True:
        port = random.choice(_PORTS)
        own, bus = socket.socket(), socket.socket()
        with ExitStack() as unless_kept:
            unless_kept.callback(bus.close)
            unless_kept.callback(own.close)
            try:
                own.bind(("127.0.0.1", port))
                bus.bind(("127.0.0.1", port + _BUS_OFFSET))
            except OSError:
                continue
            if sys.platform == "linux":  # elsewhere they would keep the server away as well
                for bound in (own, bus):
                    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                _kept.extend((own, bus))
                unless_kept.pop_all()
        return port


def start_process(command: list[str], log: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own, its output appended to a log."""
    with log.open("ab") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, env=dict(environment), start_new_session=True
        )
    _end_with_the_run(process)
    return process


def _end_with_the_run(process: Process) -> None:
    if (shared := SharedServers.of_this_run()) is not None:
        shared.ends_with_the_run(process.pid)


def end_process(process: Process) -> None:
    """Kill a process that is still there."""
    if process.poll() is None:
        process.send_signal(signal.SIGCONT)
        process.kill()
    process.wait()


@contextmanager
def running(command: list[str], log: Path, environment: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process until the block ends; kill it if it is still there."""
    process = start_process(command, log, environment)
    try:
        yield process
    finally:
        end_process(process)


@contextmanager
def running_service(module: str, log: Path, environment: Mapping[str, str], *, forked: bool) -> Iterator[Process]:
    """Run `python -m <module>` until the block ends, if it may be forked from a process that has its libraries."""
    if not (forked and can_fork(environment)):
        with running([sys.executable, "-m", module], log, environment) as process:
            yield process
        return
    started = ForkedProcess(module, [], environment=environment, folder=Path.cwd(), out=log, err=log)
    _end_with_the_run(started)
    try:
        yield started
    finally:
        end_process(started)


@dataclass
class Shop:
    """One installation: its own topic, group, key prefix and data folder, and the processes it runs.

    Its services are forked from a process that has imported their libraries. Where ``forked`` is made false, and in
    `make faults`, they start as `python -m` starts them.
    """

    kafka: KafkaServer
    redis_url: str
    folder: Path
    name: str
    stack: ExitStack
    environment: dict[str, str] = field(default_factory=dict)
    forked: bool = os.environ.get("RECSYS_TEST_FAULTS") != "full"

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
            "RECSYS_TRAINER__NICENESS": "0",  # else it would wait for all other tests on a busy machine
            # A killed member must not keep its partitions for the default 45 s.
            "RECSYS_KAFKA__LIBRDKAFKA": '{"session.timeout.ms": 6000}',
            "RECSYS_MODEL__FACTORS": "8",
            "RECSYS_LOG__FORMAT": "text",
            "COLUMNS": "200",
        }

    def settings(self) -> Settings:
        """Return the settings that its processes have."""
        before = dict(os.environ)
        try:
            for name in [name for name in os.environ if name.startswith("RECSYS_")]:
                del os.environ[name]
            os.environ.update({name: v for name, v in self.environment.items() if name.startswith("RECSYS_")})
            return load_settings()
        finally:
            os.environ.clear()
            os.environ.update(before)

    @property
    def topic(self) -> str:
        """The purchases topic."""
        return self.environment["RECSYS_KAFKA__TOPIC"]

    def start_consumer(self, **settings: str) -> Consumer:
        """Start `python -m consumer` with a log and metrics of its own."""
        return Consumer(*self._started("consumer", {"RECSYS_CONSUMER__METRICS_PORT": "any", **settings}))

    def start_trainer(self, **settings: str) -> Service:
        """Start `python -m trainer`."""
        return Service(*self._started("trainer", settings))

    def start_api(self, **settings: str) -> Api:
        """Start `python -m api` on a port of its own, and wait until it is ready to serve."""
        api = Api(*self._started("api", {"RECSYS_API__PORT": "0", **settings}))
        wait_until(api.is_ready, "the API is ready")
        return api

    def _started(self, service: str, settings: dict[str, str]) -> tuple[Process, Path]:
        log = self._new_log(service)
        running = running_service(service, log, {**self.environment, **settings}, forked=self.forked)
        return self.stack.enter_context(running), log

    def _new_log(self, service: str) -> Path:
        return self.folder / f"{service}-{uuid.uuid4().hex[:8]}.log"

    def run(self, *arguments: str, expect: int | None = 0, **settings: str) -> subprocess.CompletedProcess[str]:
        """Run `python -m <arguments>` to its end; fail unless the exit code is the expected one, None for any."""
        module, *rest = arguments
        environment = {**self.environment, **settings}
        done = run_module(module, rest, environment=environment, folder=self.folder, timeout_s=240)
        assert expect in (None, done.returncode), f"exit {done.returncode}, not {expect}:\n{done.stdout}\n{done.stderr}"
        return done

    def recsys(self, *arguments: str, expect: int | None = 0, **settings: str) -> subprocess.CompletedProcess[str]:
        """Run the operator's command."""
        return self.run("recsys", *arguments, expect=expect, **settings)


@dataclass
class Service:
    """A running process of ours."""

    process: Process
    log: Path

    def await_killed(self) -> None:
        """Wait until it has been killed, as by a fail point."""
        assert self.process.wait(timeout=_PATIENCE_S) == -signal.SIGKILL, self.said()

    def await_standing(self) -> None:
        """Wait until it stands still, as by a fail point."""
        await_standing(self.process)

    def freeze(self) -> None:
        """Send SIGSTOP, and return when it stands."""
        freeze(self.process)

    def thaw(self) -> None:
        """Send SIGCONT."""
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> int:
        """Send SIGTERM and return the exit code; a process that has only just begun is given time to listen to it."""
        wait_until(
            lambda: self.process.poll() is not None or catches(self.process, signal.SIGTERM), "it listens to SIGTERM"
        )
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=_PATIENCE_S)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.process.kill()
        self.process.wait()

    def said(self) -> str:
        """Return the log so far."""
        return self.log.read_text(errors="replace")

    def lines(self) -> list[str]:
        """Return the lines that it has logged of its work: what its checks find comes when they come to it."""
        return [line for line in self.said().splitlines() if " recsys.operations.check_watch: " not in line]

    def await_saying(self, words: str) -> None:
        """Wait until the log holds these words."""
        wait_until(lambda: words in self.said(), f"the log says: {words}")

    def ensure_running(self) -> None:
        """Fail with the log if the process has ended."""
        assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.said()}"


@dataclass
class Api(Service):
    """A running API."""

    @property
    def url(self) -> str:
        """Where it listens, as its log says."""
        addresses: list[str] = re.findall(r"(?:running|listening) on (http://[\w.:]+)", self.said())
        return addresses[-1]

    def is_ready(self) -> bool:
        """Whether all is there to serve."""
        self.ensure_running()
        if " on http://" not in self.said():
            return False
        try:
            return httpx.get(f"{self.url}/readyz", timeout=5, verify=NO_AUTHORITIES).status_code == 200
        except httpx.TransportError:
            return False


@dataclass
class Consumer(Service):
    """A running consumer."""

    def metrics(self) -> dict[str, Any]:
        """Return its metrics by name; empty while it starts."""
        self.ensure_running()
        return dict(ConsumerProcess(cast("subprocess.Popen[bytes]", self.process), self.log).metrics())

    def await_assigned(self, partitions: int = 1) -> None:
        """Wait until it has so many partitions, or more."""
        wait_until(lambda: self.metrics().get("partitions", 0) >= partitions, f"it has {partitions} partitions")

    def logged(self, counter: str) -> int:
        """Return the sum of a counter over its log lines; complete once it has ended by itself."""
        return sum(int(count) for count in re.findall(rf"consumer\.stats: .*\b{counter}=(\d+)", self.said()))
