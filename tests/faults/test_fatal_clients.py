"""Scenario 4: Kafka clients fail for good: one that was fenced ends its service, any other is replaced."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from confluent_kafka import KafkaError, Message

from consumer.dead_letters import DeadLetters
from consumer.metrics import ConsumerMetrics
from recsys.errors import KafkaUnavailable, MalformedEvent
from recsys.kafka.clients import open_reader
from recsys.kafka.embedded import create_by_asking
from recsys.kafka.records import read_range
from recsys.kafka.topics import Topic, describe_topic, end_offsets
from recsys.settings import Settings
from tests.api import KEY_SETTING, asked_by
from tests.faults.conftest import Report, opened_ledger
from tests.faults.ledger import Ledger
from tests.faults.mock_cluster import MockCluster, mock_cluster
from tests.faults.test_members import start
from tests.services import KafkaServer, wait_until

_PRODUCE, _CONSUMER_GROUP_HEARTBEAT = 0, 68
_UNSUPPORTED_ASSIGNOR = 112


@pytest.fixture
def cluster() -> Iterator[MockCluster]:
    """A broker that answers with the errors it is told to."""
    with mock_cluster() as opened:
        yield opened


@pytest.fixture
def mock_ledger(cluster: MockCluster, redis_url: str, tmp_path: Path) -> Iterator[Ledger]:
    server = KafkaServer(cluster.address, False, "librdkafka's embedded broker")
    with opened_ledger(server, redis_url, tmp_path, seed=4) as ledger:
        yield ledger


@pytest.mark.real_kafka
@pytest.mark.parametrize("protocol", ["classic", pytest.param("consumer", marks=pytest.mark.slow)])
def test_of_two_members_with_one_instance_id_one_ends_with_a_line(
    ledger: Ledger, report: Report, protocol: str
) -> None:
    properties: dict[str, object] = {"group.instance.id": "recsys-1"}
    if protocol == "classic":
        properties["session.timeout.ms"] = 6000
    settings = {
        "RECSYS_KAFKA__GROUP_PROTOCOL": protocol,
        "RECSYS_KAFKA__LIBRDKAFKA": json.dumps(properties),
    }
    one = ledger.shop.start_consumer(**settings)
    one.await_assigned(4)
    ledger.publish(50)
    ledger.await_counted()
    two = ledger.shop.start_consumer(**settings)
    wait_until(lambda: {one.process.poll(), two.process.poll()} != {None}, "one of them ends")
    fenced, stays = (one, two) if one.process.poll() is not None else (two, one)
    assert fenced.process.returncode == 1
    (line,) = (line for line in fenced.lines() if " ERROR " in line)
    assert "has the same group.instance.id (recsys-1)" in line
    assert "Traceback" not in fenced.said()
    ledger.publish(100)
    recovery_s = ledger.await_counted()
    assert stays.said().count("has the same group.instance.id") == 0
    tally = ledger.check()
    assert stays.stop() == 0
    report(4, f"Two members with one group.instance.id, {protocol} protocol", tally, faults=1, recovery_s=recovery_s)


@pytest.mark.slow
@pytest.mark.kafka
def test_a_consumer_that_failed_for_good_is_replaced(cluster: MockCluster, mock_ledger: Ledger, report: Report) -> None:
    consumer = mock_ledger.shop.start_consumer(RECSYS_KAFKA__GROUP_PROTOCOL="consumer", RECSYS_KAFKA__LIBRDKAFKA="{}")
    consumer.await_assigned(4)
    mock_ledger.publish(50)
    mock_ledger.await_counted()
    cluster.push_errors(_CONSUMER_GROUP_HEARTBEAT, [_UNSUPPORTED_ASSIGNOR])
    consumer.await_saying("the Kafka consumer failed permanently")
    wait_until(lambda: consumer.metrics().get("restarts_total"), "a new client is made")
    mock_ledger.publish(100)
    recovery_s = mock_ledger.await_counted()
    tally = mock_ledger.check()
    assert consumer.stop() == 0
    report(4, "A consumer's Kafka client fails for good", tally, faults=1, recovery_s=recovery_s)


@pytest.mark.slow
@pytest.mark.kafka
def test_a_dead_letter_producer_that_failed_for_good_is_replaced(
    cluster: MockCluster, mock_ledger: Ledger, report: Report
) -> None:
    consumer = start(mock_ledger)
    consumer.await_assigned(4)
    mock_ledger.send_malformed([b"before"])
    mock_ledger.flush()
    wait_until(lambda: consumer.metrics().get("dead_letters_total") == 1, "the first letter is sent")
    mock_ledger.publish(50)
    mock_ledger.await_counted()
    held = mock_ledger.shop.folder / "held"
    assert consumer.stop() == 0
    consumer = start(mock_ledger, f"polled=hold:{held}")
    mock_ledger.send_malformed([b"one", b"two", b"three"])
    mock_ledger.flush()
    wait_until(held.exists, "a batch is held up")
    cluster.push_errors(_PRODUCE, [KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER])
    held.unlink()
    consumer.await_saying("the producer of dead letters has failed for good, a new one is made")
    consumer.await_saying("the dead-letter topic answers again")
    mock_ledger.publish(100)
    recovery_s = mock_ledger.await_counted()
    tally = mock_ledger.check()
    assert "Traceback" not in consumer.said()
    assert consumer.stop() == 0
    report(4, "A dead-letter producer fails for good", tally, faults=1, recovery_s=recovery_s)


@pytest.mark.kafka
def test_a_dead_letter_producer_that_failed_before_anybody_waited_for_it_is_told_of_too(
    cluster: MockCluster, tmp_path: Path
) -> None:
    settings = Settings.model_validate({"kafka": {"bootstrap_servers": cluster.address, "topic": "shop"}})
    create_by_asking(cluster.address, "shop.dlq")
    numbers = count()
    with DeadLetters(settings, ConsumerMetrics(), Topic("shop", "id", (0,))) as letters:

        def send() -> None:
            value = b"letter %d" % next(numbers)
            message = Message(topic="shop", partition=0, offset=0, key=b"k", value=value)
            letters.send([message], {0: MalformedEvent("not JSON")})

        def refused() -> bool:
            send()
            return letters._refusal is not None

        cluster.push_errors(_PRODUCE, [KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER])
        wait_until(refused, "the producer takes no more")
        with pytest.raises(KafkaUnavailable, match=r"failed for good, a new one is made: .*desynchronization"):
            letters.confirm(60.0)
        letters.confirm(60.0)
    topic = describe_topic(settings.kafka, "shop.dlq")
    reader = open_reader(settings.kafka, "reader")
    sent = [
        letter.value()
        for letter in read_range(reader, settings.kafka, topic, end_offsets(reader, settings.kafka, topic))
    ]
    reader.close()
    assert {b"letter %d" % number for number in range(next(numbers))} <= set(sent)


@pytest.mark.slow
@pytest.mark.kafka
def test_a_producer_of_the_api_that_failed_for_good_is_replaced(cluster: MockCluster, mock_ledger: Ledger) -> None:
    api = mock_ledger.shop.start_api(RECSYS_API__PURCHASES="true", **KEY_SETTING)
    writer = asked_by(api, "write")
    sale = {"user_id": "anna", "item_id": "sku-1"}
    wait_until(lambda: writer("/v1/purchases", "POST", json=sale).status_code == 202, "a purchase is taken")
    cluster.push_errors(_PRODUCE, [KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER])
    refused = writer("/v1/purchases", "POST", json={**sale, "event_id": "order-7"})
    assert (refused.status_code, refused.json()["type"]) == (503, "urn:recsys:problem:kafka-unavailable")
    api.await_saying("the Kafka producer has failed for good, a new one is made")
    wait_until(
        lambda: writer("/v1/purchases", "POST", json={**sale, "event_id": "order-7"}).status_code == 202,
        "purchases are taken again",
    )
    assert "Traceback" not in api.said()
    assert api.stop() == 0


@pytest.mark.slow
@pytest.mark.kafka
def test_publishing_with_a_client_that_failed_for_good_ends_with_a_line(
    cluster: MockCluster, mock_ledger: Ledger
) -> None:
    purchases = mock_ledger.shop.folder / "purchases.csv"
    purchases.write_text("user_id,item_id,timestamp\nanna,sku-1,2026-01-05T10:00:00Z\n")
    cluster.push_errors(_PRODUCE, [KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER])
    said = mock_ledger.shop.recsys("publish", str(purchases), expect=1).stderr
    assert "an event was not delivered" in said
    assert "desynchronization" in said
    assert "Traceback" not in said
