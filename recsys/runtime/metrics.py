"""A Prometheus histogram that takes many observations at once, and quantiles of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector


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


class EvictionGauges:
    """Whether Redis evicts keys, in the metrics of a service."""

    def __init__(self, service: str, registry: CollectorRegistry) -> None:
        def gauge(name: str, meaning: str) -> Gauge:
            # Workers that share their counts look at the same servers.
            return Gauge(f"recsys_{service}_redis_{name}", meaning, registry=registry, multiprocess_mode="max")

        self._evicted = gauge("evicted_keys", "Keys that Redis has evicted since its servers were started")
        self._may_evict = gauge("may_evict_histories", "1 if a Redis server is set to evict histories when it is full")

    def note(self, evicted: int, may_evict: bool) -> None:
        """Show what a look has found."""
        self._evicted.set(evicted)
        self._may_evict.set(may_evict)


class CheckGauge:
    """What of the checks of `recsys doctor` is wrong, in the metrics of a service."""

    def __init__(self, service: str, registry: CollectorRegistry) -> None:
        self._failed = Gauge(
            f"recsys_{service}_check_failed",
            "1 if a check of recsys doctor finds something wrong, by the code of the finding",
            ("check",),
            registry=registry,
            multiprocess_mode="livemax",
        )

    def note(self, code: str, is_wrong: bool) -> None:
        """Show what a look has found."""
        self._failed.labels(code).set(is_wrong)


def quantile(buckets: Mapping[float, float], q: float) -> float:
    """Return a quantile of a histogram, by interpolation inside its bucket.

    Parameters
    ----------
    buckets : mapping of float → float
        How many observations were at most so large, by the upper bound of the bucket, as Prometheus counts them; the
        largest bound may be infinite.
    q : float
        Between 0 and 1.

    Returns
    -------
    float; 0.0 when nothing was observed.
    """
    bounds = sorted(buckets)
    total = buckets[bounds[-1]] if bounds else 0.0
    below = lower = 0.0
    for bound in bounds:
        count = buckets[bound] - below
        if count and below + count >= q * total:
            if bound == float("inf"):
                return lower
            return lower + (bound - lower) * (q * total - below) / count
        below, lower = buckets[bound], bound
    return 0.0
