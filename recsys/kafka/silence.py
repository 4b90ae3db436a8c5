"""Brokers that do not answer: said at once, again at growing intervals, and when one answers again."""

from __future__ import annotations

import time
from collections.abc import Callable

from structlog.stdlib import BoundLogger

from recsys.runtime.logs import GrowingIntervals
from recsys.settings import KafkaSettings


class Silence:
    """How long no broker has answered a service that asks every few seconds.

    Parameters
    ----------
    settings : KafkaSettings
    log : structlog.stdlib.BoundLogger
        Of the service.
    note : callable
        Takes the seconds since the last answer, 0 while brokers answer: for a metric.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        log: BoundLogger,
        note: Callable[[float], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._address = settings.bootstrap_servers
        self._log = log
        self._note = note
        self._clock = clock
        self._answered_at = clock()
        self._lines = GrowingIntervals(clock=clock)
        self._is_said = False
        note(0.0)

    def answered(self) -> None:
        """Note that a broker has answered."""
        if self._is_said:
            silent_s = self._clock() - self._answered_at
            self._log.warning(
                "kafka_answers",
                "Kafka at {bootstrap_servers} answers again after {silent_s:.0f} s",
                bootstrap_servers=self._address,
                silent_s=silent_s,
            )
        self._answered_at, self._is_said = self._clock(), False
        self._lines.begin_anew()
        self._note(0.0)

    def unanswered(self, problem: Exception) -> None:
        """Note that a question was not answered, and why."""
        silent_s = self._clock() - self._answered_at
        self._note(silent_s)
        if self._lines.are_due():
            self._is_said = True
            self._log.warning(
                "kafka_silent",
                "no answer for {silent_s:.0f} s, so nothing comes or goes: {problem}",
                silent_s=silent_s,
                problem=problem,
            )
