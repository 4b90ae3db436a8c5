"""A service's sign of life in Redis, with what it tells of itself: one thread, whatever the service does meanwhile."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from recsys.errors import RedisError
from recsys.redis import Store
from recsys.redis.service_registry import TTL_S, Facts, TrainerFacts
from recsys.runtime.clock import now

log = logging.getLogger(__name__)
_LONGEST_WAIT_S = 2.0


@contextmanager
def heartbeat(store: Store, facts: Callable[[], Facts]) -> Iterator[None]:
    """Tell every five seconds that this service runs, until the block ends.

    While Redis is away nothing is told, and the entry expires. That of a service that stops in good order is removed.

    Parameters
    ----------
    store : Store
    facts : callable
        Returns what the service tells of itself; called in the thread of the heartbeat.
    """
    stop = threading.Event()
    thread = threading.Thread(target=_Beats(store, facts, stop).run, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(_LONGEST_WAIT_S)  # it may wait for a Redis that is away


class _Beats:
    def __init__(self, store: Store, facts: Callable[[], Facts], stop: threading.Event) -> None:
        self._store = store
        self._facts = facts
        self._stop = stop
        self._since = now()
        self._name = ""

    def run(self) -> None:
        while True:
            try:
                self._beat()
            except RedisError as error:  # whoever serves says that Redis is away
                log.debug("heartbeat: %s", error)
            except Exception:  # nothing may end the thread; the next beat may do better
                log.exception("unexpected error in the heartbeat")
            if self._stop.wait(TTL_S / 3):
                break
        try:
            self._end()
        except RedisError as error:
            log.debug("heartbeat: %s", error)

    def _beat(self) -> None:
        facts = self._facts()
        self._name = self._name or self._store.services.new_name(facts)
        if isinstance(facts, TrainerFacts):
            self._store.trainer.say_alive(ttl_s=TTL_S)  # to which `recsys retrain` looks
            self._store.services.remove_expired()
        self._store.services.say_alive(self._name, facts, since=self._since, at=now())

    def _end(self) -> None:
        if self._name:
            self._store.services.say_gone(self._name)
        if self._name.startswith("trainer:"):
            self._store.trainer.say_gone()
