"""What neither the archive nor Kafka can bring back."""

from __future__ import annotations

from collections.abc import Iterator

from recsys.kafka.cleanup_policy import cleanup_policy, is_compacted
from recsys.kafka.clients import open_reader
from recsys.kafka.topics import Topic, describe_topic, end_offsets
from recsys.redis import Store
from recsys.settings import KafkaSettings, Settings
from recsys.storage.archive import Archive
from recsys.storage.data_dir import DataDir


def all_losses(settings: Settings, store: Store, data_dir: DataDir) -> list[str]:
    """Return which purchases neither the archive nor Kafka can bring back, or perhaps not."""
    archive = data_dir.archive
    topic = describe_topic(settings.kafka, settings.kafka.topic)
    reader = open_reader(settings.kafka, "losses")
    try:
        watermarks = end_offsets(reader, settings.kafka, topic)
    finally:
        reader.close()
    positions = archive.positions()
    return [
        *purchases_lost(store, positions, topic, watermarks),
        *compacted_away(settings.kafka, archive, positions, topic, watermarks),
    ]


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


def compacted_away(
    settings: KafkaSettings,
    archive: Archive,
    positions: dict[str, dict[int, int]],
    topic: Topic,
    watermarks: dict[int, tuple[int, int]],
) -> Iterator[str]:
    """Yield what compaction may have removed before it was archived, or may yet, if the topic is still compacted."""
    yield from archived_compacted(archive)
    if is_compacted(cleanup_policy(settings)):
        for partition, (low, end) in watermarks.items():
            position = max(positions.get(topic.id, {}).get(partition, low), low)
            if position < end:
                yield f"{topic.name}[{partition}] is compacted, and offsets {position} to {end - 1} are not archived"


def archived_compacted(archive: Archive) -> Iterator[str]:
    """Yield what was archived of a compacted topic: purchases may have been gone before they were archived.

    Segments say so themselves. That offsets are missing says nothing: the markers of transactions have some as well.
    """
    found = [(segment, archive.cleanup_policy(segment)) for segment in archive.segments()]
    compacted = [segment for segment, policy in found if is_compacted(policy)]
    ranges: dict[tuple[str, int], list[tuple[int, int]]] = {}
    for segment in sorted(compacted, key=lambda segment: (segment.source, segment.partition, segment.first)):
        known = ranges.setdefault((segment.source, segment.partition), [])
        if known and segment.first <= known[-1][1] + 1:
            known[-1] = (known[-1][0], max(known[-1][1], segment.last))
        else:
            known.append((segment.first, segment.last))
    for (source, partition), ends in ranges.items():
        told = ", ".join(f"{first} to {last}" for first, last in ends)
        yield f"offsets {told} of {source}, partition {partition}, were archived from a compacted topic"
