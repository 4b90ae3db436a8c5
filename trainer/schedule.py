"""When the trainer does its rounds."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from croniter import croniter

from recsys.errors import RecsysError
from recsys.logger import logger
from recsys.redis import Store
from recsys.runtime.clock import now
from recsys.settings import TrainerSettings

log = logger(__name__)
_FARTHEST_S = 100 * 365 * 24 * 3600.0
"""An interval may be longer than the calendar."""
_RETRY_S, _LONGEST_RETRY_S = 10.0, 600.0


class Schedule:
    """When the next round is due, on the monotonic clock: a clock that is set back must not hold it up."""

    def __init__(self, settings: TrainerSettings) -> None:
        self._cron = settings.cron
        self._interval_s = settings.interval_s
        self._failures = 0
        self.due = time.monotonic()

    def __str__(self) -> str:
        return f"at {self._cron} (cron, UTC)" if self._cron else f"every {self._interval_s:g} s"

    @property
    def due_at(self) -> datetime:
        """When the next round is due, as the clock says now; a moment ago if it is due already."""
        return now() + timedelta(seconds=min(_FARTHEST_S, self.due - time.monotonic()))

    @property
    def is_due(self) -> bool:
        """Whether a round is to be done now."""
        return time.monotonic() >= self.due

    def begin(self, store: Store) -> None:
        """Let the first round be due at once, unless the newest one is young and was completed."""
        self.due = time.monotonic()
        try:
            pointer = store.pointer.read()
            last = store.trainer.status()
        except RecsysError as error:
            log.warning("model_age_unknown", "cannot tell how old the live model is: {error}", error=error)
            return
        if pointer is None:
            return
        if last.get("state") == "succeeded" and last.get("version") == pointer.version:
            done = pointer.published_at
        elif last.get("state") == "rejected" and last.get("live_before") == pointer.version:
            done = str(last.get("finished_at"))
        else:
            return
        try:
            completed = datetime.fromisoformat(done).astimezone(UTC)
        except (ValueError, OverflowError):
            return  # no round has written that
        if self._cron:
            due_in_s = self._until_next(min(completed, now()))
        else:
            age_s = (now() - completed).total_seconds()
            due_in_s = min(self._interval_s, self._interval_s - age_s)  # a model from the future is one from now
        self.due += max(0.0, due_in_s)

    def done(self, started: float) -> None:
        """Say that a round that started at this moment, on the monotonic clock, is completed."""
        self._failures = 0
        if self._cron:
            self.due = time.monotonic() + self._until_next(now())
        else:
            self.due = started + self._interval_s

    def without_data(self, started: float, retry_s: float) -> None:
        """Say that there was nothing to train on."""
        self._failures = 0
        self.due = started + min(self._interval_s, retry_s)

    def _until_next(self, moment: datetime) -> float:
        """Return the seconds from now until the expression's next time after a moment."""
        due: datetime = croniter(self._cron, moment).get_next(datetime)
        return (due - now()).total_seconds()

    def failed(self) -> float:
        """Say that a round failed; return the seconds until the next try: more each time, ten minutes at most."""
        delay_s = min(_LONGEST_RETRY_S, _RETRY_S * 2.0**self._failures)
        self._failures = min(self._failures + 1, 20)
        self.due = time.monotonic() + delay_s
        return delay_s
