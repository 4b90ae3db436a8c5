"""Fixtures: real services, and shops that share them without meeting."""

from __future__ import annotations

import logging
import shutil
import signal
import subprocess
import threading
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from recsys.redis import Store, open_store
from recsys.runtime.logs import RepeatsLeftOut
from recsys.settings import Settings, load_settings, secrets
from tests.secured import SecuredKafka, secured_kafka
from tests.services import IN_CI, KafkaServer, RedisCluster, Shop, kafka_jars, kafka_server, started_redis
from tests.shared_servers import SharedServers

PARTITIONS = 4
_OUR_LOGGERS = {"recsys", "api", "consumer", "trainer", "librdkafka", "tests"}


_SHARED = pytest.StashKey[SharedServers]()


def pytest_configure(config: pytest.Config) -> None:
    """Share servers with the workers that pytest-xdist starts after this."""
    if hasattr(config, "workerinput"):  # this is such a worker
        return
    config.stash[_SHARED] = SharedServers.begin()
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False  # it would begin with files of many tests, and end with long ones alone
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does: in good order
    # Where this runs in the background of a script, it ignores Ctrl-C, and so would all that tests start.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give the tests of a file to one worker, which makes once what they share; what shares nothing goes anywhere."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFileOrTest(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return nodeid if file.startswith(_MOSTLY_ALONE) and file not in _SHARES else file

        def _reschedule(self, node: Any) -> None:
            # A worker needs to know one more test than the one that it runs. Whatever else it had would wait for it.
            if not self.workqueue or self._pending_of(self.assigned_work[node]) <= 1:
                super()._reschedule(node)

        def _assign_work_unit(self, node: Any) -> None:
            if len(self.assigned_work[node]) == 1:  # it waits behind one of the longest: the last, which are short
                self.workqueue.move_to_end(next(reversed(self.workqueue)), last=False)
            super()._assign_work_unit(node)

    return ByFileOrTest(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest: side by side, a run is over when its last test is."""

    def place(item: pytest.Item) -> int:
        return next(
            (at for at, start in enumerate(_LONGEST_FIRST) if item.nodeid.startswith(start)), len(_LONGEST_FIRST)
        )

    items.sort(key=place)
    for item in items:
        _ensure_known_to_share(item)


def _ensure_known_to_share(item: pytest.Item) -> None:
    """Fail if workers would each make for themselves what a file makes once."""
    file = item.nodeid.partition("::")[0]
    if file.startswith(_MOSTLY_ALONE) and file not in _SHARES and isinstance(item, pytest.Function):
        fixtures = [fixture for found in item._fixtureinfo.name2fixturedefs.values() for fixture in found]
        if shared := sorted(fixture.argname for fixture in fixtures if fixture.scope == "module"):
            raise pytest.UsageError(f"{file}: name it in _SHARES; its tests share {', '.join(shared)}")


_LONGEST_FIRST = (
    "tests/e2e/test_readme.py::test_blocks_run_as_written_in_order",
    "tests/e2e/test_demo.py",
    "tests/faults/test_soak.py",
    "tests/e2e/test_api_limits.py",
    "tests/e2e/test_api_connections.py",
    "tests/faults/test_cluster.py",
    "tests/e2e/test_api_keys.py",
    "tests/e2e/test_api.py",
    "tests/integration/test_cluster.py",
    "tests/faults/",
    "tests/e2e/",
    "tests/unit/test_tuning.py",
    "tests/integration/",
)
_MOSTLY_ALONE = ("tests/e2e/", "tests/faults/")
_SHARES = {
    "tests/e2e/test_api.py",
    "tests/e2e/test_api_connections.py",
    "tests/e2e/test_api_keys.py",
    "tests/e2e/test_api_limits.py",
    "tests/faults/test_cluster.py",
}
"""Files there with something that is made once for all their tests."""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say what the tests ran against."""
    for server in config.stash[_SHARED].started():
        terminalreporter.write_line(f"shared by all tests: {server.description}")


def pytest_unconfigure(config: pytest.Config) -> None:
    """End what has been shared, after all workers."""
    if _SHARED in config.stash:
        config.stash[_SHARED].end()


@pytest.fixture(scope="session")
def shared() -> SharedServers:
    """The servers that all workers of this run share."""
    found = SharedServers.of_this_run()
    assert found is not None
    return found


@pytest.fixture(scope="session")
def redis_url(shared: SharedServers) -> str:
    """A real Redis server of this run."""
    return shared.get("redis", started_redis).address


@pytest.fixture(scope="session")
def redis_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    """A real Redis Cluster of this run: three masters. Whoever moves slots leaves none half moved."""
    cluster = RedisCluster(tmp_path_factory.mktemp("cluster"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.kill()


@pytest.fixture(scope="session")
def kafka(shared: SharedServers) -> Iterator[KafkaServer]:
    """A broker of this run."""
    with kafka_server(shared) as server:
        yield server


@pytest.fixture(scope="session")
def secured() -> Iterator[SecuredKafka]:
    """A Kafka of this process with users, rights and TLS; topics and users have names that no other test uses."""
    try:
        jars = kafka_jars()
    except (OSError, subprocess.CalledProcessError) as error:
        if IN_CI:
            raise
        pytest.skip(f"no Apache Kafka here: {error}")
    with secured_kafka(jars) as server:
        yield server


@pytest.fixture(autouse=True)
def _process_as_it_was() -> Iterator[None]:
    """A test that loads settings, or calls a command here, leaves neither secrets to hide nor loggers that are set."""
    known, before = secrets._known, {logger: (logger.level, logger.disabled) for logger in _loggers()}
    yield
    secrets._known = known
    for logger in _loggers():
        level, logger.disabled = before.get(logger, (logging.NOTSET, False))
        logger.setLevel(level)
        for filter_ in logger.filters:
            if isinstance(filter_, RepeatsLeftOut):
                filter_._said.clear()


@pytest.fixture(autouse=True)
def _log_of_this_test(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """`caplog` holds what our own code says in this test: no library, and no thread that another test has left."""
    others = set(threading.enumerate()) - {threading.current_thread()}

    def is_of_this_test(record: logging.LogRecord) -> bool:
        return record.name.partition(".")[0] in _OUR_LOGGERS and threading.current_thread() not in others

    caplog.handler.addFilter(is_of_this_test)
    yield
    caplog.handler.removeFilter(is_of_this_test)


def _loggers() -> list[logging.Logger]:
    known = logging.Logger.manager.loggerDict.values()
    return [logging.getLogger(), *(logger for logger in known if isinstance(logger, logging.Logger))]


@pytest.fixture(autouse=True)
def _real_kafka_if_needed(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("real_kafka") and not request.getfixturevalue("kafka").is_real:
        pytest.skip("the embedded broker cannot do what this needs")


@pytest.fixture
def shop(kafka: KafkaServer, redis_url: str, tmp_path: Path) -> Iterator[Shop]:
    """An installation of its own: topics, group, prefix, folder; its processes end with the test."""
    with opened_shop(kafka, redis_url, tmp_path) as shop:
        yield shop


@contextmanager
def opened_shop(kafka: KafkaServer, redis_url: str, folder: Path) -> Iterator[Shop]:
    """Open an installation with its topics."""
    with ExitStack() as stack:
        shop = Shop(kafka, redis_url, folder, uuid.uuid4().hex[:8], stack)
        admin = AdminClient({"bootstrap.servers": kafka.address})
        topics = [shop.topic, f"{shop.topic}.dlq"]
        if kafka.is_real:
            for created in admin.create_topics([NewTopic(topic, PARTITIONS) for topic in topics]).values():
                created.result()
        else:
            for topic in topics:
                admin.list_topics(topic, timeout=10)  # asking creates it
        yield shop


@pytest.fixture
def settings(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The shop's settings, in this process."""
    for name, value in shop.environment.items():
        if name.startswith("RECSYS_"):
            monkeypatch.setenv(name, value)
    return load_settings()


@pytest.fixture(params=["server", "cluster"])
def store_settings(request: pytest.FixtureRequest) -> Settings:
    """Settings of a store under a prefix of its own, on a single server and on a cluster."""
    on_cluster = request.param == "cluster"
    url = request.getfixturevalue("redis_cluster").url if on_cluster else request.getfixturevalue("redis_url")
    return Settings.model_validate(
        {
            "redis": {"url": url, "cluster": on_cluster, "prefix": f"recsys-{uuid.uuid4().hex[:8]}"},
            "history": {"max_items": 5, "max_event_ids": 6},
        }
    )


@pytest.fixture
def store(store_settings: Settings) -> Iterator[Store]:
    """A store; needs no Kafka."""
    with open_store(store_settings) as opened:
        yield opened


@pytest.fixture(scope="session")
def kcat() -> str:
    """The kcat program: a Kafka client that nobody here wrote."""
    path = shutil.which("kcat") or shutil.which("kafkacat")
    if path is None:
        if IN_CI:
            pytest.fail("kcat is required in CI; apt-get install kcat")
        pytest.skip("kcat is not installed (apt-get install kcat)")
    return path
