"""Log lines: one a line, UTC, and few that repeat."""

from __future__ import annotations

import logging
import re
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

from recsys.runtime.escapes import escaped
from recsys.settings import secrets

_SHORTEST_INTERVAL_S = 10.0
_LONGEST_INTERVAL_S = 600.0


def configure_logging(level: str) -> None:
    """Write log lines to standard error, UTC, one line each."""
    handler = logging.StreamHandler(sys.stderr)
    formatter = SafeFormatter("%(asctime)s.%(msecs)03dZ %(levelname)-7s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for library in ("implicit", "httpx", "httpx2"):  # the last two say every request of the schema registry's client
        logging.getLogger(library).setLevel(logging.WARNING)


class SafeFormatter(logging.Formatter):
    """Takes the secrets of the settings out of every line, tracebacks included, and escapes what is not to be obeyed.

    A message is one line, whatever it quotes; only a traceback has more.
    """

    # Secrets first: what is escaped is no longer found.

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the line without a traceback."""
        return escaped(secrets.hidden_in(super().formatMessage(record)))

    def formatException(self, ei: Any) -> str:
        """Return a traceback, which has several lines."""
        return escaped(secrets.hidden_in(super().formatException(ei)), lines=True)

    def formatStack(self, stack_info: str) -> str:
        """Return a stack, which has several lines."""
        return escaped(secrets.hidden_in(super().formatStack(stack_info)), lines=True)


class RepeatsLeftOut(logging.Filter):
    """Lets a message that differs from an earlier one in digits alone pass only every so often.

    One with a traceback differs also if the error is of another class, or comes from another place.
    """

    def __init__(self, *, every_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._every_s = every_s
        self._clock = clock
        self._said: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether the message may pass."""
        words = re.sub(r"\d+", "", record.getMessage()) + _place_of(record)
        now = self._clock()
        if now - self._said.get(words, float("-inf")) < self._every_s:
            return False
        if len(self._said) > 1000:
            self._said.clear()
        self._said[words] = now
        return True


def _place_of(record: logging.LogRecord) -> str:
    """Return of which class the error of a record is, and which line raised it."""
    if record.exc_info is None or record.exc_info[0] is None:
        return ""
    frames = [f"{frame.f_code.co_filename}:{line}" for frame, line in traceback.walk_tb(record.exc_info[2])]
    return f"{record.exc_info[0].__name__} {frames[-1] if frames else ''}"


class GrowingIntervals:
    """Says when to tell again what still holds: at once, then after 10 s, 20 s, 40 s and so on, up to ten minutes.

    Parameters
    ----------
    delay_s : float
        How long it must hold before it is told at all.
    """

    def __init__(self, *, delay_s: float = 0.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._delay_s = delay_s
        self._clock = clock
        self.begin_anew()

    def begin_anew(self) -> None:
        """Note that it holds no longer."""
        self._due_at = self._clock() + self._delay_s
        self._interval_s = 0.0

    def are_due(self) -> bool:
        """Whether to tell now; then it is told."""
        if self._clock() < self._due_at:
            return False
        self._interval_s = min(max(_SHORTEST_INTERVAL_S, 2 * self._interval_s), _LONGEST_INTERVAL_S)
        self.count_from_now()
        return True

    def count_from_now(self) -> None:
        """Let the interval begin now: what was due took its time, and has just ended."""
        self._due_at = self._clock() + self._interval_s
