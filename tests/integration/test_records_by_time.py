"""Where the records of the last hour begin, on a real broker and on one that cannot look by time."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from recsys.kafka.clients import open_reader
from recsys.kafka.embedded import embedded_broker
from recsys.kafka.records import offsets_at
from recsys.kafka.topics import describe_topic, end_offsets
from recsys.settings import KafkaSettings
from tests.services import KafkaServer

_HOUR_MS = 3_600_000
_NOW_MS = 1_795_000_000_000


@dataclass(frozen=True)
class Broker:
    address: str
    looks_by_time: bool


@pytest.fixture(params=["real", "embedded"])
def broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    if request.param == "real":
        server: KafkaServer = request.getfixturevalue("kafka")
        yield Broker(server.address, looks_by_time=server.is_real)
        return
    with embedded_broker() as address:
        yield Broker(address, looks_by_time=False)


def begins(broker: Broker, ages_h: list[float]) -> tuple[int, int, int]:
    """Write records of these ages; return the topic's first offset, where the last hour begins, and its end."""
    settings = KafkaSettings(bootstrap_servers=broker.address, topic=f"times-{uuid.uuid4().hex[:8]}")
    admin = AdminClient({"bootstrap.servers": broker.address})
    if broker.looks_by_time:
        for created in admin.create_topics([NewTopic(settings.topic, 2)]).values():
            created.result()
    producer = Producer({"bootstrap.servers": broker.address})
    producer.list_topics(settings.topic, timeout=10)  # the embedded broker creates what is asked for
    for age in ages_h:
        producer.produce(settings.topic, b"x", partition=0, timestamp=_NOW_MS - int(age * _HOUR_MS))
    assert producer.flush(30) == 0
    topic, reader = describe_topic(settings, settings.topic), open_reader(settings, "times")
    try:
        ends = end_offsets(reader, settings, topic)
        found = offsets_at(reader, settings, topic, _NOW_MS - _HOUR_MS, ends)
    finally:
        reader.close()
    first, end = ends[0]
    return first, found[0], end


def test_nothing_is_so_new(broker: Broker) -> None:
    assert begins(broker, [5, 4, 3]) == (0, 3, 3)
    assert begins(broker, []) == (0, 0, 0)


def test_where_a_broker_cannot_look_by_time_all_that_it_holds_is_taken_for_new(broker: Broker) -> None:
    assert begins(broker, [5, 4, 0.5, 0.1]) == (0, 2 if broker.looks_by_time else 0, 4)
