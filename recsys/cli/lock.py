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
def held_lock(settings: Settings, store: Store, work: str) -> Iterator[HeldLock]:
    """Hold the lock for a command, waiting while a trainer's round or another command has it."""
    with ExitStack() as stack:
        lock, said = None, ""
        while lock is None:
            try:
                lock = stack.enter_context(store.trainer_lock.held(ttl_s=settings.trainer.lock_ttl_s, work=work))
            except LockHeld as error:
                if error.holder != said:
                    errors.print(f"waiting: {error}")
                    said = error.holder
                time.sleep(1.0)
        yield lock
