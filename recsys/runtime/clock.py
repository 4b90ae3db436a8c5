"""The wall clock: what time it is, and what to do when it is set back."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

log = logging.getLogger(__name__)
_LOOK_EVERY_S = 0.5
_TOLERATED_S = 1.0


def now() -> datetime:
    """Return the time, in UTC; for names and texts, never to measure or to schedule."""
    return datetime.fromtimestamp(time.time(), UTC)


def json_time(moment: datetime) -> str:
    """Format a time for JSON: RFC 3339, UTC, milliseconds."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _start_again() -> None:
    os.execv(sys.executable, sys.orig_argv)  # noqa: S606 - the command line that started this process


@contextmanager
def restart_on_clock_rollback(
    *, wall: Callable[[], float] = lambda: time.time(), start_again: Callable[[], None] = _start_again
) -> Iterator[None]:
    """Replace this process by a new one whenever the wall clock is set back, until the block ends.

    librdkafka waits for a time of the wall clock. If that is set back by a day meanwhile, a wait of 0.1 s lasts a day:
    the consumer sees no new model, sends no heartbeats and cannot be stopped (librdkafka issue 2145). A service may be
    killed at any point, and this is a good one.
    """
    ended = threading.Event()

    def ahead_s() -> float:
        return wall() - time.monotonic()

    def watch(before_s: float) -> None:
        while not ended.wait(_LOOK_EVERY_S):
            now_s = ahead_s()
            if now_s < before_s - _TOLERATED_S:
                log.warning(
                    "the clock was set back by %.0f s; starting again, because the Kafka client would wait that long",
                    before_s - now_s,
                )
                start_again()
            before_s = now_s

    thread = threading.Thread(target=watch, args=(ahead_s(),), name="wall-clock", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
