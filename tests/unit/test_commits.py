"""Commits that brokers refuse are said at growing intervals, and when they are taken again."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError, TopicPartition

from consumer.commits import RefusedCommits
from recsys.settings import KafkaSettings

REFUSED = KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED)


class Clock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def test_what_stays_refused_is_said_after_a_moment_and_at_growing_intervals(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    commits = RefusedCommits(KafkaSettings(), clock=clock)
    with caplog.at_level("INFO"):
        for _ in range(40):
            commits.answered(REFUSED, [])
            clock.now += 1
    lines = [record.message for record in caplog.records]
    assert len(lines) == 3, "after 3 s, 13 s and 33 s"
    assert all("no READ right for this user on group recsys" in line for line in lines)


def test_one_refusal_is_not_said_and_an_answer_begins_anew(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    commits = RefusedCommits(KafkaSettings(), clock=clock)
    with caplog.at_level("INFO"):
        for _ in range(5):
            commits.answered(REFUSED, [])
            clock.now += 2
            commits.answered(None, [TopicPartition("purchases", 0, 5)])
            clock.now += 2
    assert not caplog.records


def test_that_commits_are_taken_again_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    commits = RefusedCommits(KafkaSettings(), clock=clock)
    with caplog.at_level("INFO"):
        for _ in range(5):
            commits.answered(REFUSED, [])
            clock.now += 1
        for _ in range(2):
            commits.answered(None, [])
    said = [record.message for record in caplog.records]
    assert [line.split(":")[0] for line in said] == [
        "the offsets of what is done cannot be committed", "commits are taken again",
    ]  # fmt: skip
