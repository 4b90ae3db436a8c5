"""Work that is done again and again beside everything else, in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from recsys.logger import logger

log = logger(__name__)
_LONGEST_WAIT_S = 1.0


def _nothing() -> None:
    """Is done at the end where nothing else is asked for."""


@contextmanager
def repeated(
    work: Callable[[], object], *, name: str, every_s: float, at_end: Callable[[], object] = _nothing
) -> Iterator[None]:
    """Do work at once and then every so many seconds, until the block ends.

    What fails unexpectedly is logged, and does not end the thread: the next time may do better.

    Parameters
    ----------
    work : callable
    name : str
        Of the thread; the log has it as well.
    every_s : float
        Seconds from the end of one time to the next one.
    at_end : callable, optional
        Is done once, when the block has ended. A second is given to it: it may need a server that is away.
    """
    stopped = threading.Event()

    def attempt(what: Callable[[], object]) -> None:
        try:
            what()
        except Exception:
            log.exception("unexpected_error", "unexpected error in {work}", work=name)

    def run() -> None:
        attempt(work)
        while not stopped.wait(every_s):
            attempt(work)
        attempt(at_end)

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join(_LONGEST_WAIT_S)
