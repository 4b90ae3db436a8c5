"""The lock on archive and model, for commands that change them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from recsys.cli.output import errors
from recsys.errors import LockHeld
from recsys.redis import HeldLock, Store
from recsys.settings import Settings


@contextmanager
def held_lock(settings: Settings, store: Store) -> Iterator[HeldLock]:
    """Hold the lock, waiting while a trainer's round or another command has it."""
    with ExitStack() as stack:
        lock, said = None, False
        while lock is None:
            try:
                lock = stack.enter_context(store.trainer_lock.held(ttl_s=settings.trainer.lock_ttl_s))
            except LockHeld as error:
                if not said:
                    errors.print(f"waiting: {error}")
                    said = True
                time.sleep(1.0)
        yield lock
