"""Waiting, at start and after a failure, for what a service depends on."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TypeVar

from recsys.errors import DataDirError, KafkaUnavailable, RedisError, TopicMissing

T = TypeVar("T")


def until_ready(
    check: Callable[[], T], *, stop: threading.Event, log: logging.Logger, every_s: float = 1.0
) -> T | None:
    """Call ``check`` until nothing is missing and return what it returns; None when stopped.

    What is missing is said in one log line, and again only when it is something else.
    """
    said = ""
    while not stop.is_set():
        try:
            return check()
        except (RedisError, KafkaUnavailable, TopicMissing, DataDirError) as error:
            if str(error) != said:
                said = str(error)
                log.warning("waiting: %s", error)
            stop.wait(every_s)
    return None
