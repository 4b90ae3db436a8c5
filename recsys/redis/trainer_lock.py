"""The lock that only one process at a time may hold that writes to the archive or publishes a model."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from redis.exceptions import LockNotOwnedError
from redis.lock import Lock

from recsys.errors import LockHeld, LockLost, RedisError
from recsys.logger import logger
from recsys.redis.connection import Connection
from recsys.redis.keys import Keys
from recsys.redis.lock_holder import LockHolder

log = logger(__name__)
_NO_EXPIRY = -1


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
            with suppress(RedisError), self._connection.errors_translated():
                try:
                    self._lock.reacquire()
                except LockNotOwnedError:
                    return

    def ensure_held(self) -> None:
        """Raise `LockLost` unless the lock is still this trainer's."""
        with self._connection.errors_translated():
            held = self._lock.owned()
        if not held:
            raise LockLost("the lock expired during the work; nothing more was written")

    def stop(self) -> None:
        """Renew it no more."""
        self._stop.set()
        self._thread.join()


class TrainerLock:
    """The lock, to be held."""

    def __init__(self, connection: Connection, keys: Keys) -> None:
        self._connection = connection
        self._keys = keys

    @contextmanager
    def held(self, *, ttl_s: float, work: str = "another process") -> Iterator[HeldLock]:
        """Hold the trainer's lock, renewed until the block ends.

        The lock of a process that has certainly ended, because it ran on this machine, is taken over.

        Parameters
        ----------
        ttl_s : float
            The lock expires so long after a holder has died.
        work : str
            What it is held for, which others are told who want it.

        Raises
        ------
        LockHeld
            When another process holds it; says which one.
        """
        lock = Lock(self._connection.client, self._keys.trainer_lock, timeout=ttl_s, blocking=False, thread_local=False)
        token = LockHolder.this_process(work, uuid.uuid4().hex).packed()
        held: HeldLock | None = None

        def release() -> None:
            """Give the lock back, if it is ours; one that cannot be given back expires."""
            if held is not None:
                held.stop()
            with suppress(RedisError), self._connection.errors_translated(), suppress(LockNotOwnedError):
                lock.do_release(token)

        try:
            with self._connection.errors_translated(self._keys.trainer_lock):
                if not lock.acquire(token=token) and not (self._is_freed(lock) and lock.acquire(token=token)):
                    raise self._held_by_another()
            held = HeldLock(self._connection, lock, ttl_s)
            yield held
        finally:
            try:
                release()
            except BaseException:  # a signal's, on the way: whoever comes next shall not wait for the lock to expire
                release()
                raise

    def is_held(self) -> bool:
        """Whether anyone holds it."""
        with self._connection.errors_translated():
            return bool(self._connection.client.exists(self._keys.trainer_lock))

    def _is_freed(self, lock: Lock) -> bool:
        """Whether the lock can be had after all: it has just expired, or its holder was found to have ended."""
        value = self._connection.client.get(self._keys.trainer_lock)
        if value is None:
            return True
        holder = LockHolder.parse(value)
        if not holder.has_ended:
            return False
        with suppress(LockNotOwnedError):  # it has expired, or somebody else was quicker
            lock.do_release(value)
            log.warning(
                "lock_taken_over",
                "{holder} has ended without giving its lock back; the lock is taken over",
                holder=holder,
            )
        return True

    def _held_by_another(self) -> LockHeld:
        client, key = self._connection.client, self._keys.trainer_lock
        value, left_ms = client.get(key), client.pttl(key)
        holder = "another process" if value is None else str(LockHolder.parse(value))
        left_s = max(0, left_ms) / 1000
        if left_ms == _NO_EXPIRY:
            return LockHeld(
                f"{holder} holds the lock on archive and models, which never expires: delete the key {key} in Redis if "
                f"nobody is at work",
                holder,
            )
        return LockHeld(
            f"{holder} holds the lock on archive and models; if it has died, the lock expires in {left_s:.0f} s",
            holder,
        )
