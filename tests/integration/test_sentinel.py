"""Redis Sentinel: the master is where the sentinels say, also after a failover, and what is wrong is named."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from recsys.errors import RedisError, RedisUnavailable, SettingsError
from recsys.redis import EvictionWatch, Service, Store, open_store
from recsys.redis.async_reader import open_read_store
from recsys.redis.eviction import Evictions
from recsys.redis.server_look import look_at_servers
from recsys.settings import RedisSettings, Settings
from tests.sentinels import PASSWORD, SENTINEL_PASSWORD, USER, WatchedRedis, watched_redis
from tests.services import kept_port, wait_until


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WatchedRedis]:
    with watched_redis(tmp_path_factory.mktemp("watched")) as started:
        yield started


def settings_of(watched: WatchedRedis, **changed: Any) -> Settings:
    given = {name.removeprefix("RECSYS_REDIS__").lower(): value for name, value in watched.settings.items()}
    return Settings.model_validate({"redis": {**given, **changed}})


def problem(settings: Settings) -> str:
    with open_store(settings) as store, pytest.raises(RedisError) as raised:
        store.connection.check()
    said = str(raised.value)
    assert len(said.splitlines()) == 1
    assert PASSWORD not in said
    assert SENTINEL_PASSWORD not in said
    return said


def test_what_is_wrong_with_sentinels_is_named(watched: WatchedRedis) -> None:
    nobody = f"127.0.0.1:{kept_port()}"
    assert f"no sentinel says where shop-redis is: {nobody}: " in problem(settings_of(watched, sentinel=nobody))
    unknown = problem(settings_of(watched, sentinel_master="other"))
    assert "watches no other (RECSYS_REDIS__SENTINEL_MASTER)" in unknown
    assert "invalid username-password pair" in problem(settings_of(watched, sentinel_password="mistaken-0815"))  # noqa: S106
    assert "Authentication required" in problem(settings_of(watched, sentinel_password=""))
    refused = problem(settings_of(watched, url=f"redis://{USER}:mistaken-0815@watched/0"))
    assert f"refuses user {USER}: invalid username-password pair" in refused


def test_a_sentinel_that_is_gone_does_not_matter(watched: WatchedRedis) -> None:
    address = watched.settings["RECSYS_REDIS__SENTINEL"]
    with open_store(settings_of(watched, sentinel=f"127.0.0.1:{kept_port()},{address}")) as store:
        store.connection.check()
        store.connection.ensure_rights(Service.CONSUMER)


def test_redis_cli_is_told_where_the_master_is(watched: WatchedRedis) -> None:
    (look,) = look_at_servers(settings_of(watched).redis)
    assert look.cli == ("-h", "127.0.0.1", "-p", str(watched.master_port()))


def test_addresses_are_checked() -> None:
    for wrong in ("somewhere", "host:0x1", "host:99999", "redis://host:1/0", "a:1,,b:2"):
        with pytest.raises(ValueError, match="RECSYS_REDIS__SENTINEL: must be addresses, host:port"):
            RedisSettings.model_validate({"sentinel": wrong})
    for other in ({"cluster": True}, {"url": "unix:///run/redis.sock"}):
        with pytest.raises(ValueError, match="RECSYS_REDIS__SENTINEL: sentinels watch no cluster"):
            RedisSettings.model_validate({"sentinel": "host:1", **other})
    assert RedisSettings.model_validate({"sentinel": "[::1]:26379, b:1"}).sentinels() == [("::1", 26379), ("b", 1)]
    with pytest.raises(SettingsError, match="is not a Redis URL"):
        with open_store(Settings.model_validate({"redis": {"sentinel": "a:1", "url": "redis://a/0?nonsense=1"}})):
            pass


def test_readers_and_writers_follow_a_failover(tmp_path: Path) -> None:
    with watched_redis(tmp_path) as watched, open_store(settings_of(watched)) as store:
        store.connection.check()
        store.connection.client.set("recsys:popular", b'{"items": []}')
        watched.await_replica()
        epoch, found = store.connection.epoch, list[Evictions]()
        evictions = EvictionWatch(settings_of(watched).redis, found.append)

        async def read_on() -> None:
            async with open_read_store(settings_of(watched).redis, timeout_s=0.5) as reader:
                assert await reader.popular() == b'{"items": []}'
                dead = await asyncio.to_thread(watched.kill_primary)
                await until_read(reader)
                dead.start()

        async def until_read(reader: Any) -> None:
            while True:
                with suppress(RedisUnavailable):
                    assert await reader.popular() == b'{"items": []}'
                    return
                await asyncio.sleep(0.1)

        asyncio.run(read_on())
        wait_until(lambda: takes_a_write(store), "the new master takes writes")
        assert store.connection.epoch > epoch, "what is checked after a failover is checked"
        assert int(watched.primary.client.get("recsys:written")) == 1
        evictions.look()
        assert len(found) == 1
        evictions._servers.close()


def takes_a_write(store: Store) -> bool:
    with suppress(RedisError), store.connection.errors_translated():
        store.connection.client.set("recsys:written", 1)
        return True
    return False
