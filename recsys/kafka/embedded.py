"""The embedded broker of librdkafka: for a demo and for faults in tests, never a proof."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from recsys.errors import KafkaUnavailable
from recsys.kafka.clients import KafkaException, Producer


def create_by_asking(address: str, *topics: str) -> None:
    """Create topics at an embedded broker that runs: it knows no other way."""
    client = Producer({"bootstrap.servers": address})
    for topic in topics:
        client.list_topics(topic, timeout=10)


@contextmanager
def embedded_broker(*topics: str) -> Iterator[str]:
    """Run librdkafka's embedded broker, in memory, and yield its address; other processes can connect, too.

    It is good for a demo, never a proof: 4 partitions a topic, no topic ids, the oldest data dropped at 5 MiB a
    partition.
    """
    broker = Producer({"bootstrap.servers": "unused", "test.mock.num.brokers": 1, "log_level": 2})
    try:
        brokers = broker.list_topics(timeout=10).brokers.values()
        for topic in topics:
            broker.list_topics(topic, timeout=10)  # asking for a topic creates it
    except KafkaException as error:
        raise KafkaUnavailable(f"the embedded broker did not start: {error}") from error
    yield ",".join(f"{place.host}:{place.port}" for place in brokers)
    broker.flush(0)
