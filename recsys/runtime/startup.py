"""Waiting, at start and after a failure, for what a service depends on."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TypeVar

from recsys.errors import DataDirError, KafkaUnavailable, RedisError, TopicMissing
from recsys.runtime.logs import GrowingIntervals

T = TypeVar("T")


def until_ready(
    check: Callable[[], T], *, stop: threading.Event, log: logging.Logger, every_s: float = 1.0
) -> T | None:
    """Call ``check`` until nothing is missing and return what it returns; None when stopped.

    What is missing is said in one log line, at once when it is something else, and again at growing intervals.
    """
    said, lines = "", GrowingIntervals()
    while not stop.is_set():
        try:
            return check()
        except (RedisError, KafkaUnavailable, TopicMissing, DataDirError) as error:
            if str(error) != said:
                said = str(error)
                lines.begin_anew()
            if lines.are_due():
                log.warning("waiting: %s", error)
            stop.wait(every_s)
    return None
