"""What a consumer tells of itself: rates and latencies of the last minute, partitions, what it waits for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from consumer import stats
from consumer.metrics import ConsumerMetrics
from consumer.stats import Snapshot
from consumer.vital_signs import VitalSigns
from recsys.kafka.topics import Topic


class Clock:
    """The monotonic clock of the modules under test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 1_000.0
        monkeypatch.setattr(stats, "time", SimpleNamespace(monotonic=lambda: self.now_s))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


class Consumer:
    """The parts of a consumer that its vital signs look at."""

    def __init__(self) -> None:
        self.metrics = ConsumerMetrics()
        self.applied: dict[str, int] = {}
        self.live = SimpleNamespace(current=None)
        self.assignment: Any = SimpleNamespace(topic=Topic("purchases", "id", (0, 1)), held={1: 1, 0: 1}, paused=False)
        offsets: Any = SimpleNamespace(followed=lambda: dict(self.applied))
        live: Any = self.live
        self.signs = VitalSigns(self.metrics, offsets, live, checks=lambda: {"topic-compacted": "broken"})


def test_rates_are_those_of_the_last_minute_and_latencies_those_of_the_newest_lists(clock: Clock) -> None:
    consumer = Consumer()
    for second in range(0, 130, 5):
        clock.now_s = 1_000.0 + second
        slow = second < 60
        consumer.metrics.latency.observe(np.full(10, 20.0 if slow else 0.01))
        consumer.metrics.records.inc(1_000 if slow else 50)
        facts = consumer.signs.facts()
        assert facts.p99_ms is not None
        if slow:
            assert facts.p99_ms > 15_000
        if second > 60 + 15:
            assert facts.p99_ms < 13
    assert facts.records_per_s == pytest.approx(10, rel=0.1)


def test_a_latency_above_all_buckets_is_the_longest_that_is_told(clock: Clock) -> None:
    consumer = Consumer()
    consumer.metrics.latency.observe(np.full(10, 500.0))
    clock.now_s += 5
    facts = consumer.signs.facts()
    assert facts.p50_ms == facts.p99_ms == facts.longest_ms
    assert facts.longest_ms == pytest.approx(62_000, rel=0.01)


def test_for_how_long_events_lead_to_no_list_is_told_until_they_do_or_a_model_comes(clock: Clock) -> None:
    consumer = Consumer()

    def after_5_s() -> float:
        clock.now_s += 5
        return consumer.signs.facts().without_lists_s

    assert after_5_s() == 0.0
    consumer.metrics.records.inc()  # a malformed one, say
    assert after_5_s() == 0.0
    consumer.metrics.applied.inc()  # it may be in the middle of a batch
    assert after_5_s() == 0.0
    assert [after_5_s(), after_5_s()] == [5.0, 10.0]
    consumer.metrics.published.inc()
    assert after_5_s() == 0.0
    consumer.metrics.applied.inc()
    assert [after_5_s(), after_5_s()] == [0.0, 5.0]
    consumer.live.current = SimpleNamespace(stamp=SimpleNamespace(version="v1"))
    assert [after_5_s(), after_5_s()] == [0.0, 0.0]


def test_there_is_no_latency_where_nothing_came(clock: Clock) -> None:
    consumer = Consumer()
    clock.now_s += 5
    facts = consumer.signs.facts()
    assert (facts.p50_ms, facts.p99_ms, facts.records_per_s) == (None, None, 0.0)


def test_partitions_are_told_with_the_rate_at_which_they_are_applied_since_they_are_held(clock: Clock) -> None:
    consumer = Consumer()
    assert consumer.signs.facts().partitions == {}  # no Kafka client yet
    consumer.metrics.assignment = consumer.assignment
    for second in range(0, 30, 5):
        clock.now_s = 2_000.0 + second
        consumer.applied = {"id:0": 7_000_000 + 100 * second, "id:1": 3}
        facts = consumer.signs.facts()
    assert facts.partitions == {0: pytest.approx(100), 1: 0.0}
    consumer.metrics.assignment = None
    assert consumer.signs.facts().partitions == {}


def test_what_a_consumer_waits_for_and_its_malformed_records_are_told(clock: Clock) -> None:
    consumer = Consumer()
    consumer.metrics.kafka_silent.set(12.5)
    assert consumer.signs.facts().waiting_for == ""
    consumer.metrics.note_waiting("Redis: \x1b[31m" + 2_000 * "x")
    assert consumer.signs.facts().waiting_for.startswith("Redis: \\u001b[31mxxx")
    assert len(consumer.signs.facts().waiting_for) == 1_000
    consumer.metrics.note_malformed("quantity: 0 is not above 0")
    consumer.metrics.note_malformed("quantity: 0.0 is not above 0")
    consumer.metrics.assignment = consumer.assignment
    assert not consumer.signs.facts().paused
    consumer.assignment.paused = True
    facts = consumer.signs.facts()
    assert facts.paused
    assert facts.kafka_silent_s == 12.5
    assert facts.dead_letters == {"quantity: 0 is not above 0": 2}
    assert facts.checks == {"topic-compacted": "broken"}


def test_a_change_has_the_quantiles_of_what_came_between_two_looks(clock: Clock) -> None:
    metrics = ConsumerMetrics()
    metrics.latency.observe(np.full(1_000, 30.0))
    before = Snapshot.of(metrics)
    metrics.latency.observe(np.array([0.010] * 98 + [1.0] * 2))
    change = Snapshot.of(metrics).since(before)
    assert change.latency_ms(0.5) == pytest.approx(10, rel=0.25)
    assert change.latency_ms(0.99) == pytest.approx(1_000, rel=0.25)
