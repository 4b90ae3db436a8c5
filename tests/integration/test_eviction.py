"""Evicted keys, and settings that let Redis evict, are noticed while services run."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from recsys.redis.eviction import Evictions, EvictionWatch
from recsys.settings import Settings
from tests.services import RedisCluster, RedisServer


class Watched:
    """A watch that looks when it is told to, and what it has found and said."""

    def __init__(self, url: str, caplog: pytest.LogCaptureFixture, **options: Any) -> None:
        self.found: list[Evictions] = []
        self._caplog = caplog
        settings = Settings.model_validate({"redis": {"url": url, **options}})
        self._watch = EvictionWatch(settings.redis, self.found.append)

    def look(self) -> list[tuple[int, str]]:
        """Look once; return the levels and texts of what is said."""
        self._caplog.clear()
        with self._caplog.at_level(logging.INFO):
            self._watch.look()
        return [(record.levelno, record.getMessage()) for record in self._caplog.records]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """A server of one's own, whose settings may be changed."""
    server = RedisServer(tmp_path)
    server.start()
    try:
        yield server
    finally:
        server.kill()


def let_evict(server: RedisServer, policy: str) -> None:
    server.client.config_set("maxmemory", "100gb")
    server.client.config_set("maxmemory-policy", policy)


def evict(server: RedisServer, keys: range) -> int:
    """Write more than there is room for; return how many keys have been evicted by now."""
    for key in keys:
        server.client.set(f"key-{key}", "x" * 10_000, ex=3600)
    server.client.config_set("maxmemory", server.client.info("memory")["used_memory"] - 100_000)
    server.client.set("one-more", "x", ex=3600)
    server.client.config_set("maxmemory", "100gb")
    return int(server.client.info("stats")["evicted_keys"])


def test_a_policy_that_evicts_histories_is_said_when_it_is_set(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    watched = Watched(server.url, caplog)
    assert watched.look() == []
    for policy in ("allkeys-lru", "allkeys-random"):
        let_evict(server, policy)
        ((level, text),) = watched.look()
        assert level == logging.ERROR
        assert f"may evict histories, bookkeeping and lists: its maxmemory-policy is {policy}" in text
        assert text.endswith("set noeviction")
        assert watched.look() == [], "once"
    server.client.config_set("maxmemory-policy", "noeviction")
    ((level, text),) = watched.look()
    assert level == logging.INFO
    assert text.endswith("evicts nothing any more: its maxmemory-policy is noeviction")
    assert watched.look() == []
    assert watched.found == [(0, False), *[(0, True)] * 4, *[(0, False)] * 2]
    let_evict(server, "allkeys-random")
    assert len(watched.look()) == 1


def test_a_policy_that_evicts_is_said_also_before_there_is_a_limit(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.client.config_set("maxmemory-policy", "allkeys-lru")
    watched = Watched(server.url, caplog)
    ((level, text),) = watched.look()
    assert level == logging.ERROR
    assert "with maxmemory 0, so not before it has one" in text
    assert watched.found == [(0, True)]


def test_a_policy_that_evicts_what_expires_is_said(server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    let_evict(server, "volatile-lru")
    watched = Watched(server.url, caplog)
    ((level, text),) = watched.look()
    assert level == logging.WARNING
    assert "may evict lists, the trainer's lock and what is remembered of erased users" in text
    assert watched.found == [(0, False)]


def test_evicted_keys_are_counted_and_said(server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    let_evict(server, "allkeys-lru")
    before = evict(server, range(50))
    watched = Watched(server.url, caplog)
    (_, policy), (level, text) = watched.look()
    assert "may evict" in policy
    assert level == logging.WARNING
    assert f"has evicted {before} keys since it was started" in text
    assert watched.look() == []
    after = evict(server, range(50, 100))
    assert after > before
    ((level, text),) = watched.look()
    assert level == logging.ERROR
    assert f"has evicted {after} keys, {after - before} of them since the last look: histories" in text
    assert "set maxmemory-policy noeviction" in text
    assert "recsys rebuild" in text
    assert watched.found == [(before, True), (before, True), (after, True)]
    server.client.config_resetstat()
    again = evict(server, range(100, 150))
    ((_, text),) = watched.look()
    assert f"has evicted {again} keys, {again} of them" in text


def test_a_server_that_refuses_to_tell_is_named_once(server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    server.client.execute_command("ACL", "SETUSER", "shop", "on", ">shop-key", "~*", "+@all", "-info")
    watched = Watched(f"redis://shop:shop-key@127.0.0.1:{server.port}/0", caplog)
    ((level, text),) = watched.look()
    assert level == logging.WARNING
    assert "refuses INFO" in text
    assert watched.look() == []
    assert watched.found == []


def test_a_server_that_is_away_is_others_to_tell(server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched(server.url, caplog, timeout_s=0.5)
    server.kill()
    assert [entry for entry in watched.look() if entry[0] > logging.DEBUG] == []
    server.start()
    assert watched.look() == []
    assert watched.found == [(0, False)]


def test_every_master_of_a_cluster_is_looked_at(redis_cluster: RedisCluster, caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched(redis_cluster.url, caplog, cluster=True)
    assert watched.look() == []
    last = redis_cluster.masters()[-1]
    let_evict(last, "allkeys-lru")
    try:
        ((_, text),) = watched.look()
        assert f"Redis at 127.0.0.1:{last.port} may evict histories" in text
        assert watched.found == [(0, False), (0, True)]
    finally:
        last.client.config_set("maxmemory-policy", "noeviction")
        last.client.config_set("maxmemory", "0")
