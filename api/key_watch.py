"""Keys that are sent: how many wrong ones an address may try, and when each right one was last used."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, date, datetime

from api.connections import site_of
from api.rates import RateLimiter
from recsys.logger import logger
from recsys.runtime.logs import GrowingIntervals
from recsys.settings.key_entries import KeyEntry

log = logger(__name__)
TRIES_AT_ONCE = 20
_TRIES_A_SECOND = 1 / 3
_MOST_ADDRESSES = 10_000
_KNOWN_FOR_S = 3600.0
_QUIET_S = 600.0
_SAY_USE_EVERY_S = 3600.0
_NOTE_USE_EVERY_S = 1.0
_WARN_DAYS = 14


def today_utc() -> date:
    """Return the day, UTC."""
    return datetime.now(UTC).date()


class KeyWatch:
    """Slows down who tries wrong keys, and tells of the keys in use. Everything is bounded, whatever is sent.

    From an address that has used up its tries no key is looked at, right or wrong. But an address from which a right
    key came within an hour may be a proxy with many clients: its right keys are always taken.

    Parameters
    ----------
    on_use : callable
        Takes the entry of a key that is used, at most once a second for each.
    on_refused : callable
        Takes why a request was refused: ``missing``, ``wrong``, ``slowed`` or ``expired``.
    """

    def __init__(
        self,
        *,
        on_use: Callable[[KeyEntry], None] = lambda _: None,
        on_refused: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._on_use = on_use
        self._on_refused = on_refused
        self._clock = clock
        self._tries = RateLimiter(
            _TRIES_A_SECOND, at_once=TRIES_AT_ONCE, allowed="too many wrong keys came from this address", clock=clock
        )
        self._known: OrderedDict[str, float] = OrderedDict()
        """Address → when a right key last came from it."""
        self._noted: dict[int, float] = {}
        self._said: dict[int, float] = {}
        self._n_wrong = 0
        self._wrong_at = float("-inf")
        self._intervals = GrowingIntervals(clock=clock)

    def note_missing(self) -> None:
        """Count a request without a key."""
        self._on_refused("missing")

    def ensure_may_try(self, host: str) -> None:
        """Raise 429 if the address has used up its tries, and no right key came from it of late."""
        address = site_of(host)
        if self._tries.is_empty(address) and self._clock() - self._known.get(address, float("-inf")) > _KNOWN_FOR_S:
            self._note_refused("slowed", host)
            raise self._tries.used_up(address)

    def note_wrong(self, host: str) -> None:
        """Count a wrong key; raise 429 if the address has used up its tries."""
        address = site_of(host)
        if not self._tries.has(address):
            self._note_refused("slowed", host)
            raise self._tries.used_up(address)
        self._note_refused("wrong", host)

    def note_expired(self, entry: KeyEntry, host: str) -> None:
        """Count a key that has ended."""
        self._on_refused("expired")
        if self._is_due(self._said, entry, _SAY_USE_EVERY_S):
            log.warning(
                "ended_key_sent",
                "{key} ended with {last_day} and is still sent, from {address}; {remedy}",
                key=entry,
                last_day=entry.last_day,
                address=host,
                remedy=_replace(entry),
            )

    def note_use(self, entry: KeyEntry, host: str, today: date) -> None:
        """Note that a key is in use; the log says it at most once an hour, and warns if the key ends soon."""
        address = site_of(host)
        self._known[address] = self._clock()
        self._known.move_to_end(address)
        if len(self._known) > _MOST_ADDRESSES:
            self._known.popitem(last=False)
        if self._is_due(self._noted, entry, _NOTE_USE_EVERY_S):
            self._on_use(entry)
        if self._is_due(self._said, entry, _SAY_USE_EVERY_S):
            log.info("key_in_use", "{key} is in use, from {address}", key=entry, address=host)
            say_end(entry, today)

    def _note_refused(self, why: str, host: str) -> None:
        self._on_refused(why)
        now = self._clock()
        if now - self._wrong_at > _QUIET_S:
            self._intervals.begin_anew()
        self._n_wrong += 1
        self._wrong_at = now
        if self._intervals.are_due():
            log.warning(
                "wrong_keys_sent",
                "wrong keys sent so far: {count}, the last one from {address}",
                count=self._n_wrong,
                address=host,
            )

    def _is_due(self, times: dict[int, float], entry: KeyEntry, every_s: float) -> bool:
        now = self._clock()
        if now - times.get(entry.place, float("-inf")) < every_s:
            return False
        times[entry.place] = now
        return True


def say_end(entry: KeyEntry, today: date) -> None:
    """Warn if a key has ended, or ends within two weeks."""
    if entry.last_day is None:
        return
    days = (entry.last_day - today).days
    if days < 0:
        log.warning(
            "key_ended",
            "{key} ended with {last_day}; {remedy}",
            key=entry,
            last_day=entry.last_day,
            remedy=_replace(entry),
        )
    elif days <= _WARN_DAYS:
        log.warning(
            "key_ends_soon",
            "{key} ends with {last_day}, in {days} days; {remedy}",
            key=entry,
            last_day=entry.last_day,
            days=days,
            remedy=_replace(entry),
        )


def _replace(entry: KeyEntry) -> str:
    return f"recsys key {entry.name} {entry.role} makes the next one"
