"""A log line every few seconds that says what the consumer does."""

from __future__ import annotations

import logging
import threading
import time
from types import TracebackType

from consumer.metrics import ConsumerMetrics
from recsys.runtime.metrics import quantile

log = logging.getLogger("consumer.stats")


class StatsLog:
    """Logs rates and latencies of each interval in which something happened, and of the last one."""

    def __init__(self, metrics: ConsumerMetrics, *, interval_s: float) -> None:
        self._metrics = metrics
        self._interval_s = interval_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stats", daemon=True)
        self._before = self._snapshot()

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
        now = self._snapshot()
        delta = {name: value - self._before.get(name, 0.0) for name, value in now.items()}
        self._before = now
        if not delta["records"] and not delta["published"]:
            return
        buckets = [(float(name[3:]), count) for name, count in delta.items() if name.startswith("le ")]
        buckets.sort()
        bounds = [bound for bound, _ in buckets]
        counts = [count - before for (_, count), before in zip(buckets, [0.0, *(c for _, c in buckets)], strict=False)]
        log.info(
            "records=%d (%.0f/s) applied=%d duplicates=%d dead_letters=%d no_user=%d prices_unread=%d "
            "solves=%d lists=%d rejected=%d latency_ms p50=%.1f p99=%.1f",
            delta["records"],
            delta["records"] / max(1e-9, delta["time"]),
            delta["applied"],
            delta["duplicates"],
            delta["dead_letters"],
            delta["no_user"],
            delta["unread_prices"],
            delta["solves"],
            delta["published"],
            delta["rejected"],
            1000 * quantile(bounds, counts, 0.5),
            1000 * quantile(bounds, counts, 0.99),
        )

    def _snapshot(self) -> dict[str, float]:
        metrics = self._metrics
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
        values = {name: next(iter(counter.collect())).samples[0].value for name, counter in counters.items()}
        values["time"] = time.monotonic()
        for sample in next(iter(metrics.latency.collect())).samples:
            if sample.name.endswith("_bucket"):
                values[f"le {sample.labels['le']}"] = sample.value
        return values
