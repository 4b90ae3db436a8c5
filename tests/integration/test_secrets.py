"""What servers quote of what they were sent is not shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from recsys.errors import RedisError
from recsys.redis import open_store
from recsys.settings import Settings
from tests.services import RedisServer


def test_a_redis_without_auth_that_quotes_the_password_is_cut_short(tmp_path: Path) -> None:
    server = RedisServer(tmp_path, "--rename-command", "AUTH", "")
    server.start()
    try:
        url = f"redis://shop:hunter2-{'x' * 200}@127.0.0.1:{server.port}/0"
        settings = Settings.model_validate({"redis": {"url": url}})
        with open_store(settings) as store, pytest.raises(RedisError, match=r"(?i)unknown command.*AUTH") as raised:
            store.connection.check()
        assert "hunter2" not in str(raised.value)
        assert "xxxx" not in str(raised.value)
    finally:
        server.kill()
