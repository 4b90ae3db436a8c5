"""What the trainer counts."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Gauge

from recsys.runtime.metrics import CheckGauge, EvictionGauges
from recsys.storage.rounds import RoundRecord
from trainer.shop_metrics import ShopMetrics

_STATES = ("succeeded", "rejected", "failed")


class TrainerMetrics:
    """What the trainer's rounds were like; exposed to Prometheus when `trainer.metrics_port` is set."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        def gauge(name: str, meaning: str, *labels: str) -> Gauge:
            return Gauge(f"recsys_trainer_{name}", meaning, labels, registry=self.registry)

        self.evictions = EvictionGauges("trainer", self.registry)
        self.shop = ShopMetrics()
        self.registry.register(self.shop)
        self._rows: dict[str, int] = {}
        """The state of the newest round, and how many have ended so without another in between."""
        self.checks = CheckGauge("trainer", self.registry)
        self._rounds = Counter(
            "recsys_trainer_rounds", "Rounds by how they ended", ("state", "decision"), registry=self.registry
        )
        self._finished = gauge("last_round_timestamp_seconds", "When the newest round ended", "state")
        self._durations = gauge("stage_seconds", "How long each stage of the newest round took", "stage")
        self._in_a_row = gauge(
            "rounds_in_a_row", "How many of the newest rounds have ended like this, without another in between", "state"
        )
        self._counts = gauge("model", "What the newest model was fitted on", "what")
        self.aside = gauge("users_aside", "Users set aside because Redis has lost a part of what it held of them")
        self.topic_compacted = gauge(
            "topic_compacted", "1 if Kafka removes purchases from the topic before they expire (cleanup.policy=compact)"
        )
        self._quality = gauge("quality", "Means of the newest candidate on the hold-out", "metric")

    def restore(self, newest_first: Iterable[RoundRecord]) -> None:
        """Show how the rounds before this process ended, and the newest of them with its model and its stages."""
        records = [record for record in newest_first if record.kind == "retrain"]
        for record in reversed(records):
            self._show(record)

    def note(self, record: RoundRecord) -> None:
        """Count a round."""
        self._rounds.labels(record.state, "" if record.gate is None else record.gate.decision).inc()
        self._show(record)

    def _show(self, record: RoundRecord) -> None:
        gate = record.gate
        self._finished.labels(record.state).set(datetime.fromisoformat(record.finished_at).timestamp())
        self._rows = {record.state: self._rows.get(record.state, 0) + 1}
        for state in _STATES:
            self._in_a_row.labels(state).set(self._rows.get(state, 0))
        for stage, seconds in record.durations_s.items():
            self._durations.labels(stage).set(seconds)
        for what, count in record.counts.items():
            self._counts.labels(what).set(count)
        for metric, value in ({} if gate is None else gate.metrics()).items():
            self._quality.labels(metric).set(value)
