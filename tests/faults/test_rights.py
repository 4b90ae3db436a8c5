"""Scenario 20: rights that are missing, or taken away while services run, and given back; limits that are too small."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from recsys.redis.keys import Keys
from tests.api import KEY_SETTING, KEYS
from tests.conftest import opened_shop
from tests.faults.conftest import Report, opened_ledger, trained_ledger
from tests.faults.ledger import Ledger
from tests.planted import item_name
from tests.secured import PASSWORD, SecuredKafka
from tests.services import NO_AUTHORITIES, Api, Consumer, KafkaServer, RedisServer, wait_until


@pytest.fixture
def ledger(secured: SecuredKafka, redis_url: str, tmp_path: Path) -> Iterator[Ledger]:
    """The oracle of a shop whose services log in as a user of its own, who has no rights yet."""
    server = KafkaServer(secured.address, True, "a Kafka with rights")
    with opened_shop(server, redis_url, tmp_path) as shop, trained_ledger(shop, seed=20) as opened:
        secured.add_user(shop.name)
        properties = {**secured.login(shop.name), "session.timeout.ms": 6000}
        shop.environment["RECSYS_KAFKA__BOOTSTRAP_SERVERS"] = secured.sasl_address
        shop.environment["RECSYS_KAFKA__LIBRDKAFKA"] = json.dumps(properties)
        yield opened


def rights(ledger: Ledger) -> dict[str, str]:
    """Return all rights of a consumer, by what it says when one is missing."""
    shop, user = ledger.shop, f"User:{ledger.shop.name}"
    group = shop.environment["RECSYS_KAFKA__GROUP_ID"]
    return {
        f"no DESCRIBE right for {user} on topic {shop.topic}":
            f"--allow-principal {user} --operation Describe --topic {shop.topic}",
        f"no READ right for {user} on topic {shop.topic}":
            f"--allow-principal {user} --operation Read --topic {shop.topic}",
        f"no READ right for {user} on group {group}": f"--allow-principal {user} --operation Read --group {group}",
        f"no DESCRIBE right for {user} on topic {shop.topic}.dlq":
            f"--allow-principal {user} --operation Describe --topic {shop.topic}.dlq",
        f"no WRITE right for {user} on topic {shop.topic}.dlq":
            f"--allow-principal {user} --operation Write --topic {shop.topic}.dlq",
    }  # fmt: skip


def started(ledger: Ledger, secured: SecuredKafka) -> Consumer:
    """Start a consumer that has all rights."""
    for right in rights(ledger).values():
        secured.allow(right)
    consumer = ledger.shop.start_consumer()
    consumer.await_assigned()
    return consumer


def await_said_again(consumer: Consumer, words: str, before: str) -> None:
    wait_until(lambda: words in consumer.said().removeprefix(before), f"it says: {words}")


@pytest.mark.slow
def test_consumer_names_each_right_that_is_missing_and_goes_on_when_it_has_all(
    ledger: Ledger, secured: SecuredKafka, report: Report
) -> None:
    consumer = ledger.shop.start_consumer()
    ledger.publish(50)
    ledger.send_malformed([b"not JSON"])
    for words, right in rights(ledger).items():
        consumer.await_saying(words)
        secured.allow(right)
    ledger.await_counted()
    tally = ledger.check()
    assert consumer.stop() == 0
    assert "Traceback" not in consumer.said()
    report(20, "A consumer without rights, which it gets one by one", tally, faults=len(rights(ledger)))


def test_right_to_write_dead_letters_is_taken_away_and_given_back(
    ledger: Ledger, secured: SecuredKafka, report: Report
) -> None:
    consumer = started(ledger, secured)
    *_, (words, right) = rights(ledger).items()
    ledger.send_malformed([b"first"])
    wait_until(lambda: consumer.metrics().get("dead_letters_total") == 1, "the first one is sent on")
    secured.take_away(right)
    ledger.send_malformed([b"second", b"third"])
    ledger.publish(50)
    consumer.await_saying(f"the dead-letter topic {ledger.shop.topic}.dlq refuses: ")
    consumer.await_saying(words)
    secured.allow(right)
    recovery_s = ledger.await_counted()
    tally = ledger.check()
    assert consumer.metrics()["restarts_total"] == 0
    assert consumer.stop() == 0
    assert "Traceback" not in consumer.said()
    report(20, "The right to write dead letters is taken away", tally, faults=1, recovery_s=recovery_s)


@pytest.mark.slow
def test_rights_to_read_are_taken_away_and_given_back(ledger: Ledger, secured: SecuredKafka, report: Report) -> None:
    consumer = started(ledger, secured)
    user, group = f"User:{ledger.shop.name}", ledger.shop.environment["RECSYS_KAFKA__GROUP_ID"]
    for kind, name in (("topic", ledger.shop.topic), ("group", group)):
        right = f"--allow-principal {user} --operation Read --{kind} {name}"
        before = consumer.said()
        secured.take_away(right)
        ledger.publish(50)
        await_said_again(consumer, f"no READ right for {user} on {kind} {name}", before)
        secured.allow(right)
        recovery_s = ledger.await_counted()
    tally = ledger.check()
    assert consumer.stop() == 0
    assert "Traceback" not in consumer.said()
    report(20, "The rights to read are taken away", tally, faults=2, recovery_s=recovery_s)


@pytest.mark.slow
def test_commits_are_refused_while_the_member_stays_in_the_group(
    ledger: Ledger, secured: SecuredKafka, report: Report
) -> None:
    patient = json.dumps({**secured.login(ledger.shop.name), "session.timeout.ms": 120_000})
    ledger.shop.environment["RECSYS_KAFKA__LIBRDKAFKA"] = patient
    consumer = started(ledger, secured)
    user, group = f"User:{ledger.shop.name}", ledger.shop.environment["RECSYS_KAFKA__GROUP_ID"]
    right = f"--allow-principal {user} --operation Read --group {group}"
    secured.take_away(right)
    ledger.publish(50)
    consumer.await_saying("the offsets of what is done cannot be committed")
    assert f"no READ right for {user} on group {group}" in consumer.said()
    secured.allow(right)
    consumer.await_saying("commits are taken again")
    ledger.publish(50)
    ledger.await_counted()
    tally = ledger.check()
    assert consumer.stop() == 0
    report(20, "Commits are refused, and taken again", tally, faults=1)


@pytest.mark.slow
@pytest.mark.real_kafka
def test_redis_closes_connections_whose_replies_are_large_until_the_limit_is_gone(
    kafka: KafkaServer, breakable_redis: RedisServer, tmp_path: Path, report: Report
) -> None:
    limit = "client-output-buffer-limit"
    with opened_ledger(kafka, breakable_redis.url, tmp_path, seed=21, users=400) as ledger:
        consumer = ledger.shop.start_consumer()
        consumer.await_assigned()
        breakable_redis.client.config_set(limit, "normal 1024 1024 1")
        ledger.publish(4000)
        consumer.await_saying(f"{limit} for normal clients is normal 1024 1024 1; set it to normal 0 0 0")
        breakable_redis.client.config_set(limit, "normal 0 0 0")
        recovery_s = ledger.await_counted()
        tally = ledger.check()
        assert consumer.stop() == 0
    report(20, "Redis closes connections whose replies are large", tally, faults=1, recovery_s=recovery_s)


@pytest.mark.slow
@pytest.mark.real_kafka
def test_rights_in_redis_are_taken_away_and_given_back(
    kafka: KafkaServer, breakable_redis: RedisServer, tmp_path: Path, report: Report
) -> None:
    with opened_ledger(kafka, breakable_redis.url, tmp_path, seed=22) as ledger:
        redis, prefix = breakable_redis.client, ledger.shop.environment["RECSYS_REDIS__PREFIX"]
        rules = ("on", f">{PASSWORD}", f"~{prefix}:*", "+@all")
        redis.execute_command("ACL", "SETUSER", "shop", *rules)
        url = breakable_redis.url.replace("redis://", f"redis://shop:{PASSWORD}@")
        consumer = ledger.shop.start_consumer(RECSYS_REDIS__URL=url)
        consumer.await_assigned()
        others = [f"~{key}" for key in Keys(prefix).of_all_kinds() if not key.endswith(":history")]
        for taken, words in (
            (["-evalsha"], "user shop lacks the right +evalsha;"),
            (["resetkeys", *others], f"user shop lacks the right ~{prefix}:{{*}}:history;"),
        ):
            redis.execute_command("ACL", "SETUSER", "shop", *taken)
            ledger.publish(50)
            consumer.await_saying(words)
            redis.execute_command("ACL", "SETUSER", "shop", *rules)
            recovery_s = ledger.await_counted()
        tally = ledger.check()
        assert consumer.stop() == 0
    report(20, "Rights in Redis are taken away", tally, faults=2, recovery_s=recovery_s)


@pytest.mark.slow
def test_api_refuses_purchases_until_it_may_write(ledger: Ledger, secured: SecuredKafka) -> None:
    user = f"User:{ledger.shop.name}"
    right = f"--allow-principal {user} --operation Write --topic {ledger.shop.topic}"
    secured.allow(right)
    api = ledger.shop.start_api(**KEY_SETTING)
    assert posted(api, "a") == 202
    secured.take_away(right)
    wait_until(lambda: posted(api, "b") == 503, "purchases are refused")
    assert ready(api) == (503, ["kafka"])
    api.await_saying(f"no WRITE right for {user} on topic {ledger.shop.topic}")
    assert posted(api, "c") == 503
    secured.allow(right)
    wait_until(lambda: ready(api) == (200, []), "it is ready again")
    wait_until(lambda: posted(api, "d") == 202, "purchases are accepted")
    assert api.stop() == 0
    assert "Traceback" not in api.said()


def posted(api: Api, event_id: str) -> int:
    """Send a purchase and return the status."""
    event = {"user_id": "u", "item_id": item_name(0, 0), "event_id": event_id}
    key = {"Authorization": f"Bearer {KEYS['write']}"}
    return httpx.post(f"{api.url}/v1/purchases", json=event, headers=key, timeout=60, verify=NO_AUTHORITIES).status_code


def ready(api: Api) -> tuple[int, list[str]]:
    answer = httpx.get(f"{api.url}/readyz", timeout=60, verify=NO_AUTHORITIES)
    return answer.status_code, answer.json()["missing"]
