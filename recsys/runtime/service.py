"""What the programs of the services have in common: settings, log lines, signals, and how they end."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import NoReturn

from structlog.stdlib import BoundLogger

from recsys.errors import RecsysError, SettingsError
from recsys.runtime.escapes import escaped
from recsys.runtime.hardening import keep_to_itself
from recsys.runtime.logs import configure_logging
from recsys.settings import Settings, load_settings, secrets

FAILED, WRONG_SETTINGS = 1, 2
"""Exit codes."""


def run_service(
    serve: Callable[[Settings], int], log: BoundLogger, *, check: Callable[[Settings], None] = lambda _: None
) -> int:
    """Serve with the settings of this process; return the exit code.

    Parameters
    ----------
    serve : callable
        Returns the exit code once it is told to stop. An error that ends it is one log line; the exit code is 2 if it
        is about the settings, else 1.
    log : structlog.stdlib.BoundLogger
        The service's own.
    check : callable
        Raises what is wrong with the settings, before anything is served: one line without a time, and exit code 2,
        just as for settings that cannot be loaded.
    """
    keep_to_itself()
    try:
        settings = load_settings()
        configure_logging(settings.log)
        check(settings)
    except RecsysError as error:
        print(f"error: {escaped(secrets.hidden_in(str(error)))}", file=sys.stderr)
        return WRONG_SETTINGS
    try:
        return serve(settings)
    except RecsysError as error:
        log.error("ended_by_error", "{error}", error=error)
        return WRONG_SETTINGS if isinstance(error, SettingsError) else FAILED


def end(code: int) -> NoReturn:
    """End this process as it is, without taking the interpreter apart.

    All that must be closed has been closed. Threads that wait for a broker which is away, in librdkafka and in those
    that look at a topic, cannot be ended; one that wakes up in an interpreter that is being taken apart may crash the
    process after its work is done.
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def end_late(seconds: float, log: BoundLogger) -> None:
    """Have the process end with code 0 so long after SIGTERM or SIGINT, if it has not stopped by then.

    Whatever it waits for: the system's part of the signal tells a thread, while Python's own waits for the main thread.
    """
    told, tells = socket.socketpair()
    tells.setblocking(False)
    signal.set_wakeup_fd(tells.fileno(), warn_on_full_buffer=False)

    def wait() -> None:
        with told, tells:
            while told.recv(1)[0] not in (signal.SIGTERM, signal.SIGINT):
                pass
            time.sleep(seconds)
            log.warning("not_stopped_in_time", "not stopped within {after_s:g} s, ending as it is", after_s=seconds)
            end(0)

    threading.Thread(target=wait, name="end-late", daemon=True).start()


def on_termination(act: Callable[[int], None]) -> None:
    """Call ``act`` with the signal's number when this process is asked to end: by SIGTERM, or by SIGINT (Ctrl-C)."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: act(number))
