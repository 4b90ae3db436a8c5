"""What this consumer tells of itself in Redis; the thread of the heartbeat looks, the loop knows nothing of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from consumer.metrics import LONGEST_LATENCY_S, ConsumerMetrics
from consumer.rebalance import Assignment
from consumer.stats import Snapshot
from recsys.lists.live_model import LiveModel
from recsys.redis import AppliedOffsets
from recsys.redis.service_registry import Checks, ConsumerFacts, told

_WINDOW_S = 60.0
_NEWEST_S = 15.0
"""Latencies are those of the newest lists: what was slow before must not hide that it is mended."""


@dataclass(frozen=True, slots=True)
class _Look:
    counters: Snapshot
    applied: Mapping[str, int]
    """Source → next offset to be applied."""
    model: str
    """Version of the model in use; empty if there is none."""


class VitalSigns:
    """Looks at the counters again and again, and compares with what they were a minute ago."""

    def __init__(
        self,
        metrics: ConsumerMetrics,
        applied_offsets: AppliedOffsets,
        live: LiveModel,
        *,
        checks: Callable[[], Checks],
        reading: str = "",
    ) -> None:
        self._reading = reading
        self._checks = checks
        self._live = live
        self._metrics = metrics
        self._applied_offsets = applied_offsets
        self._looks = deque([self._look()])
        self._without_lists_since_s: float | None = None

    def facts(self) -> ConsumerFacts:
        """Return what is true now, and of the last minute."""
        now = self._look()
        self._note_lists(self._looks[-1], now)
        self._looks.append(now)
        while len(self._looks) > 2 and self._looks[1].counters.at_s <= now.counters.at_s - _WINDOW_S:
            self._looks.popleft()
        change = now.counters.since(self._looks[0].counters)
        newest = now.counters.since(self._before_newest(now).counters)
        since_s = self._without_lists_since_s
        assignment = self._metrics.assignment
        return ConsumerFacts(
            partitions={} if assignment is None else self._rates(assignment),
            records_per_s=change.per_s("records"),
            p50_ms=newest.latency_ms(0.5),
            p99_ms=newest.latency_ms(0.99),
            longest_ms=1000 * LONGEST_LATENCY_S,
            without_lists_s=0.0 if since_s is None else now.counters.at_s - since_s,
            model=now.model,
            paused=assignment is not None and assignment.paused,
            waiting_for=told(self._metrics.waiting_for),
            kafka_silent_s=next(iter(self._metrics.kafka_silent.collect())).samples[0].value,
            dead_letters=dict(self._metrics.reasons),
            checks=self._checks(),
            reading=self._reading,
        )

    def _look(self) -> _Look:
        model = self._live.current
        version = "" if model is None else model.stamp.version
        return _Look(Snapshot.of(self._metrics), self._applied_offsets.followed(), version)

    def _before_newest(self, now: _Look) -> _Look:
        """Return the look since which all lists count as the newest ones."""
        before = [look for look in self._looks if look.counters.at_s <= now.counters.at_s - _NEWEST_S]
        return before[-1] if before else self._looks[0]

    def _note_lists(self, before: _Look, now: _Look) -> None:
        """Note since when events change histories and lead to no list; a new model comes with all lists."""
        change = now.counters.since(before.counters)
        if change.counts["published"] or any(change.latencies.values()) or now.model != before.model:
            self._without_lists_since_s = None
        elif change.counts["applied"] and self._without_lists_since_s is None:
            self._without_lists_since_s = now.counters.at_s  # not before: this may be in the middle of a batch

    def _rates(self, assignment: Assignment) -> dict[int, float]:
        """Return the records per second that were applied of each partition, in the last minute or since it is held."""
        return {
            partition: self._rate(assignment.topic.source(partition)) for partition in sorted(assignment.held.copy())
        }

    def _rate(self, source: str) -> float:
        known = [(look.counters.at_s, look.applied[source]) for look in self._looks if source in look.applied]
        if len(known) < 2:
            return 0.0
        (since_s, first), (until_s, last) = known[0], known[-1]
        return max(0, last - first) / max(1e-9, until_s - since_s)
