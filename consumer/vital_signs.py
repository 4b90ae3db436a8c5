"""What this consumer tells of itself in Redis; the thread of the heartbeat looks, the loop knows nothing of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from consumer.metrics import ConsumerMetrics
from consumer.rebalance import Assignment
from consumer.stats import Snapshot
from recsys.lists.live_model import LiveModel
from recsys.redis import AppliedOffsets
from recsys.redis.service_registry import ConsumerFacts, told

_WINDOW_S = 60.0


@dataclass(frozen=True, slots=True)
class _Look:
    counters: Snapshot
    applied: Mapping[str, int]
    """Source → next offset to be applied."""


class VitalSigns:
    """Looks at the counters again and again, and compares with what they were a minute ago."""

    def __init__(
        self, metrics: ConsumerMetrics, applied_offsets: AppliedOffsets, live: LiveModel, *, reading: str = ""
    ) -> None:
        self._reading = reading
        self._live = live
        self._metrics = metrics
        self._applied_offsets = applied_offsets
        self._looks = deque([self._look()])

    def facts(self) -> ConsumerFacts:
        """Return what is true now, and of the last minute."""
        now = self._look()
        self._looks.append(now)
        while len(self._looks) > 2 and self._looks[1].counters.at_s <= now.counters.at_s - _WINDOW_S:
            self._looks.popleft()
        change = now.counters.since(self._looks[0].counters)
        assignment = self._metrics.assignment
        return ConsumerFacts(
            partitions={} if assignment is None else self._rates(assignment),
            records_per_s=change.per_s("records"),
            p50_ms=change.latency_ms(0.5),
            p99_ms=change.latency_ms(0.99),
            model="" if (model := self._live.current) is None else model.stamp.version,
            paused=assignment is not None and assignment.paused,
            waiting_for=told(self._metrics.waiting_for),
            kafka_silent_s=next(iter(self._metrics.kafka_silent.collect())).samples[0].value,
            dead_letters=dict(self._metrics.reasons),
            reading=self._reading,
        )

    def _look(self) -> _Look:
        return _Look(Snapshot.of(self._metrics), self._applied_offsets.followed())

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
