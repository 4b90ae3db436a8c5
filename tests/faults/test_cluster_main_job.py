"""Scenario 9: the tests of the main job, every one, on a Redis Cluster."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import opened_shop
from tests.e2e.test_main_job import *  # noqa: F403 - the tests, to be run here once more, with the shop below
from tests.faults.conftest import FULL
from tests.services import KafkaServer, RedisCluster, Shop

if not FULL:
    pytest.skip("only in the full size", allow_module_level=True)


@pytest.fixture
def shop(kafka: KafkaServer, redis_cluster: RedisCluster, tmp_path: Path) -> Iterator[Shop]:
    """An installation of its own, on the cluster."""
    with opened_shop(kafka, redis_cluster.url, tmp_path) as shop:
        shop.environment["RECSYS_REDIS__CLUSTER"] = "true"
        yield shop
