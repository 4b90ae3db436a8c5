"""What a round tells: those who wait for it, operators afterwards, and Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from recsys.errors import DataDirError, RedisError
from recsys.evaluation.gate_record import GateRecord
from recsys.logger import logger
from recsys.redis import Store
from recsys.redis.trainer_requests import Requests
from recsys.runtime.clock import json_time
from recsys.storage.rounds import RoundLog, RoundRecord
from trainer.metrics import TrainerMetrics

log = logger(__name__)


@dataclass(frozen=True, slots=True)
class RoundOutcome:
    """What a round has led to so far.

    Attributes
    ----------
    version : str
        Published or rejected; empty if nothing was written.
    published : bool
        Whether the model is live.
    live_before : str
        Empty if there was none.
    lists, similar : int
        Written.
    """

    version: str = ""
    published: bool = False
    live_before: str = ""
    gate: GateRecord | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    lists: int = 0
    similar: int = 0


class RoundReport:
    """Tells how far a round is, and how it ended.

    Parameters
    ----------
    requests : Requests
        Those that the round serves.
    asked_by : str
        See `recsys.storage.rounds.RoundRecord`.
    """

    def __init__(
        self,
        store: Store,
        rounds: RoundLog,
        metrics: TrainerMetrics,
        requests: Requests,
        *,
        asked_by: str,
        clock: Callable[[], datetime],
    ) -> None:
        self._trainer = store.trainer
        self._rounds = rounds
        self._metrics = metrics
        self._requests = requests
        self._asked_by = asked_by
        self._clock = clock
        self._started_at = json_time(clock())
        self._status: dict[str, object] = {"request": requests.requested, "started_at": self._started_at}

    def tell(self, stage: str, done: int, total: int | None) -> None:
        """Tell those who wait how far the round is."""
        try:
            self._trainer.write_status(
                {**self._status, "state": "running", "stage": stage, "done": done, "total": total}
            )
        except RedisError as error:
            log.debug("status_not_written", "status: {error}", error=error)

    def done(self, outcome: RoundOutcome, durations_s: dict[str, float]) -> None:
        """Record a round that has published a model, or whose model the gate has rejected."""
        record = self._record("succeeded" if outcome.published else "rejected", outcome, durations_s)
        self._leave(record, lists=outcome.lists, similar=outcome.similar)

    def failed(self, outcome: RoundOutcome, durations_s: dict[str, float], reason: str) -> None:
        """Record a round that failed."""
        self._leave(self._record("failed", outcome, durations_s, error=reason))

    def nothing_to_do(self, reason: str) -> None:
        """Tell those who wait that there was nothing to do; no record is kept."""
        self._trainer.finish(self._requests, {**self._status, "state": "failed", "error": reason})

    def _record(
        self, state: str, outcome: RoundOutcome, durations_s: dict[str, float], *, error: str = ""
    ) -> RoundRecord:
        return RoundRecord(
            kind="retrain",
            asked_by=self._asked_by,
            request=self._requests.requested,
            started_at=self._started_at,
            finished_at=json_time(self._clock()),
            state=state,
            error=error,
            published=outcome.published,
            version=outcome.version,
            live_before=outcome.live_before,
            counts=dict(outcome.counts),
            durations_s=durations_s,
            gate=outcome.gate,
        )

    def _leave(self, record: RoundRecord, **more: object) -> None:
        self._metrics.note(record)
        try:
            self._rounds.add(record, at=self._clock())
        except DataDirError as error:
            log.warning("round_record_not_written", "the record of the round was not written: {error}", error=error)
        # Gate and counts at the top level as well: see recsys retrain --wait.
        fields = {**self._status, **record.model_dump(mode="json"), **record.counts, **more}
        self._trainer.finish(self._requests, fields)
