"""What neither the archive nor Kafka can bring back."""

from __future__ import annotations

from collections.abc import Iterator

from recsys.kafka.topics import Topic
from recsys.redis import Store


def purchases_lost(
    store: Store, positions: dict[str, dict[int, int]], topic: Topic, watermarks: dict[int, tuple[int, int]]
) -> Iterator[str]:
    """Yield which purchases of topics neither the archive nor Kafka can bring back."""
    for partition, (low, _) in watermarks.items():
        position = positions.get(topic.id, {}).get(partition, 0)
        if position < low:
            where = f"{topic.name}[{partition}]: offsets {position} to {low - 1}"
            yield f"{where} are neither archived nor in Kafka any more"
    for source, mark in store.applied_offsets.everything().items():
        of_topic, _, number = source.rpartition(":")
        position = positions.get(of_topic, {}).get(int(number), 0)
        if of_topic != topic.id and mark > position:
            yield f"offsets {position} to {mark - 1} of {source}, a topic that is no more, are in Redis alone"
