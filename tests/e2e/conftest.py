"""Shops with an API, one for all tests of a module: each uses users of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from recsys.redis import Store, open_store
from tests.api import PATIENT, Asked, asked_by, prepare
from tests.conftest import opened_shop
from tests.services import Api, KafkaServer, RedisServer, Shop


@pytest.fixture(scope="module")
def api_shop(kafka: KafkaServer, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """One shop for all of this module: tests have users of their own."""
    with opened_shop(kafka, redis_url, tmp_path_factory.mktemp("api-shop")) as shop:
        prepare(shop)
        shop.start_trainer()
        shop.start_consumer().await_assigned()
        yield shop


@pytest.fixture(scope="module")
def api(api_shop: Shop) -> Api:
    return api_shop.start_api(RECSYS_API__WORKERS="2", **PATIENT)


@pytest.fixture(scope="module")
def api_store(api_shop: Shop) -> Iterator[Store]:
    with open_store(api_shop.settings()) as opened:
        yield opened


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis with an append-only file, as `recsys doctor` wants it."""
    server = RedisServer(tmp_path, "--appendonly", "yes")
    server.start()
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture
def compiled(shop: Shop) -> None:
    """Nothing is left to compile: where it is the first time, services that start side by side each would do it."""
    prepare(shop)


@pytest.fixture
def reader(api: Api) -> Asked:
    return asked_by(api, "read")
