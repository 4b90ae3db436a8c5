"""What the scenarios share: how thorough to be, a trained shop with its oracle, services that may be broken."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

from recsys.redis import open_store
from tests.conftest import opened_shop
from tests.faults.ledger import Ledger, Tally
from tests.prepared import train_planted
from tests.services import ApacheKafka, KafkaServer, RedisServer, Shop, apache_kafka, kafka_jars

FULL = os.environ.get("RECSYS_TEST_FAULTS") == "full"
RESULTS = os.environ.get("RECSYS_TEST_FAULTS_RESULTS")
"""File to which the rows of the table in docs/guarantees.md are appended, one JSON object a line."""


full_only = pytest.mark.skipif(not FULL, reason="only in make faults")


def rounds(short: int, full: int) -> int:
    """Return how often to repeat: ``full`` in `make faults`, ``short`` in `make test-all`."""
    return full if FULL else short


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table in docs/guarantees.md."""

    scenario: int
    title: str
    events: int
    faults: int
    lost: int
    doubled: int
    wrong_lists: int
    recovery_s: float | None


Report = Callable[..., None]


@pytest.fixture
def report() -> Report:
    """Record a scenario's outcome for the table: ``report(1, "title", tally, faults=20, recovery_s=1.2)``."""

    def add(scenario: int, title: str, tally: Tally, *, faults: int, recovery_s: float | None = None) -> None:
        row = Row(scenario, title, **asdict(tally), faults=faults, recovery_s=recovery_s)
        if RESULTS:
            with Path(RESULTS).open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(row)) + "\n")

    return add


@pytest.fixture
def ledger(shop: Shop) -> Iterator[Ledger]:
    """The oracle of a shop with an imported history and a first model."""
    with trained_ledger(shop) as opened:
        yield opened


@pytest.fixture(scope="session")
def breakable_kafka() -> Iterator[ApacheKafka]:
    """A broker of the fault tests' own; whoever breaks it mends it."""
    with apache_kafka(kafka_jars()) as broker:
        yield broker


@pytest.fixture
def breakable_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis server of the test's own that keeps every acknowledged write on disk."""
    server = RedisServer(tmp_path, "--appendonly", "yes", "--appendfsync", "always")
    server.start()
    try:
        yield server
    finally:
        server.kill()


@contextmanager
def opened_ledger(kafka: KafkaServer, redis_url: str, folder: Path, *, seed: int, users: int = 40) -> Iterator[Ledger]:
    """Open a trained shop on servers of one's own."""
    with opened_shop(kafka, redis_url, folder) as shop, trained_ledger(shop, seed=seed, users=users) as opened:
        yield opened


@contextmanager
def trained_ledger(shop: Shop, *, seed: int = 1, users: int = 40, recurring: bool = False) -> Iterator[Ledger]:
    """Import a history, make the first model, and open the shop's oracle."""
    shop.environment["RECSYS_TRAINER__HOLDOUT_DAYS"] = "0"  # no gate: these purchases are drawn at random
    train_planted(shop)
    settings = shop.settings()
    with open_store(settings) as store:
        yield Ledger(shop, settings, store, seed=seed, users=users, recurring=recurring)
