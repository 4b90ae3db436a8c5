"""What the trainer counts."""

from __future__ import annotations

from datetime import datetime
from itertools import islice

from prometheus_client import CollectorRegistry, Counter, Gauge

from recsys.runtime.metrics import CheckGauge, EvictionGauges
from recsys.storage.rounds import RoundLog, RoundRecord
from trainer.shop_metrics import ShopMetrics

_MOST_RESTORED = 20


class TrainerMetrics:
    """What the trainer's rounds were like; exposed to Prometheus when `trainer.metrics_port` is set."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        def gauge(name: str, meaning: str, *labels: str) -> Gauge:
            return Gauge(f"recsys_trainer_{name}", meaning, labels, registry=self.registry)

        self.evictions = EvictionGauges("trainer", self.registry)
        self.shop = ShopMetrics()
        self.registry.register(self.shop)
        self.checks = CheckGauge("trainer", self.registry)
        self._rounds = Counter(
            "recsys_trainer_rounds", "Rounds by how they ended", ("state", "decision"), registry=self.registry
        )
        self._finished = gauge("last_round_timestamp_seconds", "When the newest round ended", "state")
        self._durations = gauge("stage_seconds", "How long each stage of the newest round took", "stage")
        self._counts = gauge("model", "What the newest model was fitted on", "what")
        self.aside = gauge("users_aside", "Users set aside because Redis has lost a part of what it held of them")
        self.topic_compacted = gauge(
            "topic_compacted", "1 if Kafka removes purchases from the topic before they expire (cleanup.policy=compact)"
        )
        self._quality = gauge("quality", "Means of the newest candidate on the hold-out", "metric")

    def restore(self, rounds: RoundLog) -> None:
        """Show how the newest rounds before this process ended, and when the last one succeeded, however long ago."""
        newest = reversed([*islice(rounds.newest_first(), _MOST_RESTORED)])
        success = islice((record for record in rounds.publications() if record.kind == "retrain"), 1)
        for record in (*success, *newest):
            if record.kind == "retrain":
                self._show(record)

    def note(self, record: RoundRecord) -> None:
        """Count a round."""
        self._rounds.labels(record.state, "" if record.gate is None else record.gate.decision).inc()
        self._show(record)

    def _show(self, record: RoundRecord) -> None:
        gate = record.gate
        self._finished.labels(record.state).set(datetime.fromisoformat(record.finished_at).timestamp())
        for stage, seconds in record.durations_s.items():
            self._durations.labels(stage).set(seconds)
        for what, count in record.counts.items():
            self._counts.labels(what).set(count)
        for metric, value in ({} if gate is None else gate.metrics()).items():
            self._quality.labels(metric).set(value)
