"""The trainer's sign of life in Redis."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from recsys.errors import RedisError
from recsys.redis import Store

log = logging.getLogger(__name__)
_TTL_S = 15.0


@contextmanager
def heartbeat(store: Store) -> Iterator[None]:
    """Let `recsys retrain` know that someone takes requests."""
    stop = threading.Event()

    def beat() -> None:
        while True:
            try:
                store.trainer.say_alive(ttl_s=_TTL_S)
            except RedisError as error:
                log.debug("heartbeat: %s", error)
            if stop.wait(_TTL_S / 3):
                return

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        try:
            store.trainer.say_gone()
        except RedisError as error:
            log.debug("heartbeat: %s", error)
