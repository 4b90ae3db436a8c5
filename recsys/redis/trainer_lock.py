"""The lock that only one process at a time may hold that writes to the archive or publishes a model."""

from __future__ import annotations

import threading
from contextlib import suppress

from redis.exceptions import LockNotOwnedError
from redis.lock import Lock

from recsys.errors import LockLost, StoreError
from recsys.redis.connection import Connection


class HeldLock:
    """The trainer's lock while it is held; a thread renews it."""

    def __init__(self, connection: Connection, lock: Lock, ttl_s: float) -> None:
        self._connection = connection
        self._lock = lock
        self._ttl_s = ttl_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="trainer-lock", daemon=True)
        self._thread.start()

    def _renew(self) -> None:
        while not self._stop.wait(self._ttl_s / 3):
            # When Redis is away the next turn may still be in time; if not, `ensure_held` will say so.
            with suppress(StoreError), self._connection.errors_translated():
                try:
                    self._lock.reacquire()
                except LockNotOwnedError:
                    return

    def ensure_held(self) -> None:
        """Raise `LockLost` unless the lock is still this trainer's."""
        with self._connection.errors_translated():
            held = self._lock.owned()
        if not held:
            raise LockLost("the lock expired during the work; nothing more is written")

    def stop(self) -> None:
        """Renew it no more."""
        self._stop.set()
        self._thread.join()
