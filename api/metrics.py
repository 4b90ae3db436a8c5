"""What the API counts. Several workers share their counts through files, so that any of them can tell of all."""

from __future__ import annotations

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from recsys.runtime.metrics import CheckGauge, EvictionGauges
from recsys.settings.key_entries import KeyEntry

SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable of prometheus_client."""
_BOUNDS_S = tuple(round(0.0005 * 1.5**step, 5) for step in range(22))  # 0.5 ms to 2.5 s


class ApiMetrics:
    """Counters of requests, lists and failures."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()

        def counter(name: str, meaning: str, *labels: str) -> Counter:
            return Counter(f"recsys_api_{name}", meaning, labels, registry=self._registry)

        self._requests = counter("requests", "Requests by how they were answered", "route", "method", "status")
        self._seconds = Histogram(
            "recsys_api_request_seconds", "Time to answer", ("route",), buckets=_BOUNDS_S, registry=self._registry
        )
        self.lists = counter("lists", "Lists given out, by whose they are", "source")
        self.stale = counter("stale_lists", "Popular lists given out because Redis was away")
        self.outages = counter("redis_outages", "Times that Redis was found to be away")
        self.evictions = EvictionGauges("api", self._registry)
        self.checks = CheckGauge("api", self._registry)
        self.events = counter("events", "Events posted, by what became of them", "status")

        self.connections_ended = counter("connections_ended", "Connections ended by a budget, by which one", "reason")
        self.connections = Gauge(
            "recsys_api_connections", "Connections held", registry=self._registry, multiprocess_mode="livesum"
        )

        self.refused_keys = counter(
            "refused_keys",
            "Requests refused for their key: missing, wrong, expired, or slowed after too many wrong ones",
            "why",
        )

        of_key = ("key", "role", "entry")
        self._key_used = Gauge(
            "recsys_api_key_last_used_timestamp_seconds",
            "When a key was last used, by its name, role and entry in the setting",
            of_key,
            registry=self._registry,
            multiprocess_mode="max",
        )
        self._key_ends = Gauge(
            "recsys_api_key_ends_timestamp_seconds",
            "When a key ends; those that never do are left out",
            of_key,
            registry=self._registry,
            multiprocess_mode="livemax",
        )

        def gauge(name: str, meaning: str) -> Gauge:
            return Gauge(f"recsys_api_{name}", meaning, registry=self._registry, multiprocess_mode="livemax")

        self.kafka_silent = gauge(
            "kafka_silent_seconds",
            "Time since a Kafka broker last answered; 0 while they answer, and without purchases",
        )
        self.topic_compacted = gauge(
            "topic_compacted", "1 if Kafka removes purchases from the topic before they expire (cleanup.policy=compact)"
        )

    def note_request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count a request that has been answered; status 0 = nobody was left to take the answer."""
        self._requests.labels(route, method, status).inc()
        self._seconds.labels(route).observe(seconds)

    def note_key_used(self, entry: KeyEntry) -> None:
        """Note that a key is in use now."""
        self._key_used.labels(entry.name, entry.role, entry.place).set_to_current_time()

    def note_key_ends(self, entry: KeyEntry, at_s: float) -> None:
        """Show when a key ends, in epoch seconds."""
        self._key_ends.labels(entry.name, entry.role, entry.place).set(at_s)

    def text(self) -> bytes:
        """Return all counts, as Prometheus reads them."""
        if os.environ.get(SHARED_FOLDER):
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
            return generate_latest(registry)
        return generate_latest(self._registry)
