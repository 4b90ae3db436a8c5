"""A Redis with users, TLS and limits: what cannot work is said with its cause, and without passwords."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import ConnectionError
from redis.exceptions import BusyLoadingError

from recsys.errors import RedisError, RedisUnavailable
from recsys.redis import Service, Store, open_store
from recsys.redis.async_reader import open_read_store
from recsys.settings import RedisSettings, Settings
from tests.secured import PASSWORD, Authority, SecuredRedis, secured_redis
from tests.services import kept_port


@pytest.fixture(scope="module")
def server() -> Iterator[SecuredRedis]:
    with secured_redis() as started:
        started.set_user("shop", "~recsys:*", "+@all")
        yield started


def problem(url: str, *, read: str = "") -> str:
    """Return what an operator is told who reads the popular list of a category."""
    with open_store(Settings.model_validate({"redis": {"url": url, "timeout_s": 2}})) as store:
        with pytest.raises(RedisError) as raised:
            store.item_lists.popular(read or None)
    text = str(raised.value)
    assert len(text.splitlines()) == 1
    assert PASSWORD not in text
    return text


def test_whoever_may_is_served(server: SecuredRedis) -> None:
    with open_store(Settings.model_validate({"redis": {"url": server.url_of("shop")}})) as store:
        store.connection.check()
        assert store.item_lists.popular() is None


def test_login_that_is_refused(server: SecuredRedis) -> None:
    for user, password in (("shop", "not-the-password"), ("nobody", PASSWORD)):
        said = problem(server.url_of(user, password))
        assert f"refuses user {user}: invalid username-password pair" in said
        assert password not in said


def test_address_that_is_wrong() -> None:
    assert "nowhere.invalid:6379. Name or service not known" in problem("redis://nowhere.invalid:6379/0")
    assert "Connection refused" in problem(f"redis://localhost:{kept_port()}/0")


def test_tls_where_none_is_spoken_and_none_where_it_is(server: SecuredRedis) -> None:
    assert f"it expects TLS at port {server.tls_port}; use rediss://" in problem(
        f"redis://localhost:{server.tls_port}/0"
    )
    assert f"it speaks no TLS at port {server.port}; use redis://" in problem(f"rediss://localhost:{server.port}/0")


def test_certificate_that_cannot_be_verified(server: SecuredRedis, tmp_path: Path) -> None:
    assert "certificate verify failed: " in problem(f"rediss://localhost:{server.tls_port}/0")
    authority = Authority(tmp_path / "own")
    for shown, why in (
        (authority.issue("old", expired=True), "certificate has expired"),
        (authority.issue("elsewhere", names=["DNS:elsewhere.example"]), "Hostname mismatch"),
    ):
        other = SecuredRedis(tmp_path / shown.key.stem, server=shown)
        other.start()
        try:
            url = f"rediss://localhost:{other.tls_port}/0?ssl_ca_certs={authority.certificate}"
            assert f"certificate verify failed: {why}" in problem(url)
        finally:
            other.kill()


async def told_when_away(url: str) -> None:
    async with open_read_store(RedisSettings.model_validate({"url": url}), timeout_s=2) as reader:
        for _ in range(3):
            with pytest.raises(RedisUnavailable):
                await reader.popular()


def test_a_login_or_a_certificate_that_is_refused_is_not_tried_again_at_once(
    server: SecuredRedis, caplog: pytest.LogCaptureFixture
) -> None:
    for url in (server.url_of("shop", "mistaken-0815"), f"rediss://localhost:{server.tls_port}/0"):
        asyncio.run(told_when_away(url))
        assert caplog.messages[-1].endswith("; trying again every 2 s")
    asyncio.run(told_when_away(f"redis://localhost:{kept_port()}/0"))
    assert caplog.messages[-1].endswith("; trying again every 0.1 s")
    assert "mistaken-0815" not in caplog.text


def test_replies_that_are_larger_than_the_limit_of_a_client(tmp_path: Path) -> None:
    with secured_redis("--client-output-buffer-limit", "normal 64kb 64kb 1") as limited:
        limited.client.set("recsys:popular:tea", b"x" * 3_000_000)
        assert (
            "client-output-buffer-limit for normal clients is normal 65536 65536 1; set it to normal 0 0 0"
            in problem(limited.url, read="tea")
        )
        limited.set_user("shop", "~recsys:*", "+@all", "-config")
        said = problem(limited.url_of("shop", tls=False), read="tea")
        assert "client-output-buffer-limit for normal clients is not known, for this user may not read it" in said


def test_connection_that_is_closed_for_another_reason_is_not_laid_to_the_limit(server: SecuredRedis) -> None:
    with open_store(Settings.model_validate({"redis": {"url": server.url}})) as store:
        store.connection.check()
        with pytest.raises(RedisError) as raised, store.connection.errors_translated():
            raise ConnectionError("Connection closed by server.")
    assert "client-output-buffer-limit" not in str(raised.value)


@pytest.mark.parametrize("error", [BusyLoadingError("loading"), ConnectionError("gone")])
def test_a_server_that_goes_while_it_is_asked_for_rights_is_waited_for(
    store: Store, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def ask(*_: object) -> list[str]:
        raise error

    monkeypatch.setattr("recsys.redis.connection.missing_rights", ask)
    with pytest.raises(RedisUnavailable, match=str(error)):
        store.connection.ensure_rights(Service.CONSUMER)
    assert store.connection.missing_rights(Service.CONSUMER) == [], "an error that is explained stays the one it was"
