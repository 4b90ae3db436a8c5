"""How many connections a worker holds, from where, and why it ended some: before anyone has shown a key."""

from __future__ import annotations

import ipaddress
import resource
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol

from prometheus_client import Counter, Gauge

from recsys.errors import SettingsError
from recsys.logger import logger
from recsys.settings import ApiSettings

log = logger(__name__)
_SAID_EVERY_S = 60.0
_OTHER_FILES = 200
"""Open files of a worker that are no connections of clients: Redis, Kafka, models, the log."""
_SITE_PREFIX = 64
"""Bits of an IPv6 address that name a site: who has one address of it has all of them."""


class Connection(Protocol):
    """A connection, as its book-keeper sees it."""

    @property
    def waits_for_client(self) -> bool:
        """Whether it is the client's turn: to send a request or its body, or to read an answer."""

    def give_way(self) -> None:
        """End at once."""


@dataclass
class Connections:
    """The connections of one worker.

    Where there are too many, the oldest one that waits for its client ends, so that whoever asks for something is
    served: those that only hold a place can keep nobody out. A new one is refused only if all are being served.

    Parameters
    ----------
    most, most_per_address : int
        In all, and from one address (of an IPv6 address, its /64 counts).
    client_timeout_s : float
        How long a client may take to send a head, then a body, and to read an answer.
    held : Gauge
    ended : Counter
        By ``reason``.
    """

    most: int
    most_per_address: int
    client_timeout_s: float
    held: Gauge
    ended: Counter
    clock: Callable[[], float] = time.monotonic
    _all: dict[Connection, str] = field(default_factory=dict)
    _of_address: dict[str, dict[Connection, None]] = field(default_factory=dict)
    _said_at: float | None = None

    def admit(self, connection: Connection, address: str) -> bool:
        """Take a new connection in; return whether there was a place for it."""
        site = site_of(address)
        beside = self._of_address.get(site, {})
        if len(beside) >= self.most_per_address and not self._make_room(beside, site):
            return False
        if len(self._all) >= self.most and not self._make_room(self._all, site):
            return False
        self._all[connection] = site
        self._of_address.setdefault(site, {})[connection] = None
        self.held.inc()
        return True

    def leave(self, connection: Connection) -> None:
        """Forget a connection that has ended; one that was not admitted is none."""
        site = self._all.pop(connection, None)
        if site is None:
            return
        beside = self._of_address[site]
        del beside[connection]
        if not beside:
            del self._of_address[site]
        self.held.dec()

    def note_ended(self, reason: str, address: str) -> None:
        """Count a connection that was ended, and say it now and then: whoever causes it must not fill the log."""
        self.ended.labels(reason).inc()
        now = self.clock()
        if self._said_at is None or now - self._said_at >= _SAID_EVERY_S:
            self._said_at = now
            log.warning(
                "connection_ended",
                "ended a connection from {address}: {reason}; the metric recsys_api_connections_ended_total "
                "counts them all",
                address=address or "a socket",
                reason=reason,
            )

    def _make_room(self, among: Iterable[Connection], site: str) -> bool:
        """End the oldest connection that waits for its client; return whether there was one."""
        for connection in among:
            if connection.waits_for_client:
                self.note_ended("gave_way", self._all[connection])
                self.leave(connection)
                connection.give_way()
                return True
        self.note_ended("too_many", site)
        return False


@lru_cache(maxsize=10_000)
def site_of(address: str) -> str:
    """Return what counts as one address: of IPv6 the /64, but an IPv4 address that is written as IPv6 is itself."""
    if ":" not in address:
        return address
    try:
        found = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(found) >> _SITE_PREFIX << _SITE_PREFIX, _SITE_PREFIX)))


def allow_open_files(settings: ApiSettings) -> None:
    """Have the system allow as many open files as the connections of a worker need, and those it has besides.

    Raises
    ------
    SettingsError
        When the system allows fewer: connections would fail in ways that no budget shows.
    """
    needed = settings.max_connections + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise SettingsError(
            f"RECSYS_API__MAX_CONNECTIONS: {settings.max_connections} connections need {needed} open files, and only "
            f"{hard} are allowed; raise the limit (ulimit -Hn) or set fewer connections"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
