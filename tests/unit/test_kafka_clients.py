"""Reading a range of offsets, in an order of events that a real broker shows too rarely to wait for."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import KafkaError, TopicPartition

from recsys.errors import Fenced, KafkaUnavailable, OffsetsLost
from recsys.kafka.records import read_range
from recsys.kafka.topics import Topic
from recsys.settings import KafkaSettings

TOPIC = Topic("purchases", "id", (0, 1))


class Record:
    """A record, or with an error code an event."""

    def __init__(self, partition: int, offset: int, error: int | None = None) -> None:
        self._at, self._error = (partition, offset), error

    def topic(self) -> str:
        return "purchases"

    def partition(self) -> int:
        return self._at[0]

    def offset(self) -> int:
        return self._at[1]

    def error(self) -> KafkaError | None:
        return None if self._error is None else KafkaError(self._error)


class Reader:
    """Gives out prepared batches."""

    def __init__(self, *batches: list[Record]) -> None:
        self.batches = list(batches)
        self.assigned: set[int] = set()

    def assign(self, places: list[TopicPartition]) -> None:
        self.assigned = {place.partition for place in places}

    def incremental_unassign(self, places: list[TopicPartition]) -> None:
        self.assigned -= {place.partition for place in places}

    def unassign(self) -> None:
        self.assigned.clear()

    def consume(self, most: int, timeout: float) -> list[Record]:
        return self.batches.pop(0)


def read(reader: Any, ranges: dict[int, tuple[int, int]]) -> list[tuple[int, int]]:
    return [(m.partition(), m.offset()) for m in read_range(reader, KafkaSettings(), TOPIC, ranges)]  # type: ignore[misc]


def test_end_of_a_replica_that_lags_is_not_the_end() -> None:
    eof = KafkaError._PARTITION_EOF
    reader = Reader([Record(0, 0), Record(0, 1), Record(0, 2, eof)], [Record(0, 2), Record(0, 3), Record(0, 4)])
    assert read(reader, {0: (0, 4)}) == [(0, 0), (0, 1), (0, 2), (0, 3)]


def test_markers_at_the_end_are_passed_over() -> None:
    reader = Reader([Record(0, 0), Record(1, 5)], [Record(0, 3, KafkaError._PARTITION_EOF)])
    assert read(reader, {0: (0, 3), 1: (5, 6)}) == [(0, 0), (1, 5)]


def test_nothing_to_read_asks_for_nothing() -> None:
    assert read(Reader(), {0: (4, 4)}) == []


def test_lost_offsets_are_an_error() -> None:
    with pytest.raises(OffsetsLost):
        read(Reader([Record(0, 0, KafkaError._AUTO_OFFSET_RESET)]), {0: (0, 4)})


def test_reader_that_has_failed_for_good_is_not_waited_for() -> None:
    with pytest.raises(KafkaUnavailable, match="the Kafka reader failed permanently"):
        read(Reader([Record(0, 0, KafkaError._FATAL)]), {0: (0, 4)})
    with pytest.raises(Fenced):
        read(Reader([Record(0, 0, KafkaError.FENCED_INSTANCE_ID)]), {0: (0, 4)})
