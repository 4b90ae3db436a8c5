"""One connection to Redis: errors become this project's own, scripts run in pipelines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from typing import Any

import redis
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from recsys.errors import SettingsError, StoreUnavailable, StoreUnsuitable
from recsys.settings import RedisSettings, masked_url

_OLDEST_VERSION = (6, 2)


class Connection:
    """A Redis client that raises `StoreUnavailable` and knows this project's Lua scripts.

    Every write that goes through it may run twice (the client repeats a command whose reply was lost), so every
    write must be idempotent.
    """

    def __init__(self, settings: RedisSettings) -> None:
        url = settings.url.get_secret_value()
        self._shown = masked_url(url)
        try:
            self.client = redis.Redis.from_url(
                url,
                socket_timeout=settings.timeout_s,
                socket_connect_timeout=settings.timeout_s,
                retry=Retry(ExponentialBackoff(cap=0.2, base=0.02), retries=1),
                protocol=2,
            )
            pool = self.client.connection_pool
            pool.connection_class(**pool.connection_kwargs)  # refuses options that it does not know; connects nowhere
        except (ValueError, TypeError) as error:
            raise SettingsError(f"RECSYS_REDIS__URL: {self._shown} is not a Redis URL: {error}") from None
        self._scripts: dict[str, tuple[str, str]] = {}

    def close(self) -> None:
        """Close all sockets."""
        self.client.close()

    @contextmanager
    def errors_translated(self) -> Iterator[None]:
        """Turn redis-py's errors into this project's."""
        try:
            yield
        except (redis.AuthenticationError, redis.exceptions.NoPermissionError) as error:
            raise StoreUnsuitable(f"Redis at {self._shown} refuses this user: {error}") from error
        except redis.RedisError as error:
            raise StoreUnavailable(f"Redis at {self._shown}: {error}") from error

    def check(self) -> None:
        """Make sure that the server can serve.

        Raises
        ------
        StoreUnavailable
            When no server answers.
        StoreUnsuitable
            When it is too old or a replica.
        """
        with self.errors_translated():
            try:
                info: dict[str, Any] = self.client.info()
            except redis.ResponseError as error:
                raise StoreUnsuitable(f"Redis at {self._shown}: {error}") from error
        version = str(info.get("redis_version", "0"))
        if tuple(int(part) for part in version.split(".")[:2]) < _OLDEST_VERSION:
            raise StoreUnsuitable(f"Redis at {self._shown} is version {version}; 6.2 or newer is needed")
        if info.get("role") == "slave":
            raise StoreUnsuitable(f"Redis at {self._shown} is a read-only replica; connect to its primary")

    def run_script(self, name: str, calls: Sequence[tuple[Sequence[str], Sequence[Any]]]) -> list[Any]:
        """Run ``<name>.lua`` once per (keys, arguments), all in one round trip; results in order.

        A server that has lost the script (restart, failover) is given it again.
        """
        if not calls:
            return []
        with self.errors_translated():
            text, digest = self._script(name)
            results = self._evalsha(digest, calls)
            missing = [i for i, result in enumerate(results) if isinstance(result, redis.exceptions.NoScriptError)]
            if missing:
                self.client.script_load(text)
                for i, result in zip(missing, self._evalsha(digest, [calls[i] for i in missing]), strict=True):
                    results[i] = result
            for result in results:
                if isinstance(result, Exception):
                    raise result
        return results

    def _evalsha(self, digest: str, calls: Sequence[tuple[Sequence[str], Sequence[Any]]]) -> list[Any]:
        pipeline = self.client.pipeline(transaction=False)
        for keys, arguments in calls:
            pipeline.evalsha(digest, len(keys), *keys, *arguments)
        return pipeline.execute(raise_on_error=False)

    def _script(self, name: str) -> tuple[str, str]:
        if name not in self._scripts:
            text = resources.files("recsys.store").joinpath(f"{name}.lua").read_text(encoding="utf-8")
            self._scripts[name] = (text, str(self.client.script_load(text)))
        return self._scripts[name]
