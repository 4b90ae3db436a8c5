"""Whether Redis evicts keys, or may: histories that are evicted look like users who bought nothing.

Each new connection refuses a server that may evict histories (`recsys.redis.connection`). But a setting can be changed
while services run on their connections. So a thread looks as well, on connections of its own, which refuse nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import redis
from redis.exceptions import RedisClusterException, ResponseError

from recsys.logger import logger
from recsys.redis.servers import open_servers
from recsys.runtime.logs import GrowingIntervals
from recsys.runtime.repeating import repeated
from recsys.settings import RedisSettings

log = logger(__name__)
_LOOK_EVERY_S = 20.0
_HISTORIES = "histories, bookkeeping and lists"
_WITH_EXPIRY = "lists, the trainer's lock and what is remembered of erased users"
"""All of ours that has a time to live. A list comes back with the next event or round, an erased user does not."""
_REMEDY = "set maxmemory-policy noeviction and give Redis enough memory, then run recsys rebuild"


class Evictions(NamedTuple):
    """What is known of all servers together."""

    evicted: int
    """Keys evicted since each was started."""
    may_evict: bool
    """Whether one of them may evict histories."""


class EvictionWatch:
    """Looks at every server that takes writes, and says what is evicted or at stake.

    Parameters
    ----------
    settings : RedisSettings
    note : callable
        Given what each look has found.
    """

    def __init__(self, settings: RedisSettings, note: Callable[[Evictions], None]) -> None:
        self._servers = open_servers(settings, lambda _: None)
        self._note = note
        self._evicted: dict[str, tuple[str, int]] = {}
        """Address → run id of the server, and how many keys it had evicted at the last look."""
        self._policies: dict[str, tuple[str, GrowingIntervals]] = {}
        """Address → the policy that evicts, and when to say so again."""
        self._refused = False

    @contextmanager
    def running(self) -> Iterator[EvictionWatch]:
        """Look in a thread, at once and then every 20 s, until the block ends."""
        try:
            with repeated(self.look, name="looks for evicted keys", every_s=_LOOK_EVERY_S):
                yield self
        finally:
            self._servers.close()

    def look(self) -> None:
        """Look once."""
        try:
            found = {
                address: {**server.info("server"), **server.info("stats"), **server.info("memory")}
                for address, server in self._servers.masters().items()
            }
        except ResponseError as error:
            if not self._refused:
                log.warning(
                    "eviction_unknown",
                    "cannot tell whether Redis evicts keys, for it refuses INFO: {error}",
                    error=error,
                )
            self._refused = True
            return
        except (redis.RedisError, RedisClusterException, OSError) as error:  # others say that it is away
            log.debug("eviction_unknown", "cannot look whether Redis evicts keys: {error}", error=error)
            self._servers.reopen()  # the URL may lead to another server
            return
        self._refused = False
        for address, info in found.items():
            self._look_at_policy(address, info)
            self._look_at_evicted(address, info)
        may_evict = any(_at_stake(info) == _HISTORIES for info in found.values())
        self._note(Evictions(sum(int(info.get("evicted_keys", 0)) for info in found.values()), may_evict))

    def _look_at_policy(self, address: str, info: Mapping[str, Any]) -> None:
        policy, at_stake = str(info.get("maxmemory_policy", "")), _at_stake(info)
        if not at_stake:
            if self._policies.pop(address, None):
                log.info(
                    "eviction_ended",
                    "Redis at {address} evicts nothing any more: its maxmemory-policy is {policy}",
                    address=address,
                    policy=policy,
                )
            return
        known, lines = self._policies.get(address, ("", GrowingIntervals()))
        if known != policy:
            lines = GrowingIntervals()
        self._policies[address] = policy, lines
        if not lines.are_due():
            return
        log.log(
            logging.ERROR if at_stake == _HISTORIES else logging.WARNING,
            "eviction_possible",
            "Redis at {address} may evict {at_stake}: its maxmemory-policy is {policy}, with maxmemory "
            "{maxmemory}; set noeviction",
            address=address,
            at_stake=at_stake,
            policy=policy,
            maxmemory=info.get("maxmemory") or "0, so not before it has one",
            **lines.again,
        )

    def _look_at_evicted(self, address: str, info: Mapping[str, Any]) -> None:
        run, evicted = str(info.get("run_id", "")), int(info.get("evicted_keys", 0))
        known_run, known = self._evicted.get(address, ("", 0))
        is_first = address not in self._evicted
        self._evicted[address] = run, evicted
        new = evicted if run != known_run or evicted < known else evicted - known
        if not new:
            return
        lost = _at_stake(info) or _HISTORIES  # the policy may have been another one
        if is_first:
            log.warning(
                "keys_evicted",
                "Redis at {address} has evicted {evicted} keys since it was started; {lost} may be missing: if "
                "recsys verify finds differences, {remedy}",
                address=address,
                evicted=evicted,
                lost=lost,
                remedy=_REMEDY,
            )
        else:
            log.error(
                "keys_evicted",
                "Redis at {address} has evicted {evicted} keys, {new} of them since the last look: {lost} are "
                "being lost; {remedy}",
                address=address,
                evicted=evicted,
                new=new,
                lost=lost,
                remedy=_REMEDY,
            )


def _at_stake(info: Mapping[str, Any]) -> str:
    """Return what a server may evict by its policy, once it has reached its maxmemory; empty if nothing."""
    policy = str(info.get("maxmemory_policy", ""))
    return _HISTORIES if policy.startswith("allkeys") else _WITH_EXPIRY if policy.startswith("volatile") else ""
