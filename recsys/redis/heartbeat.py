"""A service's sign of life in Redis, with what it tells of itself: one thread, whatever the service does meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Literal

from recsys.errors import RecsysError, RedisError
from recsys.logger import logger
from recsys.redis import Store
from recsys.redis.service_registry import TTL_S, Facts, TrainerFacts
from recsys.runtime.clock import now
from recsys.runtime.repeating import repeated

log = logger(__name__)


def heartbeat(store: Store, facts: Callable[[], Facts]) -> AbstractContextManager[None]:
    """Tell every five seconds that this service runs, until the block ends.

    While Redis is away nothing is told, and the entry expires. That of a service that stops in good order is removed.

    Parameters
    ----------
    store : Store
    facts : callable
        Returns what the service tells of itself; called in the thread of the heartbeat.
    """
    beats = _Beats(store, facts)
    return repeated(beats.beat, name="heartbeat", every_s=TTL_S / 3, at_end=beats.end)


@contextmanager
def ending_told(store: Store, kind: Literal["consumer", "trainer"]) -> Iterator[None]:
    """Leave in Redis why this service ends, where the block ends by an error: for who looks once it is gone."""
    try:
        yield
    except Exception as error:
        why = str(error) if isinstance(error, RecsysError) else f"unexpected error: {type(error).__name__}: {error}"
        with _redis_may_be_away():
            store.services.say_why_ended(kind, why, at=now())
        raise


class _Beats:
    def __init__(self, store: Store, facts: Callable[[], Facts]) -> None:
        self._store = store
        self._facts = facts
        self._since = now()
        self._name = ""

    def beat(self) -> None:
        """Say that the service runs."""
        facts = self._facts()
        with _redis_may_be_away():
            if not self._name:
                self._name = self._store.services.new_name(facts)
                self._store.services.forget_ending(self._name)
            if isinstance(facts, TrainerFacts):
                if not facts.waiting_for:
                    self._store.trainer.say_alive(ttl_s=TTL_S)  # to which `recsys retrain` looks
                self._store.services.remove_expired()
            self._store.services.say_alive(self._name, facts, since=self._since, at=now())

    def end(self) -> None:
        """Say that it runs no more."""
        with _redis_may_be_away():
            if self._name:
                self._store.services.say_gone(self._name)
            if self._name.startswith("trainer:"):
                self._store.trainer.say_gone()


@contextmanager
def _redis_may_be_away() -> Iterator[None]:
    try:
        yield
    except RedisError as error:  # whoever serves says that Redis is away
        log.debug("heartbeat_failed", "heartbeat: {error}", error=error)
