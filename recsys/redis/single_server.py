"""A single Redis server, asked in pipelines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import hiredis
import redis
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.retry import Retry

from recsys.redis.credentials import ServerCredentials, bare_url, shown_address
from recsys.settings import RedisSettings

_SENT_AT_ONCE_BYTES = 64 * 1024
_CONNECTION_FAILED = (redis.ConnectionError, redis.TimeoutError)
Command = tuple[Any, ...]
"""A command with its arguments."""
Call = tuple[str, Command]
"""A key and a command that touches it; in a cluster all other keys of the command are in the same slot."""


def few_retries() -> Retry:
    """Try a command once more when its connection failed."""
    return Retry(ExponentialBackoff(cap=0.2, base=0.02), retries=1)


def no_retries() -> Retry:
    """Try a command once only."""
    return Retry(NoBackoff(), retries=0)


class SingleServer:
    """A server that holds all keys.

    Parameters
    ----------
    settings : RedisSettings
        ``timeout_s`` is how long each try waits for an answer.
    on_connect : callable
        Given each new connection, once it has logged in.

    Raises
    ------
    ValueError, TypeError
        When the URL cannot be one.
    """

    def __init__(self, settings: RedisSettings, on_connect: Callable[[Any], None]) -> None:
        self._shown = shown_address(settings)

        def connected(connection: Any) -> None:
            try:
                connection.on_connect()
            except redis.ResponseError as error:  # of a server that knows no AUTH, which then quotes the password
                error.args = (str(error).partition(", with args beginning with")[0],)
                raise
            on_connect(connection)

        self.client = self._open(
            settings,
            socket_timeout=settings.timeout_s,
            socket_connect_timeout=settings.timeout_s,
            retry=few_retries(),
            protocol=2,
            redis_connect_func=connected,
        )
        pool = self.client.connection_pool
        pool.connection_class(**pool.connection_kwargs)  # refuses options that it does not know; connects nowhere

    def _open(self, settings: RedisSettings, **options: Any) -> redis.Redis:
        return redis.Redis.from_url(bare_url(settings), credential_provider=ServerCredentials(settings), **options)

    def close(self) -> None:
        """Close all sockets."""
        self.client.close()

    @contextmanager
    def pipeline(self) -> Iterator[ServerPipeline]:
        """Open a pipeline on a connection of its own."""
        pool = self.client.connection_pool
        connection = pool.get_connection()
        pipeline = ServerPipeline(self.client, connection)
        try:
            yield pipeline
        finally:
            if not pipeline.is_complete:
                connection.disconnect()  # whoever got it next would read our replies
            pool.release(connection)

    def run(self, calls: Iterable[Call], *, first: Command | None = None) -> list[Any]:
        """Send all calls in one round trip, after ``first`` if it is given.

        Returns
        -------
        list
            Replies in the order of the calls; an error that the server answered is a reply like any other.
        """
        with self.pipeline() as pipeline:
            if first is None:
                pipeline.send(calls)
                return pipeline.replies()
            pipeline.send([("", first), *calls])
            return after_first(pipeline.replies())

    def masters(self) -> Mapping[str, redis.Redis]:
        """Return the client of each server that takes writes, by its address."""
        return {self._shown: self.client}

    def layout(self) -> Mapping[str, Any]:
        """Return which slots each server holds; here there are none, so nothing ever moves."""
        return {}

    def shard_tags(self) -> tuple[str, ...]:
        """Return texts such that each server has keys with the hash tag ``{text}``; here any key will do."""
        return ("",)

    def reopen(self) -> None:
        """Start again from the URL: it may lead to another server."""
        self.client.connection_pool.disconnect()


class ServerPipeline:
    """Calls on their way to one server, which works on them while this process does something else.

    When the connection fails, all that was sent is sent once more on a new one: a call may run twice.
    """

    def __init__(self, server: redis.Redis, connection: Any) -> None:
        self._server = server
        self._connection = connection
        self._commands: list[Command] = []
        self._replies: list[Any] = []
        self._has_failed = False

    @property
    def is_complete(self) -> bool:
        """Whether every reply has been read."""
        return len(self._replies) == len(self._commands)

    def send(self, calls: Iterable[Call]) -> None:
        """Send calls; the server begins with the first ones while later ones are still made by a generator."""
        source = iter(calls)

        def made() -> Iterator[Command]:
            for _, command in source:
                self._commands.append(command)
                yield command

        try:
            send(self._connection, made())
        except _CONNECTION_FAILED as error:
            self._commands.extend(command for _, command in source)
            self._send_again(error)

    def first_replies(self, count: int) -> list[Any]:
        """Return the first ``count`` replies, as soon as they are there."""
        while len(self._replies) < count:
            command = self._commands[len(self._replies)]
            try:
                self._replies.append(self._server.parse_response(self._connection, command[0]))
            except redis.ResponseError as error:
                self._replies.append(error)
            except _CONNECTION_FAILED as error:
                self._send_again(error)
        return self._replies[:count]

    def replies(self) -> list[Any]:
        """Return the replies to all calls; an error that the server answered is a reply like any other."""
        return self.first_replies(len(self._commands))

    def _send_again(self, error: Exception) -> None:
        self._connection.disconnect()
        if self._has_failed:
            raise error
        self._has_failed = True
        self._replies.clear()
        send(self._connection, self._commands)


def send(connection: Any, commands: Iterable[Command]) -> None:
    """Send commands, many at a time: the server begins with the first while the others are still packed."""
    connection.send_packed_command(_packed(commands))


def receive(server: redis.Redis, connection: Any, commands: Sequence[Command]) -> list[Any]:
    """Read the replies to all commands; an error that the server answered is one of them."""
    replies: list[Any] = []
    for command in commands:
        try:
            replies.append(server.parse_response(connection, command[0]))
        except redis.ResponseError as error:
            replies.append(error)
    return replies


def after_first(replies: list[Any]) -> list[Any]:
    """Return all replies but the first, which must not be an error."""
    if isinstance(replies[0], Exception):
        raise replies[0]
    return replies[1:]


def _packed(commands: Iterable[Command]) -> Iterator[bytes]:
    """Yield commands as they go over the wire; redis-py's own packing costs several times as much."""
    parts: list[bytes] = []
    size = 0
    for command in commands:
        part = hiredis.pack_command(command)
        parts.append(part)
        size += len(part)
        if size > _SENT_AT_ONCE_BYTES:
            yield b"".join(parts)
            parts.clear()
            size = 0
    yield b"".join(parts)
