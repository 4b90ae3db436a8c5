"""The wall clock: what time it is, and the end of a service when it is set back."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from recsys.logger import logger

log = logger(__name__)
_LOOK_EVERY_S = 0.5
_TOLERATED_S = 1.0
_FAILED = 1
"""Exit code: supervisors start again what ends with another one than 0."""


def now() -> datetime:
    """Return the time, in UTC; for names and texts, never to measure or to schedule."""
    return datetime.fromtimestamp(time.time(), UTC)


def json_time(moment: datetime) -> str:
    """Format a time for JSON: RFC 3339, UTC, milliseconds."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _end() -> None:
    """End as if killed, but with a log that is whole, and with the exit code of a failure."""
    logging.shutdown()
    os._exit(_FAILED)


@contextmanager
def ended_by_clock_rollback(
    *, wall: Callable[[], float] = lambda: time.time(), end: Callable[[], None] = _end
) -> Iterator[None]:
    """End this process when the wall clock is set back before the block ends, for its supervisor to start it again.

    librdkafka waits for a time of the wall clock. If that is set back by a day meanwhile, a wait of 0.1 s lasts a day:
    the consumer sees no new model, sends no heartbeats and cannot be stopped (librdkafka issue 2145), nor can it be
    trusted to end in good order. A service may be killed at any point, so it may end at this one.
    """
    ended = threading.Event()

    def ahead_s() -> float:
        return wall() - time.monotonic()

    def watch(before_s: float) -> None:
        while not ended.wait(_LOOK_EVERY_S):
            now_s = ahead_s()
            if now_s < before_s - _TOLERATED_S:
                log.error(
                    "clock_set_back",
                    "the clock was set back by {seconds:.0f} s, and the Kafka client would wait that long: this "
                    "process ends, to be started again by its supervisor, or else by you; nothing is lost",
                    seconds=before_s - now_s,
                )
                end()
                return
            before_s = now_s

    thread = threading.Thread(target=watch, args=(ahead_s(),), name="wall-clock", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
