"""A Redis Cluster: which node gets which call, and what to do when slots move or nodes die.

redis-py's RedisCluster keeps the slot table and the connections. Calls that are many are sent from here, not by its
pipeline, which refuses EVALSHA: those of one node in one go, to all nodes before the first reply is read.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from itertools import count
from types import TracebackType
from typing import Any

import redis
from redis.cluster import PRIMARY, REDIS_ALLOWED_KEYS, ClusterNode, RedisCluster
from redis.connection import parse_url
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot
from redis.exceptions import AskError, ClusterDownError, MovedError, TryAgainError

from recsys.redis.credentials import ServerCredentials, bare_url
from recsys.redis.single_server import (
    Call,
    Command,
    SingleServer,
    after_first,
    few_retries,
    receive,
    send,
)
from recsys.settings import RedisSettings

_PAUSES_S = (0.0, 0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.2, 0.2)
"""Before each try of a call that is sent elsewhere or told to come again."""
_TAG_DISTANCE = 512
_TRIES_OF_NODES = 2  # each may take as long as the time-out
_NODE_FAILED = (redis.ConnectionError, redis.TimeoutError)
_NO_CONNECTION = (*_NODE_FAILED, ClusterDownError)  # which a node may say to what is looked at on a new connection
_Places = dict[int, ClusterNode | None]
"""Place of a call → the node that it was sent on to while its slot moves; None = the owner of its slot."""


class Cluster:
    """A Redis Cluster, opened when it is first needed.

    Parameters
    ----------
    settings : RedisSettings
        The URL is that of any of its nodes; ``timeout_s`` is how long each try waits for a node's answer.
    on_connect : callable
        Given each new connection to any node, once it has logged in.

    Raises
    ------
    ValueError, TypeError
        When the URL cannot be that of a cluster's node.
    """

    def __init__(self, settings: RedisSettings, on_connect: Callable[[Any], None]) -> None:
        SingleServer(settings, on_connect).close()  # refuses what is wrong for any server
        options = parse_url(url := bare_url(settings))
        if "path" in options:
            raise ValueError("a cluster cannot be reached through a Unix socket")
        if options.get("db"):
            raise ValueError("a cluster has only database 0")
        if ignored := sorted(options.keys() - set(REDIS_ALLOWED_KEYS)):
            raise ValueError(f"redis-py does not pass {', '.join(ignored)} on to the nodes of a cluster")
        self._url = url
        self._credentials = ServerCredentials(settings)
        self._timeout_s = settings.timeout_s
        self._on_connect = on_connect
        self._lock = threading.Lock()
        self._client: RedisCluster | None = None
        self._known: list[tuple[str, int]] = []
        """Addresses of the nodes at the last `reopen`."""

    @property
    def client(self) -> RedisCluster:
        """The client for single commands."""
        with self._lock:
            if self._client is None:
                self._client = _Client(
                    url=self._url,
                    credential_provider=self._credentials,
                    startup_nodes=[ClusterNode(host, port) for host, port in self._known],
                    socket_timeout=self._timeout_s,
                    socket_connect_timeout=self._timeout_s,
                    retry=few_retries(),
                    protocol=2,
                    redis_connect_func=self._on_connect,
                )
            return self._client

    def close(self) -> None:
        """Close all sockets."""
        if self._client is not None:
            self._client.close()

    def reopen(self) -> None:
        """Start again from the URL, too: it may lead to a node when all those that were known are gone."""
        with self._lock:
            if self._client is not None:
                self._known = [(node.host, node.port) for node in self._client.get_nodes()]
            self._client = None

    @contextmanager
    def pipeline(self) -> Iterator[ClusterPipeline]:
        """Open a pipeline to all nodes."""
        yield ClusterPipeline(self)

    def run(self, calls: Iterable[Call], *, first: Command | None = None) -> list[Any]:
        """Send each call to the node that serves its key, one round trip per node; ``first`` goes ahead on each.

        Calls that a node sends elsewhere, or that meet a dead node, are tried again by a renewed slot table, a few
        times; a call may run twice.

        Returns
        -------
        list
            Replies in the order of the calls; an error about the call itself is a reply like any other.

        Raises
        ------
        redis.RedisError, redis.exceptions.RedisClusterException
            When calls were left that no node took.
        """
        client = self.client
        calls = list(calls)
        replies: list[Any] = [None] * len(calls)
        left: _Places = dict.fromkeys(range(len(calls)))
        failed_tries = 0
        for pause_s in _PAUSES_S:
            time.sleep(pause_s)
            again: _Places = {}
            failed: tuple[ClusterNode, Exception] | None = None
            for node, place, reply in _exchange(client, calls, left, first):
                if isinstance(reply, MovedError):
                    client.nodes_manager.move_slot(reply)
                    again[place] = None
                elif isinstance(reply, AskError):
                    again[place] = client.get_node(reply.host, reply.port)
                elif isinstance(reply, _NODE_FAILED):
                    again[place] = None
                    failed = node, reply
                elif isinstance(reply, TryAgainError | ClusterDownError):
                    again[place] = None
                else:
                    replies[place] = reply
                    continue
                refused = reply
            if not again:
                return replies
            left = again
            if failed is not None:
                failed_tries += 1
                if failed_tries == _TRIES_OF_NODES:
                    raise failed[1]
                client.nodes_manager.initialize(last_failed_node_name=failed[0].name)
            elif isinstance(refused, ClusterDownError):
                client.nodes_manager.initialize()
        raise redis.RedisError(f"{len(left)} of {len(calls)} calls were not accepted: {_said(refused)}") from refused

    def masters(self) -> Mapping[str, redis.Redis]:
        """Return the client of each node that takes writes, by its address, as the cluster is now."""
        client = self.client
        client.nodes_manager.initialize()
        return {node.name: client.get_redis_connection(node) for node in client.get_primaries()}

    def layout(self) -> Mapping[str, Any]:
        """Return which slots each master holds and which are moving, as it says itself."""
        layout = {}
        for name, server in self.masters().items():
            nodes: Mapping[str, Any] = server.execute_command("CLUSTER NODES")
            own = next(node for node in nodes.values() if "myself" in node["flags"])
            layout[name] = {"slots": own["slots"], "moving": own["migrations"]}
        return layout

    def shard_tags(self) -> tuple[str, ...]:
        """Return texts such that each master has keys with one of the hash tags ``{text}``.

        They are in slots at even distances, the same ones always and everywhere, so that what is kept under them
        moves along when slots do. Only a master that has no run of `_TAG_DISTANCE` slots may have none of them.
        """
        return tuple(text_in_slot(slot) for slot in range(0, REDIS_CLUSTER_HASH_SLOTS, _TAG_DISTANCE))


class ClusterPipeline:
    """Calls for the nodes of a cluster. Nodes answer in any order, so all are sent when the replies are asked for."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._calls: list[Call] = []

    def send(self, calls: Iterable[Call]) -> None:
        """Take calls."""
        self._calls.extend(calls)

    def first_replies(self, count: int) -> list[Any]:
        """Return none: there are no replies before all are there."""
        return []

    def replies(self) -> list[Any]:
        """Send all calls and return their replies; an error about the call itself is a reply like any other."""
        return self._cluster.run(self._calls)


def _exchange(
    client: RedisCluster, calls: Sequence[Call], places: _Places, first: Command | None
) -> list[tuple[ClusterNode, int, Any]]:
    """Send calls to their nodes; return (node, place of the call, its reply or what was wrong with the node)."""
    slots = client.nodes_manager
    parts: dict[ClusterNode, list[int]] = defaultdict(list)
    for place, asked in places.items():
        parts[asked or slots.get_node_from_slot(client.keyslot(calls[place][0]))].append(place)
    under_way: list[tuple[ClusterNode, list[int], _Exchange]] = []
    outcomes: list[tuple[ClusterNode, int, Any]] = []
    with ExitStack() as stack:
        for node, part in parts.items():
            commands = [] if first is None else [first]
            for place in part:
                if places[place] is not None:
                    commands.append(("ASKING",))
                commands.append(calls[place][1])
            try:
                exchange = stack.enter_context(_Exchange(client.get_redis_connection(node), commands))
                under_way.append((node, part, exchange))
            except _NO_CONNECTION as error:
                outcomes.extend((node, place, error) for place in part)
        for node, part, exchange in under_way:
            try:
                replies = exchange.replies()
            except _NODE_FAILED as error:
                outcomes.extend((node, place, error) for place in part)
                continue
            about_calls = iter(replies if first is None else after_first(replies))
            for place in part:
                if places[place] is not None:
                    next(about_calls)  # what ASKING was answered
                outcomes.append((node, place, next(about_calls)))
    return outcomes


class _Exchange:
    """Commands on their way to one node: sent on entry, their replies to be read before the exit."""

    def __init__(self, node: redis.Redis, commands: Sequence[Command]) -> None:
        self._node = node
        self._commands = commands
        self._complete = False

    def __enter__(self) -> _Exchange:
        self._connection = self._node.connection_pool.get_connection()
        try:
            send(self._connection, self._commands)
        except BaseException:
            self._give_back()
            raise
        return self

    def replies(self) -> list[Any]:
        """Read all replies."""
        replies = receive(self._node, self._connection, self._commands)
        self._complete = True
        return replies

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._give_back()

    def _give_back(self) -> None:
        if not self._complete:  # whoever got this connection next would read our replies
            self._connection.disconnect()
        self._node.connection_pool.release(self._connection)


class _Client(RedisCluster):
    """A RedisCluster that follows ASK to a node without slots, which the slot table does not name."""

    def get_node(
        self, host: str | None = None, port: int | None = None, node_name: str | None = None
    ) -> ClusterNode | None:
        """Return the node at an address, known or not."""
        node: ClusterNode | None = super().get_node(host, port, node_name)  # type: ignore[no-untyped-call]
        if node is None and node_name:
            host, _, digits = node_name.rpartition(":")
            port = int(digits)
        if node is None and host:
            node = ClusterNode(host, port, PRIMARY)
            self.nodes_manager.nodes_cache[node.name] = node
        return node


@cache
def text_in_slot(slot: int) -> str:
    """Return the first of the texts 0, 1, 2, … that is in a slot."""
    return next(str(number) for number in count() if key_slot(b"%d" % number) == slot)


def _said(error: redis.ResponseError) -> str:
    """Return an error as the node worded it; redis-py cuts the first word off."""
    return f"{type(error).__name__.removesuffix('Error').upper()} {error}"
