"""Scenario 5: brokers that do not answer are noticed while nothing comes, and do not hold up a stop."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from recsys.errors import KafkaUnavailable
from recsys.kafka.producer import Publisher
from tests.api import KEY_SETTING
from tests.builders import make_event
from tests.faults.conftest import Report, opened_ledger
from tests.faults.ledger import Ledger
from tests.faults.test_broker import broken
from tests.faults.test_members import start
from tests.services import NO_AUTHORITIES, ApacheKafka, Api, KafkaServer, RedisServer, Service, wait_until

pytestmark = pytest.mark.real_kafka

_BEFORE_THIS_WAS_BOUNDED_S = 25.0
"""What a stop with the broker away took; it is given 10 s, and a busy machine some more."""


@pytest.fixture
def own_ledger(breakable_kafka: ApacheKafka, redis_url: str, tmp_path: Path) -> Iterator[Ledger]:
    server = KafkaServer(breakable_kafka.address, True, "the broker that is broken")
    with opened_ledger(server, redis_url, tmp_path, seed=16) as ledger:
        yield ledger


def start_api(ledger: Ledger) -> Api:
    return ledger.shop.start_api(RECSYS_API__PURCHASES="true", **KEY_SETTING)


def ensure_they_stop(*services: Service) -> None:
    for service in services:
        began = time.monotonic()
        assert service.stop() == 0, service.said()[-3000:]
        assert time.monotonic() - began < _BEFORE_THIS_WAS_BOUNDED_S
        assert "Traceback" not in service.said()


@pytest.mark.parametrize("how", ["frozen", pytest.param("killed", marks=pytest.mark.slow)])
def test_a_broker_that_does_not_answer_is_noticed_while_nothing_comes(
    own_ledger: Ledger, breakable_kafka: ApacheKafka, report: Report, how: str
) -> None:
    consumer = start(own_ledger)
    consumer.await_assigned(4)
    api = start_api(own_ledger)
    own_ledger.publish(20)
    own_ledger.await_counted()
    with broken(breakable_kafka, how):
        for service in (consumer, api):
            service.await_saying("so nothing comes or goes: Kafka at")
        wait_until(lambda: consumer.metrics()["kafka_silent_seconds"] > 0, "the metric tells")
        assert httpx.get(f"{api.url}/readyz", verify=NO_AUTHORITIES).json()["missing"] == ["kafka"]
    mended = time.monotonic()
    for service in (consumer, api):
        service.await_saying("answers again after")
    wait_until(api.is_ready, "the API takes purchases again")
    assert consumer.metrics()["kafka_silent_seconds"] == 0
    own_ledger.publish(50)
    own_ledger.await_counted()
    recovery_s = time.monotonic() - mended
    assert consumer.stop() == 0
    assert api.stop() == 0
    tally = own_ledger.check()
    report(5, f"Broker {how} while nothing comes", tally, faults=1, recovery_s=recovery_s)


@pytest.mark.slow
def test_services_stop_while_the_broker_is_away(
    own_ledger: Ledger, breakable_kafka: ApacheKafka, report: Report
) -> None:
    """Also those that wait for it at their start, within a call that waits for an answer."""
    consumer, api = start(own_ledger), start_api(own_ledger)
    consumer.await_assigned(4)
    trainer = own_ledger.shop.start_trainer()
    wait_until(own_ledger.store.trainer.is_alive, "the trainer takes requests")
    own_ledger.publish(20)
    own_ledger.await_counted()
    with broken(breakable_kafka, "frozen"):
        comes = start(own_ledger)
        own_ledger.shop.recsys("retrain")
        comes.await_saying("metrics at")
        consumer.await_saying("so nothing comes or goes: Kafka at")
        ensure_they_stop(comes, consumer, trainer, api)
    last = start(own_ledger)
    own_ledger.publish(50)
    recovery_s = own_ledger.await_counted()
    tally = own_ledger.check()
    assert last.stop() == 0
    report(5, "Services stopped while the broker is away", tally, faults=4, recovery_s=recovery_s)


@pytest.mark.slow
def test_services_stop_while_redis_does_not_answer(
    kafka: KafkaServer, breakable_redis: RedisServer, tmp_path: Path, report: Report
) -> None:
    with opened_ledger(kafka, breakable_redis.url, tmp_path, seed=51) as ledger:
        consumer, api = start(ledger), start_api(ledger)
        consumer.await_assigned(4)
        trainer = ledger.shop.start_trainer()
        wait_until(ledger.store.trainer.is_alive, "the trainer takes requests")
        ledger.publish(20)
        ledger.await_counted()
        breakable_redis.freeze()
        try:
            ledger.publish(20)
            consumer.await_saying("partitions paused")
            ensure_they_stop(trainer, consumer, api)
        finally:
            breakable_redis.thaw()
        last = start(ledger)
        recovery_s = ledger.await_counted()
        tally = ledger.check()
        assert last.stop() == 0
    report(6, "Services stopped while Redis does not answer", tally, faults=3, recovery_s=recovery_s)


@pytest.mark.slow
def test_publishing_to_a_dead_broker_ends_with_a_line(
    own_ledger: Ledger, breakable_kafka: ApacheKafka, tmp_path: Path
) -> None:
    purchases = tmp_path / "purchases.csv"
    lines = [f"anna,sku-{number},2026-01-05T10:{number // 60:02}:{number % 60:02}Z" for number in range(600)]
    purchases.write_text("user_id,item_id,timestamp\n" + "\n".join(lines))
    settings = {**own_ledger.shop.environment, "RECSYS_KAFKA__TIMEOUT_S": "2"}
    with broken(breakable_kafka, "frozen"):
        said = own_ledger.shop.recsys("publish", str(purchases), expect=1, **settings).stderr
    assert "Kafka at" in said
    assert "Traceback" not in said


@pytest.mark.slow
def test_a_broker_that_dies_while_events_are_published_is_not_waited_for(
    own_ledger: Ledger, breakable_kafka: ApacheKafka
) -> None:
    settings = own_ledger.shop.settings().kafka.model_copy(update={"timeout_s": 2.0})
    publisher = Publisher(settings)

    def publish() -> None:
        with ExitStack() as back, publisher:
            publisher.publish(make_event("anna", "sku-1"))
            publisher.flush()
            back.enter_context(broken(breakable_kafka, "frozen"))
            publisher.publish(make_event("anna", "sku-2"))
            publisher.flush()

    with pytest.raises(KafkaUnavailable, match=r"no answer for 2 s; events that wait for .*: 1, delivered"):
        publish()
    assert publisher.delivered == 1
