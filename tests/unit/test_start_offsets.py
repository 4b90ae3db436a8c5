"""Where reading starts: what Redis holds counts, an operator's reset is obeyed, a loss is never passed over."""

from __future__ import annotations

import pytest
from confluent_kafka import TopicPartition

from recsys.errors import WritesLost
from recsys.kafka.start_offsets import _start, place_to_commit
from recsys.kafka.topics import Topic

TOPIC = Topic("purchases", "id-1", (0, 1))
FORMER = Topic("purchases", "id-0", (0, 1))
OLDEST = None


def ours(offset: int, topic: Topic = TOPIC) -> TopicPartition:
    return place_to_commit(topic, 0, offset)


@pytest.mark.parametrize(
    ("committed", "mark", "expected"),
    [
        (TopicPartition("purchases", 0, -1001), None, OLDEST),
        (TopicPartition("purchases", 0, -1001), 70, 70),  # it died before its first commit
        (ours(100), 100, 100),
        (ours(100), 70, 70),  # Redis has lost writes
        (ours(100), 130, 100),  # effects are written before offsets are committed
        (TopicPartition("purchases", 0, 0), 100, 0),  # the operator has the stream read again
        (TopicPartition("purchases", 0, 500), 100, 500),  # the operator skips records
        (TopicPartition("purchases", 0, 100), None, 100),  # an operator who begins with an empty Redis
        (ours(100, FORMER), None, OLDEST),  # the topic was created again
        (ours(100, FORMER), 5, 5),
    ],
)
def test_start(committed: TopicPartition, mark: int | None, expected: int | None) -> None:
    assert _start(TOPIC, committed, mark) == expected


def test_redis_without_what_the_group_has_written_is_an_error() -> None:
    with pytest.raises(WritesLost, match=r"purchases\[0\] was applied up to offset 100.*recsys rebuild"):
        _start(TOPIC, ours(100), None)
