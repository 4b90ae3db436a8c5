"""Waiting, at start and after a failure, for what a service depends on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from structlog.stdlib import BoundLogger

from recsys.errors import DataDirError, KafkaUnavailable, RedisError, TopicMissing
from recsys.runtime.logs import LastingProblem

T = TypeVar("T")
_SLOW_S = 4.0


def until_ready(
    check: Callable[[], T],
    *,
    stop: threading.Event,
    log: BoundLogger,
    asked: str,
    every_s: float = 1.0,
    slow_s: float = _SLOW_S,
    on_wait: Callable[[str], None] = lambda _: None,
) -> T | None:
    """Call ``check`` until nothing is missing and return what it returns; None when stopped.

    What is missing is said in one log line, at once when it is something else, and again at growing intervals. While
    the first check has no answer yet, who is ``asked`` is said after ``slow_s``. ``on_wait`` is told the same
    sentences, each time, and an empty one once nothing is missing.
    """
    lasting = LastingProblem()

    def say_slow() -> None:
        log.warning("waiting", "waiting: no answer yet from {asked}", asked=asked)
        on_wait(f"no answer yet from {asked}")

    slow = threading.Timer(slow_s, say_slow)
    slow.daemon = True
    slow.start()
    while not stop.is_set():
        try:
            found = check()
        except (RedisError, KafkaUnavailable, TopicMissing, DataDirError) as error:
            problem = str(error)
        else:
            _end(slow)
            on_wait("")
            return found
        _end(slow)
        on_wait(problem)
        if lasting.is_due(problem):
            log.warning("waiting", "waiting: {problem}", problem=problem, **lasting.again)
        stop.wait(every_s)
    return None


def _end(timer: threading.Timer) -> None:
    """Cancel it; what it has begun is done when this returns, so that it cannot speak after what comes next."""
    timer.cancel()
    timer.join()
