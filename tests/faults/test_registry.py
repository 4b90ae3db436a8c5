"""Scenario 22: the Schema Registry is away, hangs, or refuses, while schemas evolve under load."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.faults.conftest import Report, rounds, trained_ledger
from tests.faults.ledger import Ledger
from tests.faults.test_crashes import QUICK
from tests.faults.test_redis import await_outage
from tests.registries import AnsweringServer, Registry, client_of
from tests.schemas import avro_writer, moment, published
from tests.services import Consumer, Shop, wait_until

pytestmark = [pytest.mark.real_kafka, pytest.mark.slow]


@pytest.fixture
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry of the test's own, which may be broken."""
    found = Registry(tmp_path_factory.mktemp("registry"))
    try:
        found.start()
        yield found
    finally:
        found.close()


@pytest.fixture
def ledger(shop: Shop, registry: Registry) -> Iterator[Ledger]:
    """Buyers whose purchases are Avro."""
    with trained_ledger(shop) as ledger:
        shop.environment |= {"RECSYS_EVENTS__FORMAT": "avro", "RECSYS_EVENTS__REGISTRY_URL": registry.url}
        ledger.encode = avro_of_version(registry, shop.topic, 0)
        yield ledger


def avro_of_version(registry: Registry, topic: str, version: int) -> Callable[[bytes], bytes]:
    """Register the contract's schema with so many fields added, and return what writes with it."""
    schema = published("purchase.avsc")
    schema["fields"] += [{"name": f"added_{n}", "type": "string", "default": ""} for n in range(version)]
    write = avro_writer(client_of(registry.url), topic, schema)

    def encode(value: bytes) -> bytes:
        fields: dict[str, Any] = json.loads(value)
        if "timestamp" in fields:
            fields["timestamp"] = moment(fields["timestamp"])
        return write(fields)

    encode(b'{"user_id": "u"}')  # the registry is asked now, not when it is away
    return encode


def started_consumer(ledger: Ledger, **settings: str) -> Consumer:
    consumer = ledger.shop.start_consumer(RECSYS_CONSUMER__BATCH_SIZE="50", **QUICK, **settings)
    consumer.await_assigned()
    return consumer


def await_answered(consumer: Consumer, times: int) -> None:
    wait_until(lambda: consumer.said().count("the schema registry answers again") >= times, "the consumer goes on")


def test_a_registry_that_is_killed_while_schemas_evolve_under_load(
    ledger: Ledger, registry: Registry, report: Report
) -> None:
    consumer = started_consumer(ledger)
    ledger.publish(100)
    ledger.await_counted()
    count = rounds(2, 10)
    for version in range(1, count + 1):
        outages = consumer.metrics()["outages_total"]
        ledger.encode = avro_of_version(registry, ledger.shop.topic, version)
        registry.kill()
        with ledger.load(per_second=100):
            await_outage(consumer, outages)
            registry.start()
            await_answered(consumer, version)
        ledger.await_counted()
    said = consumer.said()
    assert f"decode: the schema registry at {registry.url} does not answer: [Errno 111] Connection refused" in said
    assert "partitions paused, nothing is dropped" in said
    recovery_s = ledger.await_counted()
    assert consumer.metrics()["restarts_total"] == 0, "nobody left the group"
    title = "Schema registry killed while schemas evolve"
    report(22, title, ledger.check(), faults=count, recovery_s=recovery_s)
    assert ledger.dead_letters() == []
    assert consumer.stop() == 0


def test_services_that_need_a_registry_that_is_away_end_or_wait(
    ledger: Ledger, registry: Registry, report: Report
) -> None:
    first = started_consumer(ledger)
    ledger.publish(100)
    ledger.await_counted()
    assert first.stop() == 0
    registry.freeze()
    ledger.publish(100)
    waiting = started_consumer(ledger)
    waiting.await_saying("does not answer: ")
    assert waiting.stop() == 0, "a registry that hangs holds up no stop"
    registry.kill()
    for arguments in (("recsys", "verify", "--all"), ("trainer", "--once")):
        ended = ledger.shop.run(*arguments, expect=1)
        (line,) = [line for line in ended.stderr.splitlines() if "the schema registry at" in line]
        assert f"{registry.url} does not answer: " in line
        assert "Traceback" not in ended.stderr
    consumer = started_consumer(ledger)
    consumer.await_saying("does not answer: ")
    registry.start()
    await_answered(consumer, 1)
    assert ledger.dead_letters() == []
    recovery_s = ledger.await_counted()
    report(22, "Schema registry away at a start", ledger.check(), faults=2, recovery_s=recovery_s)
    assert consumer.stop() == 0


def test_a_registry_that_refuses_for_a_while(ledger: Ledger, registry: Registry, report: Report) -> None:
    answers = {
        401: "refuses the login",
        403: "does not let this user read schemas",
        404: "answers 404",
        503: "answers 503",
    }
    with AnsweringServer(200) as server:
        server.leads_to = registry.url
        consumer = started_consumer(ledger, RECSYS_EVENTS__REGISTRY_URL=server.url)
        for version, (status, said) in enumerate(answers.items(), start=1):
            outages = consumer.metrics()["outages_total"]
            ledger.encode = avro_of_version(registry, ledger.shop.topic, version)
            server.leads_to, server.status = "", status
            with ledger.load(per_second=100):
                await_outage(consumer, outages)
                server.leads_to = registry.url
                await_answered(consumer, version)
            assert f"decode: the schema registry at {server.url} {said}" in consumer.said()
        recovery_s = ledger.await_counted()
        report(22, "Schema registry refuses", ledger.check(), faults=len(answers), recovery_s=recovery_s)
        assert ledger.dead_letters() == []
        assert consumer.stop() == 0


def test_a_registry_that_hangs_takes_no_partitions_away(ledger: Ledger, registry: Registry, report: Report) -> None:
    with AnsweringServer(200) as server:
        server.leads_to = registry.url
        client = '{"max.poll.interval.ms": 10000, "session.timeout.ms": 6000}'
        consumer = ledger.shop.start_consumer(
            RECSYS_EVENTS__REGISTRY_URL=server.url, RECSYS_KAFKA__LIBRDKAFKA=client, RECSYS_CONSUMER__BATCH_SIZE="50"
        )
        consumer.await_assigned()
        with server.silent():
            ledger.publish(100)
            wait_until(lambda: len(server.requests) > 1, "it has waited until a request was given up, which is longer")
        await_answered(consumer, 1)
        recovery_s = ledger.await_counted()
        assert "does not answer: nothing came within 3 s; partitions paused" in consumer.said()
        assert "poll interval" not in consumer.said(), "it goes on polling while it waits"
        report(22, "Schema registry hangs", ledger.check(), faults=1, recovery_s=recovery_s)
        assert ledger.dead_letters() == []
        assert consumer.stop() == 0
