"""Which Redis the demo starts."""

from __future__ import annotations

import subprocess
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from recsys.demo import services
from recsys.errors import RedisUnavailable


def executable(path: Path) -> str:
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return str(path)


def test_a_server_on_path_is_taken_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    valkey = executable(tmp_path / "valkey-server")
    assert services.find_redis_server() == valkey
    redis = executable(tmp_path / "redis-server")
    assert services.find_redis_server() == redis


def test_else_the_one_of_the_demo_extra_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    shown = subprocess.run([services.find_redis_server(), "--version"], capture_output=True, text=True, check=True)
    assert shown.stdout.startswith("Valkey server v=9.")


def test_without_any_it_is_said_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(services, "distribution", nowhere)
    with pytest.raises(RedisUnavailable, match=r'on PATH: install Redis .*pip install "recsys\[demo\]"'):
        services.find_redis_server()
