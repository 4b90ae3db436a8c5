"""The consumer group as the broker sees it, and what an operator does to it."""

from __future__ import annotations

from confluent_kafka import Consumer as KafkaConsumer
from confluent_kafka import ConsumerGroupState, ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient

from tests.services import Consumer, Shop, wait_until


class Group:
    """The group of a shop's consumers."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop
        self._id = shop.environment["RECSYS_KAFKA__GROUP_ID"]
        self._admin = AdminClient({"bootstrap.servers": shop.kafka.address, "log_level": 2})

    @property
    def state(self) -> ConsumerGroupState:
        """What the group is at."""
        state: ConsumerGroupState = self._admin.describe_consumer_groups([self._id])[self._id].result().state
        return state

    def committed(self) -> dict[int, int]:
        """Return the committed offsets by partition, of those that have one."""
        asked = [ConsumerGroupTopicPartitions(self._id)]
        answer = self._admin.list_consumer_group_offsets(asked)[self._id].result()
        return {place.partition: place.offset for place in answer.topic_partitions if place.offset >= 0}

    def lag(self) -> int:
        """Return how many records have yet to be committed."""
        committed = self.committed()
        return sum(end - committed.get(partition, 0) for partition, end in ends(self._shop).items())

    def reset(self, offsets: dict[int, int]) -> None:
        """Set the offsets from outside, as an operator may while the group has no members."""
        wait_until(lambda: self.state == ConsumerGroupState.EMPTY, "the group is empty")
        places = [TopicPartition(self._shop.topic, partition, offset) for partition, offset in offsets.items()]
        self._admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(self._id, places)])[self._id].result()

    def await_rebalancing(self) -> None:
        """Wait until a rebalance is under way that a member has yet to join."""
        wait_until(lambda: self.state == ConsumerGroupState.PREPARING_REBALANCING, "a rebalance is under way")

    def await_shared(self, members: list[Consumer], partitions: int = 4) -> None:
        """Wait until these members have all the partitions, and each at least one."""

        def shared() -> bool:
            counts = [member.metrics().get("partitions", 0) for member in members]
            return all(counts) and sum(counts) == partitions

        wait_until(shared, f"{len(members)} members share {partitions} partitions")


def ends(shop: Shop) -> dict[int, int]:
    """Return the offset that the next record of each partition of the purchases will have."""
    consumer = KafkaConsumer({"bootstrap.servers": shop.kafka.address, "group.id": "reader", "log_level": 2})
    try:
        partitions = consumer.list_topics(shop.topic, timeout=10).topics[shop.topic].partitions
        places = [TopicPartition(shop.topic, partition) for partition in partitions]
        return {place.partition: consumer.get_watermark_offsets(place, timeout=10)[1] for place in places}
    finally:
        consumer.close()
