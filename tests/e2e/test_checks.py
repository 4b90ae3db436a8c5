"""Running services make the checks of `recsys doctor`: logs say once what becomes wrong, metrics all of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest

from recsys.operations import check_watch
from recsys.operations.check_watch import checks_of
from recsys.redis import Service
from tests.conftest import opened_shop
from tests.e2e.test_doctor import altered
from tests.prepared import train_planted
from tests.services import NO_AUTHORITIES, KafkaServer, RedisServer, Shop, wait_until
from tests.services import Service as Process

pytestmark = [pytest.mark.kafka, pytest.mark.real_kafka]
NEVER_WRONG = {"redis-role", "redis-rights", "kafka-rights", "topic-retention"}


@pytest.fixture
def own_shop(kafka: KafkaServer, tmp_path: Path) -> Iterator[Shop]:
    """A shop whose Redis keeps no append-only file."""
    server = RedisServer(tmp_path)
    server.start()
    try:
        with opened_shop(kafka, server.url, tmp_path) as shop:
            yield shop
    finally:
        server.kill()


def failed(url: str) -> dict[str, float]:
    """Return what the metrics at an address say of each check."""
    text = httpx.get(url, timeout=30, verify=NO_AUTHORITIES).text
    found = re.findall(r'^recsys_\w+_check_failed\{check="([\w-]+)"\} (\S+)$', text, flags=re.MULTILINE)
    return {code: float(value) for code, value in found}


def metrics_url(service: Process) -> str:
    """Return where a service has said that its metrics are."""
    found: list[str] = wait_until(lambda: re.findall(r"metrics at (http\S+)", service.said()), "it has named its port")
    return found[-1]


def test_each_service_looks_at_start(own_shop: Shop) -> None:
    train_planted(own_shop)  # an API is not ready without a model
    any_port = {"RECSYS_CONSUMER__METRICS_PORT": "any", "RECSYS_TRAINER__METRICS_PORT": "any"}
    consumer = own_shop.start_consumer(**any_port)
    trainer, api = own_shop.start_trainer(**any_port), own_shop.start_api()
    of_each = ((consumer, metrics_url(consumer)), (trainer, metrics_url(trainer)), (api, f"{api.url}/metrics"))
    for service, url in of_each:
        found = wait_until(partial(all_looked_at, url), "it has looked")
        assert found["redis-append-only"] == 1
        assert {found[code] for code in NEVER_WRONG} == {0}
        (line,) = re.findall(r"INFO .*check redis-append-only: .*", service.said())
        assert "endangered: a restart loses the newest writes" in line
        assert "CONFIG SET appendonly yes" in line
        assert service.stop() == 0


def all_looked_at(url: str) -> dict[str, float] | None:
    """Return what the metrics say once all that is asserted is among it: what is found is noted one by one."""
    found = failed(url)
    return found if {"redis-append-only", *NEVER_WRONG} <= found.keys() else None


def test_what_becomes_wrong_is_said_once_and_what_is_right_again_too(
    own_shop: Shop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(check_watch, "LOOK_EVERY_S", 0.05)
    noted: dict[str, bool] = {}
    looks: list[str] = []

    def note(code: str, is_wrong: bool) -> None:
        noted[code] = is_wrong
        looks.append(code)

    def look_again() -> None:
        seen = looks.count("topic-retention")
        wait_until(lambda: looks.count("topic-retention") > seen + 2, "it has looked again")

    def lines() -> list[str]:
        return [record.getMessage() for record in caplog.records if "check topic-retention" in record.getMessage()]

    with checks_of(own_shop.settings(), Service.CONSUMER, note).running():
        look_again()
        assert lines() == []
        altered(own_shop, own_shop.topic, retention_ms="60000")
        wait_until(lambda: noted["topic-retention"], "it is found")
        look_again()
        assert len(lines()) == 1
        assert "records stay for 60 s, and a round comes every 60 min" in lines()[0]
        altered(own_shop, own_shop.topic, retention_ms="604800000")
        wait_until(lambda: not noted["topic-retention"], "it is right again")
        look_again()
        assert len(lines()) == 2
        assert "all is well again" in lines()[1]
