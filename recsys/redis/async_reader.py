"""Reading Redis from an event loop, for requests that must not wait: short time-outs, few connections.

Writes, and whatever may take its time, go through `recsys.redis.connection`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, TypeVar

import redis
import redis.asyncio
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisClusterException

from recsys.data.history import Entry
from recsys.errors import RedisUnavailable
from recsys.logger import logger
from recsys.redis.credentials import ServerCredentials, bare_url, shown_address
from recsys.redis.damage import WRONG_KIND, damaged, is_wrong_kind, whole_or_none
from recsys.redis.keys import Keys
from recsys.redis.rights import is_refusal, refused_command, user_of
from recsys.redis.scripts import script
from recsys.redis.sentinel import open_async_client
from recsys.runtime.logs import RepeatsLeftOut
from recsys.settings import RedisSettings

T = TypeVar("T")
log = logger(__name__)
_about_requests = logger(f"{__name__}.requests")
logging.getLogger(f"{__name__}.requests").addFilter(RepeatsLeftOut(every_s=30.0))
_AWAY = (redis.RedisError, RedisClusterException, OSError, TimeoutError)
_USERS_PER_CALL = 128  # as long as that, a script holds up everyone else in Redis: half a millisecond
_FAILURES = 3
"""So many reads in a row, and Redis is taken to be away: a single one may only have waited for a busy process."""
_PROBE_EVERY_S = 0.1
_PROBE_REFUSED_EVERY_S = 2.0
"""When a person has to act first: each try is a login, or a handshake, that fails."""
_TURNS_OF_GRACE = 50
"""Of an idle process they take no time."""
_MOST_LIST_BYTES = 2 * 2**20
"""What is longer is no list: the longest one has 1,000 items with ids of 1 KiB each."""
_READS_AT_ONCE = 16
"""A read that is under way must be answered in time, so it may not queue behind many others in this process."""


class UserList(NamedTuple):
    """What is cached for a user."""

    content: bytes | None
    """The list, JSON; None = there is none."""
    revision: int
    """Of the user's history: if it is not that of the list, the list is about to be replaced."""


class ReadStore:
    """What requests read. Each call takes at most a few time-outs and then raises `RedisUnavailable`.

    When several reads in a row have failed, and a PING as well, all others fail at once, so that none waits for a
    server that is away, until a task that looks every tenth of a second has got an answer. Where a login or a
    certificate is refused, which a person has to mend, it looks every two seconds.

    Parameters
    ----------
    client : redis.asyncio.Redis or RedisCluster
    keys : Keys
    shown : str
        The server's address for error texts.
    user : str
        Who logs in, for error texts.
    timeout_s : float
        Of one try.
    on_away : callable
        Called each time that Redis is found to be away.
    """

    def __init__(
        self,
        client: Any,
        keys: Keys,
        *,
        shown: str,
        user: str,
        timeout_s: float,
        is_cluster: bool,
        on_away: Callable[[], None] = lambda: None,
    ) -> None:
        self._client = client
        self._keys = keys
        self._shown = shown
        self._user = user
        self._timeout_s = timeout_s
        self._is_cluster = is_cluster
        self._script, self._digest = script("lists")
        self._on_away = on_away
        self._turns = asyncio.Semaphore(_READS_AT_ONCE)
        self._failures = 0
        self._is_asked = False
        """Whether it is being found out if Redis is away."""
        self._probe: asyncio.Task[None] | None = None
        """Runs while Redis is taken to be away."""

    async def ping(self) -> None:
        """Raise unless Redis answers."""
        await self._read(self._client.ping)

    async def user_lists(self, user_ids: Sequence[str]) -> list[UserList]:
        """Return what is cached for users, in order, all in one round trip."""
        keys = self._keys
        if self._is_cluster:

            async def found() -> list[Any]:
                async with self._pipeline() as pipeline:
                    for user in user_ids:
                        pipeline.getrange(keys.recs(user), 0, _MOST_LIST_BYTES).hget(keys.applied(user), "revision")
                    return [_none_if_wrong_kind(reply) for reply in await pipeline.execute(raise_on_error=False)]

        else:
            users = [user_ids[start : start + _USERS_PER_CALL] for start in range(0, len(user_ids), _USERS_PER_CALL)]
            parts = [[*map(keys.recs, part), *map(keys.applied, part)] for part in users]

            async def found() -> list[Any]:
                if len(parts) == 1:
                    return list(await self._evaluate(parts[0]))
                return [value for part in await self._evaluate_all(parts) for value in part]

        values = await self._read(found)
        return [
            UserList(_list_or_none(content), whole_or_none(revision) or 0)
            for content, revision in zip(values[::2], values[1::2], strict=True)
        ]

    async def _evaluate(self, names: list[str]) -> Any:
        try:
            return await self._client.evalsha(self._digest, len(names), *names, _MOST_LIST_BYTES)
        except NoScriptError:  # restarted, or another server
            return await self._client.eval(self._script, len(names), *names, _MOST_LIST_BYTES)

    async def _evaluate_all(self, parts: list[list[str]]) -> list[Any]:
        for load in (False, True):
            async with self._pipeline() as pipeline:
                if load:
                    pipeline.script_load(self._script)
                for names in parts:
                    pipeline.evalsha(self._digest, len(names), *names, _MOST_LIST_BYTES)
                try:
                    replies = list(await pipeline.execute())
                except NoScriptError:
                    if load:
                        raise
                    continue
                return replies[1:] if load else replies
        raise AssertionError("unreachable")

    async def owned_among(self, items: Mapping[str, Sequence[str]]) -> dict[str, frozenset[str]]:
        """Return which of these items each user owns, given user → items; all in one round trip.

        Of a history that cannot be read it is not known: then all of them might be owned.
        """
        asked = {user: list(ids) for user, ids in items.items() if ids}
        if not asked:
            return {}

        async def found() -> list[Any]:
            async with self._pipeline() as pipeline:
                for user, ids in asked.items():
                    pipeline.hmget(self._keys.history(user), ids)
                return [_none_if_wrong_kind(reply) for reply in await pipeline.execute(raise_on_error=False)]

        values = await self._read(found)
        return {user: _owned(ids, own) for (user, ids), own in zip(asked.items(), values, strict=True)}

    def _pipeline(self) -> Any:
        return self._client.pipeline() if self._is_cluster else self._client.pipeline(transaction=False)

    async def history(self, user_id: str) -> dict[str, Entry]:
        """Return a user's history by item, with net quantities of any sign; empty for an unknown user.

        Raises
        ------
        RedisUnavailable
            Also when it is no history.
        """
        key = self._keys.history(user_id)
        found = await self._read(lambda: self._client.hgetall(key), key)
        try:
            return {item.decode(): Entry.parse(value.decode()) for item, value in found.items()}
        except ValueError as error:
            raise self._damaged(key, error) from None

    async def again(self, user_id: str) -> bytes | None:
        """Return the list of what a user may buy again."""
        return await self._get(self._keys.again(user_id))

    async def popular(self, category: str | None = None) -> bytes | None:
        """Return the popular list, overall or of a category."""
        return await self._get(self._keys.popular_in(category))

    async def similar(self, item_id: str) -> bytes | None:
        """Return an item's similar items."""
        return await self._get(self._keys.similar(item_id))

    async def _get(self, key: str) -> bytes | None:
        value = await self._read(lambda: self._client.getrange(key, 0, _MOST_LIST_BYTES), key)
        if len(value) > _MOST_LIST_BYTES:
            raise self._damaged(key, f"it has more than {_MOST_LIST_BYTES:,} bytes")
        return value or None

    def _damaged(self, key: str, problem: object) -> RedisUnavailable:
        error = RedisUnavailable(str(damaged(self._keys, key, problem)))
        _about_requests.warning("request_failed", "{error}", error=error)
        return error

    async def _read(self, ask: Callable[[], Awaitable[T]], key: str = "") -> T:
        """Return what Redis answers; ``key`` is what is asked for, if it is one."""
        async with self._turns:
            return await self._read_now(ask, key)

    async def _read_now(self, ask: Callable[[], Awaitable[T]], key: str) -> T:
        if self._probe is not None:
            raise RedisUnavailable(f"Redis at {self._shown} is unavailable")
        try:
            found = await self._asked(ask)
        except redis.ResponseError as error:  # of this request alone: a key of another kind, no permission
            if key and is_wrong_kind(error):
                raise self._damaged(key, WRONG_KIND) from None
            problem = f"Redis at {self._shown}: {error}"
            if is_refusal(error):
                problem = f"Redis at {self._shown} refuses user {self._user}: {refused_command(error) or error}"
            _about_requests.warning("request_failed", "{error}", error=problem)
            raise RedisUnavailable(problem) from error
        except _AWAY as error:
            problem = f"Redis at {self._shown}: {str(error) or type(error).__name__}"
            self._failures += 1
            if self._failures >= _FAILURES and not self._is_asked:
                await self._find_out(problem, error)
            raise RedisUnavailable(problem) from error
        self._failures = 0
        return found

    async def _asked(self, ask: Callable[[], Awaitable[T]]) -> T:
        try:
            return await self._in_time(ask(), self._timeout_s)
        except _AWAY as error:
            if isinstance(error, redis.ResponseError):
                raise
            # Once more, on another connection, which takes a while to open.
            return await self._in_time(ask(), 2 * self._timeout_s)

    async def _in_time(self, asked: Awaitable[T], timeout_s: float) -> T:
        """Await a reply for so long; and then for some turns of the loop, if it is there and this process busy."""
        task = asyncio.ensure_future(asked)
        try:
            await asyncio.wait((task,), timeout=timeout_s)
            for _ in range(_TURNS_OF_GRACE):
                if task.done():
                    return task.result()
                await asyncio.sleep(0)
            raise TimeoutError("no answer in time")
        finally:
            task.cancel()

    async def _find_out(self, problem: str, error: Exception) -> None:
        """Find out whether Redis is away, or what was asked for takes too long: then a PING is answered."""
        self._is_asked = True
        try:
            if isinstance(error, TimeoutError | redis.TimeoutError):
                await self._in_time(self._client.ping(), self._timeout_s)
                self._failures = 0
                _about_requests.warning(
                    "request_failed", "{error}; it answers others: a value that is far too large?", error=problem
                )
                return
        except _AWAY as newer:
            error = newer
        finally:
            self._is_asked = False
        if self._probe is None:
            every_s = _PROBE_REFUSED_EVERY_S if _is_refused(error) else _PROBE_EVERY_S
            log.warning("redis_away", "{problem}; trying again every {every_s:g} s", problem=problem, every_s=every_s)
            self._on_away()
            self._probe = asyncio.create_task(self._until_back(every_s))

    async def _until_back(self, every_s: float) -> None:
        while True:
            await asyncio.sleep(every_s)
            try:
                await self._asked(self._client.ping)
                break
            except _AWAY as error:
                every_s = _PROBE_REFUSED_EVERY_S if _is_refused(error) else _PROBE_EVERY_S
        log.info("redis_answers", "Redis at {address} answers again", address=self._shown)
        self._failures, self._probe = 0, None

    async def close(self) -> None:
        """Close all connections."""
        if self._probe is not None:
            self._probe.cancel()
        await self._client.aclose()


def _none_if_wrong_kind(reply: Any) -> Any:
    """Return a reply, None in place of what a key of another kind was answered; raise any other error."""
    if is_wrong_kind(reply):
        return None
    if isinstance(reply, Exception):
        raise reply
    return reply


def _list_or_none(content: bytes | None) -> bytes | None:
    return content if content and len(content) <= _MOST_LIST_BYTES else None


def _owned(item_ids: Sequence[str], values: Sequence[bytes | None] | None) -> frozenset[str]:
    """Return the items that are owned, or may be."""
    if values is None:
        return frozenset(item_ids)
    try:
        pairs = zip(item_ids, values, strict=True)
        return frozenset(item for item, value in pairs if value and Entry.parse(value.decode()).units > 0)
    except ValueError:  # no entry of a history
        return frozenset(item_ids)


def _is_refused(error: Exception) -> bool:
    """Whether a login was refused or a certificate cannot be verified: that does not pass by itself."""
    return isinstance(error, redis.AuthenticationError) or "CERTIFICATE_VERIFY_FAILED" in str(error)


@asynccontextmanager
async def open_read_store(
    settings: RedisSettings, *, timeout_s: float, on_away: Callable[[], None] = lambda: None
) -> AsyncIterator[ReadStore]:
    """Open Redis for reading; it is first asked when something is read."""
    # How long to wait, and whether to try again, is decided here: redis-py's time-outs know of no busy process.
    options: dict[str, Any] = {"socket_timeout": None, "retry": Retry(NoBackoff(), 0), "protocol": 2}
    client: Any
    if settings.sentinel:
        client = open_async_client(settings, **options)
    else:
        options["credential_provider"] = ServerCredentials(settings)
        kind: Any = RedisCluster if settings.cluster else redis.asyncio.Redis
        client = kind.from_url(bare_url(settings), **options)
    reader = ReadStore(
        client,
        Keys(settings.prefix),
        shown=shown_address(settings),
        user=user_of(settings.url.get_secret_value()),
        timeout_s=timeout_s,
        is_cluster=settings.cluster,
        on_away=on_away,
    )
    try:
        yield reader
    finally:
        await reader.close()
