"""SIGHUP: secrets in files are read again, while the service runs on."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable

from recsys.logger import logger

log = logger(__name__)


def at_hangup(act: Callable[[], None]) -> None:
    """Call ``act`` in a thread of its own whenever this process gets SIGHUP, which then does not end it.

    On a terminal it still does: there the signal says that the terminal was closed.
    """
    if sys.platform == "win32" or sys.stderr.isatty():
        return

    def run() -> None:
        try:
            act()
        except Exception:  # the service goes on with what it has
            log.exception("unexpected_error", "unexpected error while secrets were read again")

    signal.signal(signal.SIGHUP, lambda *_: threading.Thread(target=run, name="hangup", daemon=True).start())
