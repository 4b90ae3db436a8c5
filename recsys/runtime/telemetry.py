"""Logging and metrics."""

from __future__ import annotations

import logging
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

from recsys.evaluation.gate_record import RoundRecord

_LATENCY_BUCKETS_S = tuple(round(0.001 * 1.25**step, 6) for step in range(50))  # 1 ms to 56 s, 25 % apart


def configure_logging(level: str) -> None:
    """Write log lines to standard error, UTC, one line each."""
    handler = logging.StreamHandler(sys.stderr)
    formatter = logging.Formatter("%(asctime)s.%(msecs)03dZ %(levelname)-7s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("implicit").setLevel(logging.WARNING)


class RepeatsLeftOut(logging.Filter):
    """Lets a message that differs from an earlier one in digits alone pass only every so often."""

    def __init__(self, *, every_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._every_s = every_s
        self._clock = clock
        self._said: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether the message may pass."""
        words = re.sub(r"\d+", "", record.getMessage())
        now = self._clock()
        if now - self._said.get(words, float("-inf")) < self._every_s:
            return False
        if len(self._said) > 1000:
            self._said.clear()
        self._said[words] = now
        return True


class ConsumerMetrics:
    """What the consumer counts; exposed to Prometheus when `consumer.metrics_port` is set."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        def counter(name: str, meaning: str) -> Counter:
            return Counter(f"recsys_consumer_{name}", meaning, registry=self.registry)

        self.records = counter("records", "Records read from Kafka")
        self.applied = counter("events_applied", "Events that changed a history")
        self.duplicates = counter("events_duplicate", "Events recognized as applied before")
        self.dead_letters = counter("dead_letters", "Malformed records sent to the dead-letter topic")
        self.solves = counter("solves", "Users folded in and ranked")
        self.published = counter("lists_published", "Lists written")
        self.rejected = counter("lists_rejected", "Lists not written because a fresher one was, or was due")
        self.refused_models = counter("models_refused", "Published models that could not be loaded")
        self.outages = counter("outages", "Times that Redis or the dead-letter topic was away")
        self.restarts = counter("restarts", "Times that reading began again: Kafka client failed, Redis lost writes")
        self.model_sequence = Gauge(
            "recsys_consumer_model_sequence", "Sequence of the model in use", registry=self.registry
        )
        self.partitions = Gauge(
            "recsys_consumer_partitions", "Partitions assigned to this consumer", registry=self.registry
        )
        self.latency = Histogram(
            "recsys_consumer_event_to_list_seconds",
            "Time from the record's timestamp to the list in Redis",
            bounds=_LATENCY_BUCKETS_S,
        )
        self.registry.register(self.latency)


class TrainerMetrics:
    """What the trainer's rounds were like; exposed to Prometheus when `trainer.metrics_port` is set."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        def gauge(name: str, meaning: str, *labels: str) -> Gauge:
            return Gauge(f"recsys_trainer_{name}", meaning, labels, registry=self.registry)

        self._rounds = Counter(
            "recsys_trainer_rounds", "Rounds by how they ended", ("state", "decision"), registry=self.registry
        )
        self._finished = gauge("last_round_timestamp_seconds", "When the newest round ended", "state")
        self._durations = gauge("stage_seconds", "How long each stage of the newest round took", "stage")
        self._counts = gauge("model", "What the newest model was fitted on", "what")
        self._quality = gauge("quality", "Means of the newest candidate on the hold-out", "metric")

    def note(self, record: RoundRecord) -> None:
        """Count a round."""
        gate = record.gate
        self._rounds.labels(record.state, "" if gate is None else gate.decision).inc()
        self._finished.labels(record.state).set(datetime.fromisoformat(record.finished_at).timestamp())
        for stage, seconds in record.durations_s.items():
            self._durations.labels(stage).set(seconds)
        for what, count in record.counts.items():
            self._counts.labels(what).set(count)
        for metric, value in ({} if gate is None else gate.metrics()).items():
            self._quality.labels(metric).set(value)


class Histogram(Collector):
    """A Prometheus histogram that takes many observations at once.

    Parameters
    ----------
    bounds : sequence of float
        Upper bounds of the buckets, increasing; one without bound follows.
    """

    def __init__(self, name: str, meaning: str, *, bounds: Sequence[float]) -> None:
        self._name = name
        self._meaning = meaning
        self._bounds = np.array(bounds)
        self._counts = np.zeros(len(bounds) + 1, np.int64)
        self._sum = 0.0

    def observe(self, values: NDArray[np.float64]) -> None:
        """Count values; call it from one thread only."""
        places = np.searchsorted(self._bounds, values)
        self._counts = self._counts + np.bincount(places, minlength=len(self._counts))
        self._sum += float(values.sum())

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """Yield the counts so far, as Prometheus wants them."""
        bounds = [*map(str, self._bounds.tolist()), "+Inf"]
        counts = np.cumsum(self._counts).tolist()
        yield HistogramMetricFamily(
            self._name, self._meaning, buckets=list(zip(bounds, counts, strict=True)), sum_value=self._sum
        )


def quantile(bounds: Sequence[float], counts: Sequence[float], q: float) -> float:
    """Return a quantile of a histogram, by interpolation inside its bucket.

    Parameters
    ----------
    bounds : sequence of float
        Upper bounds of the buckets, increasing; the last may be infinite.
    counts : sequence of float
        Observations in each bucket, not accumulated.
    q : float
        Between 0 and 1.

    Returns
    -------
    float; 0.0 when nothing was observed.
    """
    total = sum(counts)
    below = 0.0
    lower = 0.0
    for bound, count in zip(bounds, counts, strict=True):
        if count and below + count >= q * total:
            if bound == float("inf"):
                return lower
            return lower + (bound - lower) * (q * total - below) / count
        below += count
        lower = bound
    return 0.0
