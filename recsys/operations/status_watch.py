"""Looks at the shop again and again, as `recsys status` does, for whoever shows what is found to others."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

from recsys.operations.service_state import State, decide
from recsys.operations.status_facts import Facts
from recsys.operations.status_look import look
from recsys.redis import Store
from recsys.runtime.clock import now
from recsys.settings import Settings
from recsys.storage.data_dir import DataDir

log = logging.getLogger(__name__)
_EVERY_S = 15.0
_LONGEST_WAIT_S = 2.0


@contextmanager
def shop_watched(
    settings: Settings, store: Store, data_dir: DataDir, note: Callable[[Facts, State, datetime], None]
) -> Iterator[None]:
    """Look every 15 seconds, in a thread, until the block ends; what a look finds is given to ``note``."""
    stop = threading.Event()

    def watch() -> None:
        while True:
            try:
                facts, at = look(settings, store, data_dir), now()
                note(facts, decide(facts, settings.status, at=at), at)
            except Exception:  # nothing may end the thread; the next look may do better
                log.exception("unexpected error while looking at the shop")
            if stop.wait(_EVERY_S):
                return

    thread = threading.Thread(target=watch, name="shop-watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(_LONGEST_WAIT_S)  # it may wait for a server that is away
