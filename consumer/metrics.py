"""What the consumer counts."""

from __future__ import annotations

from collections import Counter as Counts
from collections.abc import Collection

from prometheus_client import CollectorRegistry, Counter, Gauge

from consumer.batch import DecodedBatch
from consumer.rebalance import Assignment
from recsys.data.event import EventType
from recsys.data.reason_kinds import OTHERS, count_kind
from recsys.redis import UserState
from recsys.runtime.metrics import CheckGauge, EvictionGauges, Histogram

_LATENCY_BUCKETS_S = tuple(round(0.001 * 1.15**step, 6) for step in range(80))  # 1 ms to 62 s, 15 % apart
LONGEST_LATENCY_S = _LATENCY_BUCKETS_S[-1]
"""What takes longer is counted as over this."""


class ConsumerMetrics:
    """What the consumer counts; exposed to Prometheus when `consumer.metrics_port` is set."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        def counter(name: str, meaning: str, *labels: str) -> Counter:
            return Counter(f"recsys_consumer_{name}", meaning, labels, registry=self.registry)

        self.records = counter("records", "Records read from Kafka")
        self._events = counter("events", "Events that records held, also those that were applied before", "type")
        for kind in EventType:
            self._events.labels(kind)  # a series that begins with its first event would hide that event from rates
        self.applied = counter("events_applied", "Events that changed a history")
        self.duplicates = counter("events_duplicate", "Events recognized as applied before")
        self.dead_letters = counter(
            "dead_letters", "Malformed records sent to the dead-letter topic, by the kind of reason", "reason"
        )
        self.dead_letters.labels(OTHERS)  # as above
        self.assignment: Assignment | None = None
        """The partitions of the Kafka client that is in use."""
        self.waiting_for = ""
        """What is missing to serve; empty while nothing is."""
        self.reasons: Counts[str] = Counts()
        """Malformed records by the kind of reason."""
        self.cut_letters = counter(
            "dead_letters_cut", "Dead letters that hold a part of a record too large for the topic"
        )
        self.no_user = counter("events_no_user", "Events of ids that are no users (events.no_user), passed over")
        self.not_counted = counter("records_not_counted", "Records that the mapping (events.mapping) leaves out")
        self.lines_left_out = counter("lines_left_out", "Lines of records that the mapping leaves out")
        self.aside = counter("users_passed_over", "Times that events of a user who is set aside were passed over")
        self.unread_prices = counter("prices_unread", "Prices that are none, left out of their events")
        self.solves = counter("solves", "Users folded in and ranked")
        self.published = counter("lists_published", "Lists written")
        self.rejected = counter("lists_rejected", "Lists not written because a fresher one was, or was due")
        self.refused_models = counter("models_refused", "Published models that could not be loaded")
        self.outages = counter("outages", "Times that Redis or the dead-letter topic was away")
        self.restarts = counter("restarts", "Times that reading began again: Kafka client failed, Redis lost writes")
        self.evictions = EvictionGauges("consumer", self.registry)
        self.checks = CheckGauge("consumer", self.registry)
        self.model_sequence = Gauge(
            "recsys_consumer_model_sequence", "Sequence of the model in use", registry=self.registry
        )
        self.partitions = Gauge(
            "recsys_consumer_partitions", "Partitions assigned to this consumer", registry=self.registry
        )
        Gauge(
            "recsys_consumer_paused",
            "1 while reading waits for Redis or for the dead-letter topic",
            registry=self.registry,
        ).set_function(lambda: float(self.assignment is not None and self.assignment.paused))
        self.kafka_silent = Gauge(
            "recsys_consumer_kafka_silent_seconds",
            "Time since a Kafka broker last answered; 0 while they answer",
            registry=self.registry,
        )
        self.topic_compacted = Gauge(
            "recsys_consumer_topic_compacted",
            "1 if Kafka removes purchases from the topic before they expire (cleanup.policy=compact)",
            registry=self.registry,
        )
        self.latency = Histogram(
            "recsys_consumer_event_to_list_seconds",
            "Time from the record's timestamp to the list in Redis",
            bounds=_LATENCY_BUCKETS_S,
        )
        self.registry.register(self.latency)

    def note_waiting(self, problem: str) -> None:
        """Note what is missing to serve; empty = nothing."""
        self.waiting_for = problem

    def note_malformed(self, reason: str) -> None:
        """Count a dead letter."""
        self.dead_letters.labels(count_kind(self.reasons, reason)).inc()

    def note_decoded(self, decoded: DecodedBatch) -> None:
        """Count what decoding found, and what it left out."""
        types = Counts(placed.event.type for events in decoded.events.values() for placed in events)
        for type_, count in types.items():
            self._events.labels(type_).inc(count)
        self.no_user.inc(decoded.passed_over.no_user)
        self.unread_prices.inc(decoded.passed_over.prices)
        self.not_counted.inc(decoded.passed_over.records)
        self.lines_left_out.inc(decoded.passed_over.lines)

    def note_applied(self, states: Collection[UserState]) -> None:
        """Count what applying events led to."""
        self.applied.inc(sum(state.applied for state in states))
        self.duplicates.inc(sum(state.duplicates for state in states))
        self.aside.inc(sum(state.aside for state in states))
