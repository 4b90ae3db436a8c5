"""Reading Redis from an event loop, a single server and a cluster."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import orjson
import pytest

from recsys.errors import RedisUnavailable
from recsys.lists.encoding import as_json
from recsys.recommend.user_lists import RankedList
from recsys.redis import ModelStamp, PlacedEvent, Store, async_reader
from recsys.redis.async_reader import ReadStore, open_read_store
from recsys.settings import RedisSettings, Settings
from tests.builders import make_event
from tests.lists import write_lists
from tests.services import RedisServer

T = TypeVar("T")
NOW = datetime(2026, 11, 22, tzinfo=UTC)
TIMEOUT_S = 0.5


def read(
    settings: RedisSettings,
    ask: Callable[[ReadStore], Awaitable[T]],
    *,
    timeout_s: float = TIMEOUT_S,
    on_away: Callable[[], None] = lambda: None,
) -> T:
    async def asked() -> T:
        async with open_read_store(settings, timeout_s=timeout_s, on_away=on_away) as reader:
            return await ask(reader)

    return asyncio.run(asked())


def bought(item: str, *, offset: int = 0, quantity: float = 1) -> PlacedEvent:
    return PlacedEvent("t:0", offset, make_event(item_id=item, quantity=quantity))


def publish(store: Store, user: str, *items: str) -> None:
    start = store.users.read([user])[user].revision * 10
    states = store.users.apply({user: [bought(item, offset=start + place) for place, item in enumerate(items)]})
    revisions = {user: states[user].revision}
    write_lists(store.users, revisions, [RankedList(("x",), (1.0,))], ModelStamp("m", 1), at=NOW)


def test_lists_of_many_users_come_in_order_with_the_revisions_of_their_histories(
    store: Store, store_settings: Settings
) -> None:
    publish(store, "a", "i")
    publish(store, "b", "i")
    publish(store, "b", "j", "k")
    users = ["b", "nobody", "a", "b", *(f"none-{n}" for n in range(600)), "a"]
    found = read(store_settings.redis, lambda reader: reader.user_lists(users))
    assert len(found) == len(users)
    told = [(cached.content and orjson.loads(cached.content)["user_id"], cached.revision) for cached in found]
    assert told == [("b", 2), (None, 0), ("a", 1), ("b", 2), *[(None, 0)] * 600, ("a", 1)]


def test_the_script_is_loaded_again_where_a_server_has_lost_it(store: Store, store_settings: Settings) -> None:
    publish(store, "a", "i")

    async def asked(reader: ReadStore) -> list[int]:
        found = []
        for users in (["a"], ["a"] * 300):
            if not store.connection.is_cluster:
                store.connection.client.script_flush()
            found.append(sum(cached.revision for cached in await reader.user_lists(users)))
        return found

    assert read(store_settings.redis, asked) == [1, 300]


def test_histories_and_what_is_owned(store: Store, store_settings: Settings) -> None:
    store.users.apply({"a": [bought("i", quantity=2), bought("j", offset=2)], "b": [bought("j", offset=3)]})

    async def asked(reader: ReadStore) -> tuple[Any, Any, Any]:
        owned = await reader.owned_among({"a": ["i", "x", "j"], "b": ["i"], "c": []})
        return owned, await reader.history("a"), await reader.history("nobody")

    owned, history, nothing = read(store_settings.redis, asked)
    assert owned == {"a": {"i", "j"}, "b": frozenset()}
    assert history == store.users.read(["a"])["a"].history.entries
    assert nothing == {}


def test_shared_lists(store: Store, store_settings: Settings) -> None:
    store.item_lists.write_popular(as_json(RankedList(("p",), (2.0,))), ModelStamp("m", 1), at=NOW)
    store.item_lists.write_similar(["i"], [as_json(RankedList(("s",), (0.5,)))], ModelStamp("m", 1), at=NOW, ttl_s=60)

    async def asked(reader: ReadStore) -> list[bytes | None]:
        await reader.ping()
        return [
            await reader.popular(),
            await reader.popular("none"),
            await reader.similar("i"),
            await reader.again("a"),
        ]

    popular, none, similar, again = read(store_settings.redis, asked)
    assert popular is not None
    assert similar is not None
    assert orjson.loads(popular) == store.item_lists.popular()
    assert orjson.loads(similar) == store.item_lists.similar("i")
    assert (none, again) == (None, None)


def test_a_server_that_is_away_or_hangs_costs_little_and_is_back_at_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    away: list[bool] = []
    server = RedisServer(tmp_path)
    server.start()
    settings = RedisSettings.model_validate({"url": server.url})

    async def failed(reader: ReadStore) -> float:
        started = time.monotonic()
        with pytest.raises(RedisUnavailable):
            await reader.user_lists(["a"])
        return time.monotonic() - started

    async def back(reader: ReadStore) -> None:
        until = time.monotonic() + 10
        while True:
            try:
                await reader.ping()
                return
            except RedisUnavailable:
                assert time.monotonic() < until
                await asyncio.sleep(0.05)

    async def asked(reader: ReadStore) -> None:
        await reader.ping()
        server.freeze()
        waited = [await failed(reader) for _ in range(3)]
        assert min(waited) > 0.05
        assert away == [True]
        others = await asyncio.gather(*(failed(reader) for _ in range(500)))
        assert max(others) < min(waited)  # they do not wait for what is known to be away
        server.thaw()
        await back(reader)
        server.kill()
        for _ in range(5):
            await failed(reader)
        server.start()
        await back(reader)
        assert (await reader.user_lists(["a"]))[0].content is None

    try:
        read(settings, asked, timeout_s=0.05, on_away=lambda: away.append(True))
        assert caplog.text.count("answers again") == len(away) > 1
    finally:
        server.kill()


def test_what_is_wrong_with_one_key_is_said_and_not_taken_for_an_outage(
    store: Store, store_settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("recsys.redis.async_reader.requests").filters[0]._said.clear()  # type: ignore[union-attr]  # of tests before this one
    store.connection.client.set(store.users._keys.history("a"), "no hash")
    away: list[bool] = []

    async def asked(reader: ReadStore) -> None:
        for _ in range(10):
            with pytest.raises(RedisUnavailable, match="wrong kind"):
                await reader.history("a")
        await reader.ping()

    read(store_settings.redis, asked, on_away=lambda: away.append(True))
    assert not away
    assert len([record for record in caplog.records if "wrong kind" in record.getMessage()]) == 1


def test_more_reads_at_once_than_there_are_connections_wait_their_turn(store: Store, store_settings: Settings) -> None:
    publish(store, "a", "i")

    async def asked(reader: ReadStore) -> list[int]:
        found = await asyncio.gather(*(reader.user_lists(["a"]) for _ in range(300)))
        return [cached.revision for (cached,) in found]

    assert read(store_settings.redis, asked, timeout_s=5) == [1] * 300


def test_what_is_damaged_of_one_user_concerns_nobody_else(store: Store, store_settings: Settings) -> None:
    for user in "abcd":
        publish(store, user, "i", "j")
    client, keys = store.connection.client, store.users._keys
    for key in (keys.applied("a"), keys.history("b"), keys.recs("a")):
        client.delete(key)
        client.rpush(key, "x")
    client.hset(keys.applied("c"), "revision", "abc")
    client.hset(keys.history("c"), "i", "x|1")
    users = ["a", "b", "c", "d"]
    found = read(store_settings.redis, lambda reader: reader.user_lists(users))
    assert [one.revision for one in found] == [0, 1, 0, 1]
    assert [one.content is None for one in found] == [True, False, False, False]
    owned = read(store_settings.redis, lambda reader: reader.owned_among(dict.fromkeys(users, ("i", "z"))))
    assert owned == {"a": {"i"}, "b": {"i", "z"}, "c": {"i", "z"}, "d": {"i"}}, "what may be owned is not recommended"
    for user in "bc":
        with pytest.raises(RedisUnavailable, match="history is damaged"):
            read(store_settings.redis, lambda reader, user=user: reader.history(user))  # type: ignore[misc]
    assert set(read(store_settings.redis, lambda reader: reader.history("d"))) == {"i", "j"}


def test_a_value_that_is_far_too_large_is_no_list_and_no_outage(
    store: Store, store_settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    publish(store, "a", "i")
    client, keys = store.connection.client, store.users._keys
    huge = b"{" * (8 * 2**20)
    for key in (keys.recs("b"), keys.popular_in(None), keys.again("b"), keys.similar("i")):
        client.set(key, huge)
    client.hset(keys.applied("b"), "revision", huge)
    away: list[bool] = []

    async def asked(reader: ReadStore) -> None:
        for _ in range(5):
            a, b = await reader.user_lists(["a", "b"])
            assert (a.revision, b.revision, b.content) == (1, 0, None)
            assert a.content
            for asked_for in (reader.popular(), reader.again("b"), reader.similar("i")):
                with pytest.raises(RedisUnavailable, match="it has more than"):
                    await asked_for
        await reader.ping()

    read(store_settings.redis, asked, timeout_s=60, on_away=lambda: away.append(True))
    assert not away
    assert "trying again" not in caplog.text


def test_requests_that_take_too_long_are_not_taken_for_an_outage(
    store: Store, store_settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    publish(store, "a", "i")
    away: list[bool] = []

    async def too_late() -> None:
        raise TimeoutError("no answer in time")

    async def asked(reader: ReadStore) -> None:
        for _ in range(async_reader._FAILURES):
            with pytest.raises(RedisUnavailable, match="no answer in time"):
                await reader._read(too_late, "a key")
        assert (await reader.user_lists(["a"]))[0].revision == 1

    read(store_settings.redis, asked, timeout_s=60, on_away=lambda: away.append(True))
    assert not away
    assert "it answers others" in caplog.text


def test_a_key_of_another_kind_is_named(store: Store, store_settings: Settings) -> None:
    client, keys = store.connection.client, store.users._keys
    for key in (keys.popular_in(None), keys.similar("i"), keys.again("u")):
        client.rpush(key, "x")
    asks: list[Callable[[ReadStore], Awaitable[Any]]] = [
        lambda reader: reader.popular(),
        lambda reader: reader.similar("i"),
        lambda reader: reader.again("u"),
    ]
    for ask, key in zip(asks, (keys.popular_in(None), keys.similar("i"), keys.again("u")), strict=True):
        with pytest.raises(RedisUnavailable) as caught:
            read(store_settings.redis, ask)
        assert key in str(caught.value)
