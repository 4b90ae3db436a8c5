"""Looks at Redis servers on connections of its own and refuses none: also those that cannot serve can be told of."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import redis
from redis.exceptions import RedisClusterException

from recsys.errors import RedisUnavailable
from recsys.redis.addresses import redis_cli_options
from recsys.redis.credentials import shown_address
from recsys.redis.servers import open_servers
from recsys.settings import RedisSettings


@dataclass(frozen=True, slots=True)
class ServerLook:
    """What a server tells of itself.

    Attributes
    ----------
    info : mapping
        What INFO says.
    ahead_s : float or None
        How far its clock is ahead of that of this machine, in seconds; None where it may not be asked (TIME).
    cli : tuple of str
        The options that lead redis-cli to it, see `redis_cli_options`.
    """

    address: str
    info: Mapping[str, Any]
    ahead_s: float | None
    cli: tuple[str, ...]


def look_at_servers(settings: RedisSettings, clock: Callable[[], float] = time.time) -> list[ServerLook]:
    """Look at every server that takes writes, or would.

    Raises
    ------
    RedisUnavailable
        When one does not answer, or does not let this user ask.
    """
    try:
        servers = open_servers(settings, lambda _: None)
        try:
            return [
                ServerLook(address, server.info(), _ahead_s(server, clock), _cli(settings, server))
                for address, server in sorted(servers.masters().items())
            ]
        finally:
            servers.close()
    except (redis.RedisError, RedisClusterException, OSError, ValueError, TypeError) as error:
        raise RedisUnavailable(f"Redis at {shown_address(settings)}: {error}") from error


def _ahead_s(server: Any, clock: Callable[[], float]) -> float | None:
    """Take the middle of the question's time for that of the answer."""
    with suppress(redis.ResponseError):
        asked = clock()
        seconds, microseconds = server.time()
        return float(seconds + microseconds / 1e6 - (asked + clock()) / 2)
    return None


def _cli(settings: RedisSettings, server: Any) -> tuple[str, ...]:
    """Ask a connection where it leads: behind sentinels, and in a cluster, the settings do not say."""
    pool = server.connection_pool
    connection = pool.get_connection()
    try:
        return redis_cli_options(settings, connection)
    finally:
        pool.release(connection)
