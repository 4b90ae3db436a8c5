"""One Redis server, asked in pipelines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import hiredis
import redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from recsys.settings import masked_url

_SENT_AT_ONCE_BYTES = 64 * 1024
Command = tuple[Any, ...]
"""A command with its arguments."""
Call = tuple[str, Command]
"""A key and a command that touches it; in a cluster all other keys of the command are in the same slot."""
Meanwhile = Mapping[int, Callable[[list[Any]], None]]
"""What is to be done while a server works, given the replies so far, as soon as there are so many of them."""
NOTHING_MEANWHILE: Meanwhile = {}


def few_retries() -> Retry:
    """Try a command once more when its connection failed."""
    return Retry(ExponentialBackoff(cap=0.2, base=0.02), retries=1)


class OneServer:
    """A server that holds all keys.

    Parameters
    ----------
    url : str
    timeout_s : float
        How long each try waits for an answer.
    on_connect : callable
        Given each new connection, once it has logged in.

    Raises
    ------
    ValueError, TypeError
        When the URL cannot be one.
    """

    def __init__(self, url: str, timeout_s: float, on_connect: Callable[[Any], None]) -> None:
        self._shown = masked_url(url)

        def connected(connection: Any) -> None:
            connection.on_connect()
            on_connect(connection)

        self.client = redis.Redis.from_url(
            url,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=few_retries(),
            protocol=2,
            redis_connect_func=connected,
        )
        pool = self.client.connection_pool
        pool.connection_class(**pool.connection_kwargs)  # refuses options that it does not know; connects nowhere

    def close(self) -> None:
        """Close all sockets."""
        self.client.close()

    def run(
        self,
        calls: Iterable[Call],
        *,
        first: Command | None = None,
        meanwhile: Meanwhile = NOTHING_MEANWHILE,
    ) -> list[Any]:
        """Send all calls in one round trip, after ``first`` if it is given.

        The server works while later calls are still made, if they come from a generator, and while that is done
        which is to be done ``meanwhile`` (not together with ``first``); a second try does it again.

        Returns
        -------
        list
            Replies in the order of the calls; an error that the server answered is a reply like any other.
        """
        commands = [] if first is None else [first]
        source = iter(calls)

        def all_commands() -> Iterator[Command]:
            yield from tuple(commands)  # first of all those of a try that failed
            for _, command in source:
                commands.append(command)
                yield command

        pool = self.client.connection_pool
        connection = pool.get_connection()

        def exchange() -> list[Any]:
            send(connection, all_commands())
            return receive(self.client, connection, commands, meanwhile)

        try:
            replies = few_retries().call_with_retry(exchange, lambda _: connection.disconnect())
        except BaseException:
            connection.disconnect()  # whoever got it next would read our replies
            raise
        finally:
            pool.release(connection)
        return replies if first is None else after_first(replies)

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


def send(connection: Any, commands: Iterable[Command]) -> None:
    """Send commands, many at a time: the server begins with the first while the others are still packed."""
    connection.send_packed_command(_packed(commands))


def receive(
    server: redis.Redis,
    connection: Any,
    commands: Sequence[Command],
    meanwhile: Meanwhile = NOTHING_MEANWHILE,
) -> list[Any]:
    """Read the replies to all commands; an error that the server answered is one of them."""
    replies: list[Any] = []
    for command in commands:
        if len(replies) in meanwhile:
            meanwhile[len(replies)](replies)
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
