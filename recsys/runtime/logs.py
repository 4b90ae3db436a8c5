"""Log lines: one a line, UTC, and few that repeat."""

from __future__ import annotations

import logging
import re
import sys
import time
from collections.abc import Callable

from recsys.settings import secrets


def configure_logging(level: str) -> None:
    """Write log lines to standard error, UTC, one line each."""
    handler = logging.StreamHandler(sys.stderr)
    formatter = WithoutSecrets("%(asctime)s.%(msecs)03dZ %(levelname)-7s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("implicit").setLevel(logging.WARNING)


class WithoutSecrets(logging.Formatter):
    """Takes the secrets of the settings out of every line, tracebacks included."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        return secrets.hidden_in(super().format(record))


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
