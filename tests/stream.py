"""What several end-to-end tests do to a shop."""

from __future__ import annotations

from confluent_kafka import Producer

from tests.services import Consumer, Shop, wait_until


def publish(shop: Shop, records: list[tuple[str, bytes]]) -> None:
    """Publish (key, value) records and wait until all are delivered."""
    producer = Producer({"bootstrap.servers": shop.kafka.address, "enable.idempotence": True})
    for key, value in records:
        producer.produce(shop.topic, value, key.encode())
    assert producer.flush(30) == 0


def await_records(consumer: Consumer, count: int) -> None:
    """Wait until a consumer has read so many records."""
    wait_until(lambda: consumer.metrics().get("records_total", 0) >= count, f"the consumer has read {count} records")
