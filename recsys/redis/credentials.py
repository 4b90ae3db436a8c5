"""Who logs in to Redis, and where: user and password are looked up for each new connection."""

from __future__ import annotations

from urllib.parse import unquote

from redis.connection import parse_url
from redis.credentials import CredentialProvider

from recsys.settings import RedisSettings, masked_url
from recsys.settings.masking import UrlParts
from recsys.settings.regular_files import what_is_no_file

__all__ = ["SentinelCredentials", "ServerCredentials", "bare_url", "shown_address"]
_OF_USERS = ("username", "password")
_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")


class ServerCredentials(CredentialProvider):
    """User and password of the URL; where a file holds it, as the file is now."""

    def __init__(self, settings: RedisSettings) -> None:
        self._settings = settings

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """Return (user, password), (password,), or nothing: then nobody logs in."""
        options = parse_url(self._settings.reread().url.get_secret_value())
        return _as_redis_takes_them(options.get("username"), options.get("password"))

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        """Return the same."""
        return self.get_credentials()


class SentinelCredentials(CredentialProvider):
    """User and password for the sentinels, which are not those of the servers that they watch."""

    def __init__(self, settings: RedisSettings) -> None:
        self._settings = settings

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """Return (user, password), (password,), or nothing: then nobody logs in."""
        settings = self._settings.reread()
        return _as_redis_takes_them(settings.sentinel_user, settings.sentinel_password.get_secret_value())

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        """Return the same."""
        return self.get_credentials()


def _as_redis_takes_them(user: str | None, password: str | None) -> tuple[str] | tuple[str, str]:
    if user:
        return user, password or ""
    return (password,) if password else ()  # type: ignore[return-value]


def bare_url(settings: RedisSettings) -> str:
    """Return the URL without user and password.

    Raises
    ------
    ValueError
        When an option names what should be a file of TLS, and is none: OpenSSL would wait for what comes out of a pipe.
    """
    parts = UrlParts.of(settings.url.get_secret_value())
    options = [option for option in parts.options if option.partition("=")[0] not in _OF_USERS]
    for name, _, value in (option.partition("=") for option in options):
        if name in _FILES and (problem := what_is_no_file(path := unquote(value))):
            raise ValueError(f"{name} names {path}: {problem}")
    path = parts.rest.partition("?")[0]
    return f"{parts.scheme}://{parts.host}{path}{'?' if options else ''}{'&'.join(options)}"


def shown_address(settings: RedisSettings) -> str:
    """Return where Redis is, for people."""
    if settings.sentinel:
        return f"{settings.sentinel_master} of the sentinels {settings.sentinel}"
    return masked_url(settings.url.get_secret_value())
