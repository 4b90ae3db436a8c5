"""Named points at which a test can make a process fail; without the environment variable they do nothing.

``RECSYS_TEST_FAIL_POINTS`` holds ``name=action@count``, separated by commas: the action happens when the point is
reached for the count-th time (1 if left out), once.

| action        | what happens                                                                        |
|---------------|-------------------------------------------------------------------------------------|
| `kill`        | the process is killed, as by ``kill -9``                                            |
| `stop`        | all its threads stand still until SIGCONT                                           |
| `raise`       | `FailPointReached` is raised                                                        |
| `full`        | OSError as from a full disk is raised                                               |
| `hold:<path>` | this thread waits: the file appears when it starts to, and it goes on when it is gone |
"""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from recsys.logger import logger

log = logger(__name__)
VARIABLE = "RECSYS_TEST_FAIL_POINTS"
NAMES = frozenset(
    {
        "polled",
        "decoded",
        "between-applies",
        "applied",
        "published",
        "marked",
        "before-commit",
        "dead-letter-sent",
        "in-rebalance",
        "in-model-swap",
        "in-segment",
        "in-import",
        "undo-begun",
        "undo-archived",
        "undo-set-aside",
        "made-again",
        "adopted",
        "in-model",
        "before-pointer",
        "in-full-refresh",
        "in-rebuild",
        "probe-published",
        "redriven",
        "exported",
    }
)
T = TypeVar("T")


class FailPointReached(RuntimeError):
    """Raised by the action ``raise``; nothing in this project expects it."""


@dataclass(slots=True)
class _Armed:
    action: str
    count: int


def _parse(text: str) -> dict[str, _Armed]:
    armed = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, _, rest = part.partition("=")
        action, _, argument = rest.partition(":")
        action, _, count = action.partition("@")
        known = action in ("kill", "stop", "raise", "full") or (action == "hold" and argument)
        if name not in NAMES or not known or not (count or "1").isdecimal():
            raise ValueError(f"{VARIABLE}: {part!r} is not name=action@count with a known name and action")
        armed[name] = _Armed(f"{action}:{argument}" if argument else action, int(count or "1"))
    return armed


_armed = _parse(os.environ.get(VARIABLE, ""))
_lock = threading.Lock()


def reach(name: str) -> None:
    """Pass a fail point; fail if it is armed and this is the time."""
    if not _armed:
        return
    if name not in NAMES:
        raise ValueError(f"{name!r} is not a fail point")
    with _lock:
        armed = _armed.get(name)
        if armed is None:
            return
        armed.count -= 1
        if armed.count > 0:
            return
        del _armed[name]
    _fail(name, armed.action)


def halves(name: str, things: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield all at once; if the point is armed, one half, then the other, with the point between them."""
    if name not in _armed or len(things) < 2:
        yield things
        return
    yield things[: len(things) // 2]
    reach(name)
    yield things[len(things) // 2 :]


def _fail(name: str, action: str) -> None:
    log.warning("fail_point", "fail point {name}: {action}", name=name, action=action)
    action, _, argument = action.partition(":")
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif action == "raise":
        raise FailPointReached(f"fail point {name}")
    elif action == "full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    elif action == "hold":
        path = Path(argument)
        path.touch()
        while path.exists():
            time.sleep(0.01)
