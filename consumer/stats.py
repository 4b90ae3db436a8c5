"""What the consumer does: a log line every few seconds, and what has changed between two looks at its counters."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType

from prometheus_client import Counter

from consumer.metrics import ConsumerMetrics
from recsys.logger import logger
from recsys.runtime.metrics import quantile

log = logger("consumer.stats")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the counters hold at one moment.

    Attributes
    ----------
    at_s : float
        On the monotonic clock.
    counts : mapping of str → float
    latencies : mapping of float → float
        How many lists took at most so many seconds, by the upper bound of the bucket.
    """

    at_s: float
    counts: Mapping[str, float]
    latencies: Mapping[float, float]

    @classmethod
    def of(cls, metrics: ConsumerMetrics) -> Snapshot:
        """Look at the counters."""
        counters = {
            "records": metrics.records,
            "applied": metrics.applied,
            "duplicates": metrics.duplicates,
            "dead_letters": metrics.dead_letters,
            "no_user": metrics.no_user,
            "unread_prices": metrics.unread_prices,
            "solves": metrics.solves,
            "published": metrics.published,
            "rejected": metrics.rejected,
        }
        counts = {name: total(counter) for name, counter in counters.items()}
        samples = next(iter(metrics.latency.collect())).samples
        latencies = {float(sample.labels["le"]): sample.value for sample in samples if sample.name.endswith("_bucket")}
        return cls(time.monotonic(), counts, latencies)

    def since(self, before: Snapshot) -> Change:
        """Return what has happened since an earlier look."""
        counts = {name: value - before.counts[name] for name, value in self.counts.items()}
        latencies = {bound: value - before.latencies[bound] for bound, value in self.latencies.items()}
        return Change(self.at_s - before.at_s, counts, latencies)


def total(counter: Counter) -> float:
    """Return a counter, summed over its labels."""
    samples = next(iter(counter.collect())).samples
    return float(sum(sample.value for sample in samples if sample.name.endswith("_total")))


@dataclass(frozen=True, slots=True)
class Change:
    """What has happened between two looks; the fields are those of `Snapshot`."""

    seconds: float
    counts: Mapping[str, float]
    latencies: Mapping[float, float]

    def per_s(self, name: str) -> float:
        """Return the rate of a counter."""
        return self.counts[name] / max(1e-9, self.seconds)

    def latency_ms(self, q: float) -> float | None:
        """Return a quantile of the time from a record to the lists; None where there was no record."""
        return 1000 * quantile(self.latencies, q) if any(self.latencies.values()) else None


class StatsLog:
    """Logs rates and latencies of each interval in which something happened, and of the last one."""

    def __init__(self, metrics: ConsumerMetrics, *, interval_s: float) -> None:
        self._metrics = metrics
        self._interval_s = interval_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stats", daemon=True)
        self._before = Snapshot.of(metrics)

    def __enter__(self) -> StatsLog:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._log()

    def _run(self) -> None:
        while not self._stop.wait(self._interval_s):
            self._log()

    def _log(self) -> None:
        now = Snapshot.of(self._metrics)
        change, self._before = now.since(self._before), now
        counts = change.counts
        if not counts["records"] and not counts["published"]:
            return
        log.info(
            "progress",
            "records={records} ({records_per_s:.0f}/s) applied={applied} duplicates={duplicates} "
            "dead_letters={dead_letters} no_user={no_user} prices_unread={prices_unread} solves={solves} "
            "lists={lists} rejected={rejected} latency_ms p50={latency_p50_ms:.1f} p99={latency_p99_ms:.1f}",
            records=counts["records"],
            records_per_s=change.per_s("records"),
            applied=counts["applied"],
            duplicates=counts["duplicates"],
            dead_letters=counts["dead_letters"],
            no_user=counts["no_user"],
            prices_unread=counts["unread_prices"],
            solves=counts["solves"],
            lists=counts["published"],
            rejected=counts["rejected"],
            latency_p50_ms=change.latency_ms(0.5) or 0.0,
            latency_p99_ms=change.latency_ms(0.99) or 0.0,
        )
