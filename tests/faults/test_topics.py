"""Scenario 11: the topic grows, is deleted and created again, or forgets records before they are read."""

from __future__ import annotations

import json

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions, NewTopic, TopicPartition

from tests.conftest import PARTITIONS
from tests.faults.conftest import Report, rounds
from tests.faults.ledger import Ledger
from tests.services import wait_until

pytestmark = pytest.mark.real_kafka

# New partitions are met at the next refresh of the metadata, by default after 30 s.
WATCHFUL = {"RECSYS_KAFKA__LIBRDKAFKA": json.dumps({"topic.metadata.refresh.interval.ms": 1000})}


@pytest.fixture
def admin(ledger: Ledger) -> AdminClient:
    return AdminClient({"bootstrap.servers": ledger.shop.kafka.address})


def test_partitions_added_under_load(ledger: Ledger, admin: AdminClient, report: Report) -> None:
    consumer = ledger.shop.start_consumer(**WATCHFUL)
    consumer.await_assigned()
    with ledger.load(per_second=200):
        ledger.await_counted()
        for future in admin.create_partitions([NewPartitions(ledger.shop.topic, PARTITIONS + 3)]).values():
            future.result()
        wait_until(lambda: consumer.metrics().get("partitions", 0) == PARTITIONS + 3, "the new partitions are taken")
    ledger.renew_producer()
    ledger.publish(300)
    recovery_s = ledger.await_counted()
    tally = ledger.check()
    assert consumer.stop() == 0
    report(11, "Partitions added under load", tally, faults=1, recovery_s=recovery_s)


@pytest.mark.slow
@pytest.mark.parametrize("more", [False, True], ids=["fewer records than before", "more records than before"])
def test_topic_deleted_and_created_again(ledger: Ledger, admin: AdminClient, report: Report, more: bool) -> None:
    """The new topic's offsets start at 0 again: neither skipped nor taken for the old ones."""
    topic = ledger.shop.topic
    consumer = ledger.shop.start_consumer()
    consumer.await_assigned()
    count = rounds(1, 10)
    for number in range(count):
        before = 200 if more else 400
        ledger.publish(before)
        ledger.await_counted()
        ledger.shop.run("trainer", "--once")  # what is deleted with the topic is kept in the archive
        restarts = consumer.metrics()["restarts_total"]
        for future in admin.delete_topics([topic]).values():
            future.result()
        wait_until(lambda: _created(admin, topic), "the topic is created again")
        wait_until(lambda r=restarts: consumer.metrics().get("restarts_total", 0) > r, "the consumer notices")  # type: ignore[misc]
        ledger.renew_producer()
        ledger.publish(600 - before)
        recovery_s = ledger.await_counted()
        assert consumer.said().count("deleted and created again") + consumer.said().count("does not exist") > number
    tally = ledger.check()
    assert consumer.stop() == 0
    title = f"Topic created again, {'more' if more else 'fewer'} records than before"
    report(11, title, tally, faults=count, recovery_s=recovery_s)


@pytest.mark.slow
def test_topic_created_again_and_filled_before_anyone_notices(
    ledger: Ledger, admin: AdminClient, report: Report
) -> None:
    """Purchases with ids count once, whether they were read as the old topic's or as the new one's."""
    topic = ledger.shop.topic
    consumer = ledger.shop.start_consumer()
    consumer.await_assigned()
    ledger.publish(100)
    ledger.await_counted()
    ledger.shop.run("trainer", "--once")
    restarts = consumer.metrics()["restarts_total"]
    for future in admin.delete_topics([topic]).values():
        future.result()
    wait_until(lambda: _created(admin, topic), "the topic is created again")
    ledger.renew_producer()
    ledger.send([sale for sale in ledger.sales(1500) if sale.has_id])
    ledger.flush()
    wait_until(lambda: consumer.metrics().get("restarts_total", 0) > restarts, "the consumer notices")
    recovery_s = ledger.await_counted()
    tally = ledger.check()
    assert consumer.stop() == 0
    report(11, "Topic created again and filled at once", tally, faults=1, recovery_s=recovery_s)


def _created(admin: AdminClient, topic: str) -> bool:
    try:
        for future in admin.create_topics([NewTopic(topic, PARTITIONS)]).values():
            future.result()
    except KafkaException:  # still being deleted
        return False
    return True


@pytest.mark.slow
def test_records_that_expired_unread_are_an_error_not_a_silence(ledger: Ledger, admin: AdminClient) -> None:
    shop = ledger.shop
    consumer = shop.start_consumer()
    consumer.await_assigned()
    ledger.publish(100)
    ledger.await_counted()
    assert consumer.stop() == 0
    ledger.publish(100)
    places = [TopicPartition(shop.topic, partition, -1) for partition in range(PARTITIONS)]  # up to the end
    for future in admin.delete_records(places).values():
        future.result()
    stopped = shop.run("consumer", expect=1)
    assert "the next offset is no longer in the topic" in stopped.stderr
    assert "--reset-offsets --to-earliest" in stopped.stderr
