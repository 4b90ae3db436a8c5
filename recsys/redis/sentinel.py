"""A master that Redis Sentinel watches: its sentinels are asked for its address whenever a connection is opened."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import redis
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import SentinelConnectionPool as AsyncPool
from redis.asyncio.sentinel import SentinelManagedConnection as AsyncConnection
from redis.asyncio.sentinel import SentinelManagedSSLConnection as AsyncTlsConnection
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.sentinel import SentinelConnectionPool, SentinelManagedConnection, SentinelManagedSSLConnection

from recsys.redis.credentials import SentinelCredentials, ServerCredentials, bare_url
from recsys.redis.single_server import SingleServer, no_retries
from recsys.settings import RedisSettings

_ASK = "SENTINEL GET-MASTER-ADDR-BY-NAME"
_UNANSWERED = (redis.RedisError, OSError)


class WatchedMaster(SingleServer):
    """The server that holds all keys, which may become another one.

    Parameters
    ----------
    settings : RedisSettings
        ``sentinel`` names the sentinels. Of the URL, user, password, database and TLS count.
    on_connect : callable
        Given each new connection, once it has logged in.
    """

    def _open(self, settings: RedisSettings, **options: Any) -> redis.Redis:
        pool = SentinelConnectionPool(
            settings.sentinel_master,
            _Sentinels(settings, settings.timeout_s),
            connection_class=_tls_or(settings, SentinelManagedSSLConnection, SentinelManagedConnection),
            **_of_the_server(settings),
            **options,
        )
        return redis.Redis.from_pool(pool)


class _Sentinels:
    """All sentinels, the one that answered last first.

    Those that do not answer may take no more time together than one try of a connection.
    """

    def __init__(self, settings: RedisSettings, timeout_s: float) -> None:
        addresses = settings.sentinels()
        share_s = timeout_s / len(addresses)
        options = {**_of_sentinels(settings), "socket_timeout": share_s, "socket_connect_timeout": share_s}
        self._servers = [redis.Redis(host=host, port=port, retry=no_retries(), **options) for host, port in addresses]

    def discover_master(self, name: str) -> tuple[str, int]:
        """Return where the master is, as redis-py asks."""
        problems = []
        for server in list(self._servers):
            try:
                found = server.execute_command(_ASK, name)
            except _UNANSWERED as error:
                problems.append(_problem(server, error))
                continue
            if found:
                self._servers.sort(key=lambda other: other is not server)
                return found[0], int(found[1])
            problems.append(_unknown(server, name))
        _refuse(name, problems)


class _AsyncSentinels:
    """All sentinels, asked at once: whoever opens a connection bounds how long that may take."""

    def __init__(self, settings: RedisSettings) -> None:
        options = _of_sentinels(settings)
        options["retry"] = Retry(NoBackoff(), retries=0)
        self._servers = [redis.asyncio.Redis(host=host, port=port, **options) for host, port in settings.sentinels()]

    async def discover_master(self, name: str) -> tuple[str, int]:
        """Return where the master is, as redis-py asks."""
        problems = []
        asked = [asyncio.ensure_future(self._ask(server, name)) for server in self._servers]
        try:
            for answer in asyncio.as_completed(asked):
                found = await answer
                if not isinstance(found, str):
                    return found
                problems.append(found)
        finally:
            for task in asked:
                task.cancel()
        _refuse(name, problems)

    @staticmethod
    async def _ask(server: redis.asyncio.Redis, name: str) -> tuple[str, int] | str:
        """Return where the master is, or why that is not known."""
        try:
            found = await server.execute_command(_ASK, name)
        except _UNANSWERED as error:
            return _problem(server, error)
        return (found[0], int(found[1])) if found else _unknown(server, name)


def open_async_client(settings: RedisSettings, **options: Any) -> redis.asyncio.Redis:
    """Return a client of the watched master for an event loop.

    Parameters
    ----------
    settings : RedisSettings
    options : Any
        Of redis-py's connections to the master.
    """
    pool = AsyncPool(
        settings.sentinel_master,
        _AsyncSentinels(settings),
        connection_class=_tls_or(settings, AsyncTlsConnection, AsyncConnection),
        **_of_the_server(settings),
        **options,
    )
    return redis.asyncio.Redis.from_pool(pool)


def _tls_or(settings: RedisSettings, tls: type, plain: type) -> type:
    return tls if bare_url(settings).startswith("rediss://") else plain


def _of_the_server(settings: RedisSettings) -> dict[str, Any]:
    """Return the options of the URL, without where it leads to: that is for the sentinels to say."""
    options = dict(parse_url(bare_url(settings)))
    for name in ("host", "port", "connection_class"):
        options.pop(name, None)
    return {**options, "credential_provider": ServerCredentials(settings)}


def _of_sentinels(settings: RedisSettings) -> dict[str, Any]:
    """Return the options of connections to sentinels: those for TLS are the servers' own."""
    options = {name: value for name, value in _of_the_server(settings).items() if name.startswith("ssl")}
    if bare_url(settings).startswith("rediss://"):
        options["ssl"] = True
    return {
        **options,
        "credential_provider": SentinelCredentials(settings),
        "protocol": 2,
        "decode_responses": True,
    }


def _address(server: Any) -> str:
    options: Mapping[str, Any] = server.connection_pool.connection_kwargs
    return f"{options['host']}:{options['port']}"


def _problem(server: Any, error: Exception) -> str:
    return f"{_address(server)}: {str(error) or type(error).__name__}"


def _unknown(server: Any, name: str) -> str:
    return f"{_address(server)} watches no {name} (RECSYS_REDIS__SENTINEL_MASTER)"


def _refuse(name: str, problems: Sequence[str]) -> NoReturn:
    raise redis.ConnectionError(f"no sentinel says where {name} is: {'; '.join(problems)}")
