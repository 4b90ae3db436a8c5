from __future__ import annotations

import pytest

from recsys.kafka.groups import assigned

# As Apache Kafka 4.1 returned it for a member that holds all four partitions of the topic "fence".
REAL = (
    b"\x00\x00\x00\x00\x00\x01\x00\x05fence\x00\x00\x00\x04"
    b"\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x02\x00\x00\x00\x03\x00\x00\x00\x00"
)


def test_an_assignment_is_read() -> None:
    assert assigned(REAL) == {"fence": [0, 1, 2, 3]}


@pytest.mark.parametrize(
    "content", [b"", b"\x00", REAL[:20], b"\xff" * 40, b"\x00\x00\x00\x00\x00\x01\x00\x02\xff\xfe"]
)
def test_what_is_no_assignment_names_nothing(content: bytes) -> None:
    assert assigned(content) == {}
