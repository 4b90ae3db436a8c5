"""Scenario 16: what the HTTP API depends on is away."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest

from recsys.errors import ApiError
from tests.api import KEY_SETTING, KEYS, PATIENT, Asked, asked_by, prepare
from tests.conftest import opened_shop
from tests.faults.conftest import Report
from tests.faults.ledger import Tally
from tests.services import NO_AUTHORITIES, ApacheKafka, Api, KafkaServer, RedisServer, wait_until

pytestmark = pytest.mark.real_kafka
LIST = "/v1/users/user-1/recommendations?n=5"


class Load:
    """Asks for one list over and over, on one connection, until the block ends."""

    def __init__(self, api: Api) -> None:
        self._url, self._stop = api.url, threading.Event()
        self.statuses: list[int] = []
        self.stale = 0
        self.broken: list[str] = []

    def __enter__(self) -> Load:
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        with httpx.Client(
            base_url=self._url, headers={"Authorization": f"Bearer {KEYS['read']}"}, timeout=20, verify=NO_AUTHORITIES
        ) as http:
            while not self._stop.is_set():
                try:
                    answer = http.get(LIST)
                except httpx.TransportError as error:
                    self.broken.append(repr(error))
                    continue
                self.statuses.append(answer.status_code)
                self.stale += answer.status_code == 200 and answer.json()["stale"]
                time.sleep(0.005)


@pytest.mark.parametrize("how", ["killed", pytest.param("frozen", marks=pytest.mark.slow)])
def test_redis_is_away_and_lists_are_stale_until_it_is_back(
    kafka: KafkaServer, breakable_redis: RedisServer, tmp_path: Path, report: Report, how: str
) -> None:
    away, back = {
        "killed": (breakable_redis.kill, breakable_redis.start),
        "frozen": (breakable_redis.freeze, breakable_redis.thaw),
    }[how]
    with opened_shop(kafka, breakable_redis.url, tmp_path) as shop:
        prepare(shop)
        api = shop.start_api(RECSYS_REDIS__TIMEOUT_S="1", **KEY_SETTING)
        reader = asked_by(api, "read")
        own = reader.json(LIST)
        popular = reader.json("/v1/popular?n=5")
        with Load(api) as load:
            away()
            wait_until(lambda: reader.json(LIST)["stale"], "lists are stale")
            stale = reader.json(LIST)
            assert (stale["source"], stale["items"]) == ("popular", popular["items"])
            bulk = reader.json("/v1/recommendations", "POST", json={"user_ids": ["user-1", "user-2"], "n": 5})
            assert [result["stale"] for result in bulk["results"]] == [True, True]
            for path in ("/v1/users/user-1/history", "/v1/items/item-001/similar", "/v1/popular"):
                refused = reader(path)
                assert (refused.status_code, refused.json()["type"]) == (503, "urn:recsys:problem:redis-unavailable")
                assert refused.headers["retry-after"]
            assert reader.json("/v1/recommendations/basket", "POST", json={"items": [{"item_id": "item-001"}]})["items"]
            assert Asked(api)("/livez").status_code == 200
            unready = Asked(api)("/readyz")
            assert (unready.status_code, unready.json()["missing"]) == (503, ["redis"])
            back()
            wait_until(lambda: not reader.json(LIST)["stale"], "lists are fresh again")
            wait_until(api.is_ready, "it is ready again")
        assert reader.json(LIST) == own
        assert load.stale
        assert not load.broken
        assert set(load.statuses) == {200}
        report(16, f"HTTP API: Redis {how} under load", Tally(0, 0, 0, 0), faults=1)


@pytest.mark.slow
def test_redis_is_emptied_and_lists_are_stale_until_it_is_rebuilt(
    kafka: KafkaServer, breakable_redis: RedisServer, tmp_path: Path, report: Report
) -> None:
    with opened_shop(kafka, breakable_redis.url, tmp_path) as shop:
        prepare(shop)
        reader = asked_by(shop.start_api(**PATIENT), "read")
        own, popular = reader.json(LIST), reader.json("/v1/popular?n=5")
        breakable_redis.client.flushall()
        stale = reader.json(LIST)
        assert (stale["stale"], stale["items"]) == (True, popular["items"])
        refused = reader("/v1/popular")
        assert (refused.status_code, refused.json()["type"]) == (503, "urn:recsys:problem:no-lists")
        assert "recsys rebuild" in refused.json()["detail"]
        shop.recsys("rebuild")
        assert reader.json(LIST)["items"] == own["items"]
        report(16, "HTTP API: Redis emptied, then rebuilt", Tally(0, 0, 0, 0), faults=1)


@pytest.mark.slow
def test_kafka_is_away_and_what_is_posted_again_counts_once(
    breakable_kafka: ApacheKafka, redis_url: str, tmp_path: Path, report: Report
) -> None:
    server = KafkaServer(breakable_kafka.address, True, "the broker that is broken")
    with opened_shop(server, redis_url, tmp_path) as shop:
        prepare(shop)
        shop.start_consumer().await_assigned()
        api = shop.start_api(RECSYS_KAFKA__TIMEOUT_S="2", **KEY_SETTING)
        with asked_by(api, "operate").client() as client:
            client.purchases([{"user_id": "u", "item_id": "item-001"}])
            wait_until(lambda: client.history("u").total == 1, "it is applied")
            breakable_kafka.freeze()  # it takes what it is sent, and does not say so
            try:
                events = [{"user_id": "u", "item_id": f"item-{number:03d}"} for number in range(2, 7)]
                refused = asked_by(api, "operate")(
                    "/v1/purchases", "POST", json=events, headers={"Idempotency-Key": "an order"}
                )
                assert (refused.status_code, refused.json()["type"]) == (503, "urn:recsys:problem:kafka-unavailable")
                assert [result["status"] for result in refused.json()["results"]] == ["failed"] * 5
                with pytest.raises(ApiError) as told:
                    client.forget("nobody")
                assert told.value.status == 503
                assert client.recommendations("user-1").source == "personal"  # reading goes on
                wait_until(lambda: not api.is_ready(), "it is not ready")
            finally:
                breakable_kafka.thaw()
            wait_until(api.is_ready, "it is ready again")
            client.purchases(events, idempotency_key="an order")
            wait_until(lambda: client.history("u").total == 6, "all are applied")
            quantities = {item.item_id: item.quantity for item in client.history("u").items}
            doubled = sum(quantity > 1 for quantity in quantities.values())
            assert doubled == 0
        report(16, "HTTP API: Kafka frozen, events posted again", Tally(6, 0, doubled, 0), faults=1)
        assert shop.recsys("verify", "--all").returncode == 0


@pytest.mark.slow
def test_a_worker_that_is_killed_is_replaced(kafka: KafkaServer, redis_url: str, tmp_path: Path) -> None:
    with opened_shop(kafka, redis_url, tmp_path) as shop:
        prepare(shop)
        api = shop.start_api(RECSYS_API__WORKERS="2", **KEY_SETTING)

        def workers() -> set[int]:
            alive = set()
            for child in psutil.Process(api.process.pid).children():
                with suppress(psutil.NoSuchProcess):  # also raised for a zombie; it may end at any of these calls
                    if "spawn_main" in " ".join(child.cmdline()):
                        alive.add(child.pid)
            return alive

        before = workers()
        assert len(before) == 2
        psutil.Process(min(before)).kill()
        wait_until(lambda: len(workers()) == 2 and workers() != before, "there is another one")
        replaced = workers()
        wait_until(api.is_ready, "it is ready again")  # the one killed may have been the only one that listened yet
        reader = asked_by(api, "read")
        wait_until(lambda: reader.json(LIST)["source"] == "personal", "lists are given out")
        api.kill()  # the one that started them
        wait_until(lambda: not any(map(psutil.pid_exists, replaced)), "no worker is left behind")
