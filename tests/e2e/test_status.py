"""`recsys status` says of real services what is so, what is wrong and what to do, and never ends with a traceback."""

from __future__ import annotations

import itertools
import json
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from recsys.operations.histories import MISSING
from recsys.redis import open_store
from tests.conftest import opened_shop
from tests.looks import LENIENT, Said, said_by
from tests.planted import event_json, item_name
from tests.prepared import once_a_run, train_planted
from tests.secured import SecuredKafka
from tests.services import (
    NO_AUTHORITIES,
    KafkaServer,
    RedisServer,
    Shop,
    kept_port,
    running,
    wait_until,
)
from tests.shops import habitual_shop, write_parquet
from tests.stream import publish

pytestmark = [pytest.mark.kafka, pytest.mark.real_kafka, pytest.mark.slow]
SLOW_IS_FINE = {"RECSYS_STATUS__EVENT_TO_LIST_MS": "1e9", "RECSYS_STATUS__LAG_S": "1e6"}
"""Nor is how busy it is."""


def status(shop: Shop, **settings: str) -> Said:
    """Ask for JSON."""
    return said_by(shop, "status", lists="lines", **{**SLOW_IS_FINE, **settings})


def await_status(shop: Shop, holds: Callable[[Said], bool], what: str, **settings: str) -> Said:
    """Ask again and again until something holds of what is said."""

    def asked() -> Said | None:
        said = status(shop, **settings)
        return said if holds(said) else None

    return wait_until(asked, what)


def purchases(count: int, *, start: int = 0) -> list[tuple[str, bytes]]:
    users = [f"buyer-{number % 10}" for number in range(start, start + count)]
    return [
        (user, event_json(user, item_name(0, number % 8), event_id=f"e{start + number}"))
        for number, user in enumerate(users)
    ]


@pytest.fixture
def trained(shop: Shop) -> Shop:
    shop.environment["RECSYS_TRAINER__HOLDOUT_DAYS"] = "0"
    train_planted(shop)
    return shop


@pytest.fixture
def well(kafka: KafkaServer, own_redis: RedisServer, tmp_path: Path) -> Iterator[Shop]:
    """A shop in which services find nothing wrong."""
    with opened_shop(kafka, own_redis.url, tmp_path) as shop:
        shop.environment["RECSYS_TRAINER__HOLDOUT_DAYS"] = "0"
        train_planted(shop)
        yield shop


def test_all_is_well_and_watching_ends_with_the_last_state(well: Shop) -> None:
    services = well.start_consumer(), well.start_trainer(), well.start_api()
    services[0].await_assigned(4)
    publish(well, purchases(40))

    more = itertools.count(40)

    def is_well(said: Said) -> bool:
        applied = sum(one["applied"] or 0 for one in said.found["partitions"])
        if said.code == 0 and applied >= 40 and said.text("latency").startswith("p50"):
            return True
        publish(well, purchases(1, start=next(more)))  # only the newest lists have a latency
        return False

    said = await_status(well, is_well, "lists are made, and all services have told of themselves")
    assert said.found["sentence"] == "The shop is served."
    assert {line["level"] for line in said.found["lines"]} == {"ok"}
    assert sorted(entry["kind"] for entry in said.found["services"]) == ["api", "consumer", "trainer"]
    assert "the next is due in" in said.text("rounds")
    assert [one["lag"] for one in said.found["partitions"]] == [0] * 4
    assert all(one["records_per_s"] is not None for one in said.found["partitions"])

    narrow = {**LENIENT, **SLOW_IS_FINE, "COLUMNS": "80"}
    shown = well.recsys("status", expect=0, **narrow).stdout
    assert shown.startswith("The shop is served.")
    assert max(map(len, shown.splitlines())) <= 80
    assert "\x1b" not in shown, "colours are for terminals"

    log = well.folder / "watch.log"
    command = [sys.executable, "-m", "recsys", "status", "--watch", "--json"]
    with running(command, log, {**well.environment, **LENIENT, **SLOW_IS_FINE}) as watching:
        wait_until(lambda: log.read_text().count("\n") >= 2, "it looks again")
        watching.send_signal(signal.SIGINT)
        assert watching.wait(timeout=240) == 0
    assert all(json.loads(line)["level"] == "ok" for line in log.read_text().splitlines())

    for service in services:
        assert service.stop() == 0
    gone = await_status(well, lambda said: said.found["services"] == [], "they have gone")
    assert (gone.level("consumers"), gone.level("trainer"), gone.level("api")) == ("broken", "warning", "ok")


def test_a_consumer_that_was_killed_is_missed_and_what_waits_is_counted(trained: Shop) -> None:
    trained.start_trainer()
    consumer = trained.start_consumer()
    consumer.await_assigned(4)
    wait_until(lambda: status(trained).wrong <= {"checks"}, "all is well")
    await_status(
        trained, lambda said: said.text("checks") == "redis-append-only (warning)", "services tell what they find"
    )
    consumer.kill()
    said = await_status(trained, lambda said: said.level("consumers") == "broken", "it is missed")
    assert "start python -m consumer" in said.listed["consumers"]["remedy"]
    lags = []
    for batch in range(2):
        publish(trained, purchases(20, start=20 * batch))
        said = status(trained, RECSYS_STATUS__LAG_S="0.000001")
        assert said.level("lag") == "broken"
        lags.append(int(re.findall(r"(\d+) records? to apply", said.text("lag"))[0]))
    assert lags == [20, 40]
    trained.start_consumer()
    wait_until(lambda: status(trained).wrong <= {"checks"}, "the next consumer applies it all")


def test_a_consumer_and_a_trainer_that_wait_tell_for_what(trained: Shop) -> None:
    nowhere = {"RECSYS_KAFKA__TOPIC": f"{trained.topic}-not-there"}
    trained.start_consumer(**nowhere)
    trained.start_trainer(**nowhere)
    of_both = ("consumers", "trainer")
    said = await_status(
        trained, lambda said: all("not-there does not exist" in said.text(code) for code in of_both), "it is told"
    )
    assert [said.level(code) for code in of_both] == ["broken", "warning"]


def test_why_a_consumer_has_ended_is_told_until_one_runs_again(trained: Shop) -> None:
    consumer = trained.start_consumer(RECSYS_CONSUMER__MAX_MALFORMED="0")
    publish(trained, [("x", b"nonsense")])
    assert consumer.process.wait(timeout=240) == 1
    said = status(trained)
    assert said.level("consumers") == "broken"
    assert re.match(r"none runs; the last one ended at \d\d:\d\d UTC: ", said.text("consumers"))
    assert "1 of the newest 1 records are malformed" in said.text("consumers")
    assert said.listed["consumers"]["remedy"].startswith("do what the line names")
    again = trained.start_consumer()
    await_status(trained, lambda said: said.level("consumers") == "ok", "one runs again")
    assert again.stop() == 0
    assert status(trained).text("consumers") == "none runs: new purchases are not counted"


def test_lag_has_an_age_which_is_that_of_the_oldest_record(trained: Shop) -> None:
    publish(trained, purchases(30))
    said = status(trained)
    assert said.text("lag").startswith("30 records to apply, the oldest ")
    assert said.level("lag") == "ok"
    assert {one["records_per_s"] for one in said.found["partitions"]} == {None}
    assert all(one["oldest_s"] is not None for one in said.found["partitions"] if one["lag"])
    assert status(trained, RECSYS_STATUS__LAG_S="0.0001").level("lag") == "broken"


def test_an_emptied_redis_is_broken_for_readyz_and_for_status(
    kafka: KafkaServer, own_redis: RedisServer, tmp_path: Path
) -> None:
    with opened_shop(kafka, own_redis.url, tmp_path) as shop:
        shop.environment["RECSYS_TRAINER__HOLDOUT_DAYS"] = "0"
        train_planted(shop)
        shop.start_trainer()
        consumer, api = shop.start_consumer(), shop.start_api()
        consumer.await_assigned(4)
        publish(shop, purchases(20))
        wait_until(lambda: sum(one["applied"] or 0 for one in status(shop).found["partitions"]) == 20, "applied")
        own_redis.client.flushall()
        said = await_status(shop, lambda said: said.level("histories") == "broken", "it is seen")
        assert "recsys rebuild" in said.listed["histories"]["remedy"]

        def missing() -> list[str]:
            answer = httpx.get(f"{api.url}/readyz", timeout=30, verify=NO_AUTHORITIES).json()["missing"]
            return list(answer)

        wait_until(lambda: MISSING in missing(), "readyz says so as well")
        wait_until(lambda: "missing: histories" in status(shop).text("api"), "and what the API tells of itself")
        shop.recsys("rebuild")
        wait_until(lambda: status(shop).level("histories") == "ok", "the rebuild mends it")
        wait_until(lambda: MISSING not in missing(), "also for readyz")


def test_a_model_that_was_rejected_is_a_warning_with_the_reason(shop: Shop) -> None:
    def train() -> None:
        write_parquet(habitual_shop(seed=0, n_users=200), shop.folder / "history.parquet")
        shop.recsys("import", "history.parquet")
        shop.run("trainer", "--once")

    once_a_run(shop, "status-habitual", train)
    shop.run("trainer", "--once", expect=3, RECSYS_MODEL__FACTORS="1", RECSYS_MODEL__REGULARIZATION="5000")
    said = status(shop)
    assert said.level("rounds") == "warning"
    assert "rejected: " in said.text("rounds")
    assert "worse than the live model" in said.text("rounds")
    assert said.listed["rounds"]["remedy"].endswith("see Rejected models")
    assert said.level("model") == "ok"


def test_a_flood_of_malformed_records_is_counted_by_reason(trained: Shop) -> None:
    consumer = trained.start_consumer()
    consumer.await_assigned(4)
    good = purchases(40)
    broken = [("x", b"nonsense")] * 30 + [
        ("x", b'{"user_id": "u", "item_id": "i", "quantity": %d}' % -n) for n in range(1, 11)
    ]
    publish(trained, good + broken)
    wait_until(lambda: consumer.metrics().get("dead_letters_total", 0) == 40, "all are put aside")
    said = await_status(trained, lambda said: said.level("dead-letters") == "broken", "they are there")
    assert said.text("dead-letters").startswith("40 in the last hour: 30 x not JSON")
    assert "; 10 x quantity" in said.text("dead-letters")

    def told() -> dict[str, int]:
        (entry,) = [one for one in status(trained).found["services"] if one["kind"] == "consumer"]
        return dict(entry["facts"]["dead_letters"])

    assert sorted(wait_until(told, "the consumer tells of them").values()) == [10, 30]


def test_a_damaged_entry_in_the_registry_is_a_line(trained: Shop) -> None:
    with open_store(trained.settings()) as store:
        keys, client = store.services._keys, store.connection.client
        client.sadd(keys.services, "consumer:0123456789ab", "\x1b[31mred")
        client.set(keys.service("consumer:0123456789ab"), b'{"kind": "consumer"')
    said = status(trained)
    assert said.level("registry") == "warning"
    assert "service:consumer:0123456789ab is damaged" in said.text("registry")
    assert said.level("consumers") == "broken"
    shown = trained.recsys("status", expect=2, **LENIENT)
    assert "\x1b" not in shown.stdout


def test_redis_that_is_away_is_one_broken_line_and_the_rest_is_told(trained: Shop) -> None:
    said = status(trained, RECSYS_REDIS__URL=f"redis://127.0.0.1:{kept_port()}/0", RECSYS_REDIS__TIMEOUT_S="1")
    assert said.code == 2
    assert "Connection refused" in said.text("redis")
    of_redis = [
        "services",
        "histories",
        "lag",
        "latency",
        "model",
        "lists",
        "memory",
        "eviction",
        "persistence",
        "checks",
    ]
    assert {said.text(code) for code in of_redis} == {"not known: Redis cannot be asked"}
    assert [said.level(code) for code in ("kafka", "dead-letters", "archive", "disk", "rounds")] == ["ok"] * 5


def test_kafka_that_is_away_is_one_broken_line_and_the_rest_is_told(trained: Shop) -> None:
    address = f"127.0.0.1:{kept_port()}"
    said = status(trained, RECSYS_KAFKA__BOOTSTRAP_SERVERS=address, RECSYS_KAFKA__TIMEOUT_S="2")
    assert said.code == 2
    assert said.level("kafka") == "broken"
    assert address in said.text("kafka")
    assert {said.text(code) for code in ("lag", "dead-letters")} == {"not known: Kafka cannot be asked"}
    told = ("redis", "histories", "model", "lists", "memory", "archive", "disk")
    assert [said.level(code) for code in told] == ["ok"] * len(told)


def test_a_data_dir_that_cannot_be_read_is_told_and_the_rest_as_well(trained: Shop) -> None:
    (trained.folder / "file").write_text("")
    said = status(trained, RECSYS_DATA_DIR=str(trained.folder / "file"))
    assert said.level("archive") == "warning"
    assert "is a file, not a folder" in said.text("archive")
    assert [said.level(code) for code in ("kafka", "redis", "model", "lag")] == ["ok"] * 4


def test_a_right_that_is_missing_is_told_by_name(secured: SecuredKafka, redis_url: str, tmp_path: Path) -> None:
    server = KafkaServer(secured.address, True, "a Kafka with rights")
    with opened_shop(server, redis_url, tmp_path) as shop:
        shop.environment["RECSYS_TRAINER__HOLDOUT_DAYS"] = "0"
        train_planted(shop)
        secured.add_user(shop.name)
        login = {
            "RECSYS_KAFKA__BOOTSTRAP_SERVERS": secured.sasl_address,
            "RECSYS_KAFKA__LIBRDKAFKA": json.dumps(secured.login(shop.name)),
        }
        user, right = f"User:{shop.name}", "--allow-principal User:{} --operation Read --topic {}"
        secured.allow(right.format(shop.name, shop.topic))
        said = await_status(shop, lambda said: said.level("kafka") == "ok", "the right counts", **login)
        assert said.level("lag") == "ok"
        assert said.level("dead-letters") == "warning"
        assert f"right for {user} on topic {shop.topic}.dlq" in said.text("dead-letters")
        secured.allow(right.format(shop.name, f"{shop.topic}.dlq"))
        wait_until(lambda: status(shop, **login).level("dead-letters") == "ok", "it is granted")
        secured.take_away(right.format(shop.name, shop.topic))
        said = await_status(shop, lambda said: said.level("kafka") == "broken", "it is gone", **login)
        assert f"right for {user} on topic {shop.topic}" in said.text("kafka")
