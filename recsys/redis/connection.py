"""Redis, one server or a cluster, as the store uses it: errors become this project's own, scripts run in pipelines."""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain, islice
from typing import Any
from urllib.parse import urlsplit

import redis
from redis.exceptions import AskError, ClusterCrossSlotError, NoScriptError, RedisClusterException

from recsys.errors import RecsysError, RedisError, RedisUnavailable, RedisUnsuitable, SettingsError
from recsys.redis.cluster import Cluster, ClusterPipeline
from recsys.redis.credentials import bare_url, shown_address
from recsys.redis.damage import WRONG_KIND, damaged, is_wrong_kind
from recsys.redis.keys import Keys
from recsys.redis.rights import Service, is_refusal, may_ask, missing_rights, refused_command, user_of
from recsys.redis.scripts import script
from recsys.redis.servers import open_servers
from recsys.redis.single_server import Call, ServerPipeline, SingleServer
from recsys.redis.suitability import IS_A_CLUSTER, why_unfit
from recsys.runtime.tls import NO_TLS, answers_in_plain_text, handshake_problem
from recsys.settings import RedisSettings, masked_url

_PORT = 6379
_CLOSED = re.compile(r"closed by server|reset by peer|Broken pipe", re.IGNORECASE)
_HANDSHAKE_FAILED = re.compile(r"Timeout connecting|WRONG_VERSION_NUMBER|UNEXPECTED_EOF|timed out", re.IGNORECASE)
_NO_LIMIT = "normal 0 0 0"
_CANNOT_ASK = (redis.RedisError, RedisClusterException, RecsysError, OSError)
_MOST_SCANS = 3
_USERS_PER_CALL = 16  # as long as that, a script holds up everyone else in Redis: a fraction of a millisecond
ScriptCall = tuple[Sequence[str], Sequence[Any]]
"""Keys and arguments of one call of a script."""


class Connection:
    """Redis, raising `RedisUnavailable` when it is away, and knowing this project's Lua scripts.

    Every write that goes through it may run twice (a command whose reply was lost is repeated), so every write must
    be idempotent.
    """

    def __init__(self, settings: RedisSettings) -> None:
        self.is_cluster = settings.cluster
        self._shown = shown_address(settings)
        self._url = "" if settings.sentinel else bare_url(settings)
        self._user = user_of(settings.url.get_secret_value())
        self._keys = Keys(settings.prefix)
        self._checks: list[Callable[[Any], None]] = []
        try:
            self._servers = open_servers(settings, self._connected)
        except (ValueError, TypeError) as error:
            shown = masked_url(settings.url.get_secret_value())
            raise SettingsError(f"RECSYS_REDIS__URL: {shown} is not a Redis URL: {error}") from None
        self._met: dict[str, tuple[str | None, str | None]] = {}
        self.epoch = 0
        """How often a connection has led to another server than before: restarted, or another one took over."""

    @property
    def client(self) -> Any:
        """redis-py's client, `redis.Redis` or `redis.cluster.RedisCluster`, for commands with one key."""
        return self._servers.client

    def close(self) -> None:
        """Close all sockets."""
        self._servers.close()

    @contextmanager
    def errors_translated(self, key: str = "") -> Iterator[None]:
        """Turn redis-py's errors into this project's; ``key`` is the one key that the block asks for."""
        try:
            yield
        except redis.ReadOnlyError as error:
            self._servers.reopen()  # demoted under our feet: a new connection may lead to the new primary
            raise RedisUnsuitable(f"Redis at {self._shown} has become a read-only replica") from error
        except redis.RedisError as error:
            if key and is_wrong_kind(error):
                raise damaged(self._keys, key, WRONG_KIND) from None
            raise self._translated(error) from error
        except RedisClusterException as error:  # not among the RedisErrors: no node can be used
            self._servers.reopen()
            cause = _cause(error)
            if isinstance(cause, RecsysError):
                raise cause from None
            raise self._translated(cause) from error

    def _translated(self, error: Exception) -> RedisError:
        if isinstance(error, redis.AuthenticationError):
            return RedisUnsuitable(f"Redis at {self._shown} refuses user {self._user}: {error}")
        if is_refusal(error):
            return self._refused(refused_command(error) or ", ".join(self.missing_rights(Service.COMMAND)), error)
        if isinstance(error, AskError | ClusterCrossSlotError) and not self.is_cluster:
            return RedisUnsuitable(f"Redis at {self._shown} {IS_A_CLUSTER}")
        return RedisUnavailable(
            f"Redis at {self._shown}: {connection_problem(self._url, error)}{self._why_closed(error)}"
        )

    def _refused(self, rights: str, error: object) -> RedisUnsuitable:
        lacking = f"lacks the right {rights}" if rights else f"is refused something: {error}"
        return RedisUnsuitable(
            f"Redis at {self._shown}: user {self._user} {lacking}; docs/operations.md lists the rights that are needed"
        )

    def ensure_rights(self, service: Service) -> None:
        """Make sure that this user has all rights that a service needs.

        Raises
        ------
        RedisUnsuitable
            When rights are missing, with their names.
        RedisUnavailable
            When no server answers.
        """
        with self.errors_translated():
            self._servers.masters()
            missing = self._missing_rights(service)
        if missing:
            raise self._refused(", ".join(missing), "")

    def missing_rights(self, service: Service) -> list[str]:
        """Return the rights that this user lacks, as an ACL names them; none where that cannot be found out."""
        with suppress(*_CANNOT_ASK):
            return self._missing_rights(service)
        return []

    def may_ask_for_rights(self) -> bool:
        """Whether this user may do what it takes to tell which rights are missing (MULTI, DISCARD)."""
        return all(may_ask(connection) for connection in self._connections())

    def _missing_rights(self, service: Service) -> list[str]:
        found = (missing_rights(connection, self._keys, service) for connection in self._connections())
        return list(dict.fromkeys(chain.from_iterable(found)))

    def _connections(self) -> Iterator[Any]:
        """Yield a connection to each server, to ask about what went wrong; none to a server that cannot be asked."""
        try:
            servers = list(self._servers.masters().values())
        except _CANNOT_ASK:
            return
        for server in servers:
            pool = server.connection_pool
            with suppress(*_CANNOT_ASK):
                connection = pool.get_connection()
                try:
                    yield connection
                finally:
                    connection.disconnect()  # what was asked may have left replies behind
                    pool.release(connection)

    def _why_closed(self, error: Exception) -> str:
        """Say why a server may close connections although it is there; empty for any other error."""
        if not isinstance(error, redis.ConnectionError) or not _CLOSED.search(str(error)):
            return ""
        epoch = self.epoch
        limits = []
        with suppress(*_CANNOT_ASK):
            limits = [_buffer_limit(connection) for connection in self._connections()]
        limited = next((limit for limit in limits if limit != _NO_LIMIT), "")
        if not limited or self.epoch != epoch:  # it has no limit, or was restarted
            return ""
        return (
            f"; it answers on a new connection, so it seems to close those whose replies are large: "
            f"client-output-buffer-limit for normal clients is {limited}; set it to {_NO_LIMIT}"
        )

    def on_connect(self, check: Callable[[Any], None]) -> None:
        """Have every new connection checked before it is used; what ``check`` raises ends that connection."""
        self._checks.append(check)

    def shard_tags(self) -> tuple[str, ...]:
        """Return texts such that each server has keys with ``{text}`` in their names; always the same ones."""
        return self._servers.shard_tags()

    def check(self) -> None:
        """Make sure that the server, or each master of the cluster, can serve, on a new connection.

        Raises
        ------
        RedisUnavailable
            When no server answers, or a failover is under way.
        RedisUnsuitable
            When one is too old or a replica, or is in a cluster although the settings say otherwise, or the other
            way round.
        """
        with self.errors_translated():
            for address, server in self._servers.masters().items():
                server.connection_pool.disconnect(inuse_connections=False)
                if server.info("replication")["role"] != "master":
                    raise RedisUnavailable(f"Redis at {address} is not a master any more; a failover is in progress")

    def info(self) -> dict[str, dict[str, Any]]:
        """Return what each server that takes writes tells of itself, by its address."""
        with self.errors_translated():
            return {address: server.info() for address, server in self._servers.masters().items()}

    def _connected(self, connection: Any) -> None:
        """Look at the server on each new connection: it may have been restarted, replaced or demoted."""
        try:
            self._ensure_suitable(connection)
            for check in self._checks:
                check(connection)
        except RedisError:
            connection.disconnect()
            raise

    def _ensure_suitable(self, connection: Any) -> None:
        info: dict[str, str] = {}
        try:
            for section in ("server", "replication", "memory"):
                connection.send_command("INFO", section)
                lines = connection.read_response().decode(errors="replace").splitlines()
                info.update(line.split(":", 1) for line in lines if ":" in line)
        except redis.ResponseError as error:
            if is_refusal(error):
                raise self._refused(refused_command(error), error) from error
            raise RedisUnsuitable(f"Redis at {self._shown}: {error}") from error
        unfit = {why.code: why.words for why in why_unfit(info, on_cluster=self.is_cluster)}
        evicts = unfit.pop("eviction", "")
        if unfit:
            raise RedisUnsuitable(f"Redis at {self._shown} {next(iter(unfit.values()))}")
        address = getattr(connection, "path", None) or f"{connection.host}:{connection.port}"
        # A server that is promoted has a new replication id, one that is restarted a new run id.
        identity = (info.get("run_id"), info.get("master_replid"))
        if self._met.get(address) != identity:
            self._met[address] = identity
            self.epoch += 1
        if evicts:
            raise RedisUnsuitable(f"Redis at {self._shown} {evicts}")

    def run(self, calls: Sequence[Call]) -> list[Any]:
        """Run commands, each with its key, in one round trip (to each node of a cluster); results in order."""
        with self.errors_translated():
            return self._successful(calls, self._servers.run(calls))

    def _successful(self, calls: Sequence[Call], results: list[Any]) -> list[Any]:
        for (key, _), result in zip(calls, results, strict=True):
            if is_wrong_kind(result):
                raise damaged(self._keys, key, WRONG_KIND)
            if isinstance(result, Exception):
                raise result
        return results

    @contextmanager
    def script_pipeline(self, name: str) -> Iterator[ScriptPipeline]:
        """Open a pipeline of calls of ``<name>.lua``."""
        with self.errors_translated(), self._servers.pipeline() as pipeline:
            yield ScriptPipeline(self._servers, pipeline, *script(name), self._successful)

    def run_script(self, name: str, calls: Iterable[ScriptCall]) -> list[Any]:
        """Run ``<name>.lua`` once per (keys, arguments), all in one round trip; results in order.

        The keys of one call are in one slot of a cluster. A server that does not have the script, or has lost it
        (restart, failover), is given it.
        """
        with self.script_pipeline(name) as pipeline:
            pipeline.send(calls)
            return pipeline.results()

    def run_script_for_users(self, name: str, calls: Iterable[ScriptCall]) -> list[Any]:
        """Run a script that takes any number of users, each with as many keys and arguments; results in order."""
        return list(chain.from_iterable(self.run_script(name, self.many_users_a_call(calls))))

    def many_users_a_call(self, calls: Iterable[ScriptCall]) -> Iterator[ScriptCall]:
        """Let many users share a call, which costs the server and this side less than a call for each.

        In a cluster their keys may be on different nodes, so there every user has a call.
        """
        at_once = 1 if self.is_cluster else _USERS_PER_CALL
        users = iter(calls)
        while part := list(islice(users, at_once)):
            yield (
                list(chain.from_iterable(keys for keys, _ in part)),
                list(chain.from_iterable(arguments for _, arguments in part)),
            )

    def scan(self, pattern: str, *, kind: str | None) -> Iterator[list[str]]:
        """Yield the keys that match on all servers, of one Redis type or (None) of any, in batches.

        A key may come more than once. One that is made meanwhile may be missing, as may one in a slot of a cluster
        that is moving for as long as three scans take.
        """
        for _ in range(_MOST_SCANS):
            with self.errors_translated():
                before = self._servers.layout()
                servers = self._servers.masters().values()
            for server in servers:
                cursor = 0
                while True:
                    with self.errors_translated():
                        cursor, found = server.scan(cursor, match=pattern, count=2000, _type=kind)
                    yield [name for name in map(_text, found) if name is not None]
                    if cursor == 0:
                        break
            with self.errors_translated():
                after = self._servers.layout()
            if after == before and not any(slots["moving"] for slots in after.values()):
                return


class ScriptPipeline:
    """Calls of one script on their way to Redis, which works on them while this process does something else."""

    def __init__(
        self,
        servers: Cluster | SingleServer,
        pipeline: ServerPipeline | ClusterPipeline,
        text: str,
        digest: str,
        successful: Callable[[Sequence[Call], list[Any]], list[Any]],
    ) -> None:
        self._servers = servers
        self._pipeline = pipeline
        self._text = text
        self._digest = digest
        self._successful = successful
        self._calls: list[Call] = []

    def send(self, calls: Iterable[ScriptCall]) -> None:
        """Send calls; Redis begins with the first ones while later ones are still made by a generator."""
        self._pipeline.send(self._evalsha(keys, arguments) for keys, arguments in calls)

    def _evalsha(self, keys: Sequence[str], arguments: Sequence[Any]) -> Call:
        call = keys[0], ("EVALSHA", self._digest, len(keys), *keys, *arguments)
        self._calls.append(call)
        return call

    def first_results(self, count: int) -> list[Any]:
        """Return the first results as soon as they are there; none where they do not come first, or one failed."""
        replies = self._pipeline.first_replies(count)
        return [] if any(isinstance(reply, Exception) for reply in replies) else replies

    def results(self) -> list[Any]:
        """Return the results of all calls, in order; a server that lacks the script is given it."""
        replies = self._pipeline.replies()
        missing = [place for place, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if missing:
            load = ("SCRIPT", "LOAD", self._text)
            again = self._servers.run([self._calls[place] for place in missing], first=load)
            for place, reply in zip(missing, again, strict=True):
                replies[place] = reply
        return self._successful(self._calls, replies)


def connection_problem(url: str, error: Exception) -> str:
    """Return what is wrong with a connection, as redis-py says it, or that one side alone speaks TLS.

    A server in plain text waits for the end of the handshake as for that of a command; one that expects TLS closes a
    plain connection. Without a URL, as where sentinels say where the server is, redis-py alone is asked.
    """
    text = str(error) or type(error).__name__
    parts = urlsplit(url)
    if not isinstance(error, redis.ConnectionError | redis.TimeoutError) or not parts.hostname:
        return text
    host, port = parts.hostname, parts.port or _PORT
    if parts.scheme == "rediss":
        if _HANDSHAKE_FAILED.search(text) and answers_in_plain_text(host, port, b"PING\r\n", (b"+PONG", b"-")):
            return f"it speaks no TLS at port {port}; use redis://, or the port for TLS"
    elif _CLOSED.search(text) and handshake_problem(host, port, ssl.create_default_context()) != NO_TLS:
        return f"it expects TLS at port {port}; use rediss://, or the port without TLS"
    return text


def _text(name: str | bytes) -> str | None:
    """Return the name of a key; None for one that is no text, as no key of this project is."""
    try:
        return name if isinstance(name, str) else name.decode()
    except UnicodeDecodeError:
        return None


def _buffer_limit(connection: Any) -> str:
    """Return the setting of a server, as far as this user may see it."""
    try:
        connection.send_command("CONFIG", "GET", "client-output-buffer-limit")
        found = connection.read_response()
        return str(found[1].decode().partition(" slave")[0])
    except (redis.RedisError, IndexError):
        return "not known, for this user may not read it"


def _cause(error: RedisClusterException) -> Exception:
    """Return what a node said, which redis-py wraps when it cannot open a cluster."""
    cause = error.__cause__
    if isinstance(cause, RedisClusterException):  # "Cluster mode is not enabled": whatever the node answered
        cause = cause.__context__
    return cause if isinstance(cause, Exception) else error
