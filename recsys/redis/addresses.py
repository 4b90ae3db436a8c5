"""Where Redis is, and which certificates are trusted there: for looks at the way to it, and for redis-cli."""

from __future__ import annotations

import ssl
from typing import Any

from redis.connection import parse_url

from recsys.redis.credentials import bare_url
from recsys.settings import RedisSettings

_PORT = 6379
_FILES_OF_CLI = {
    "ssl_ca_certs": "--cacert",
    "ssl_ca_path": "--cacertdir",
    "ssl_certfile": "--cert",
    "ssl_keyfile": "--key",
}


def redis_addresses(settings: RedisSettings) -> list[tuple[str, int]]:
    """Return host and port of the server or the sentinels; none for a server behind a Unix socket.

    Raises
    ------
    ValueError
        When the URL cannot be one.
    """
    if settings.sentinel:
        return settings.sentinels()
    options = parse_url(bare_url(settings))
    return [(str(options["host"]), int(options.get("port", _PORT)))] if "host" in options else []


def redis_tls_context(settings: RedisSettings) -> ssl.SSLContext:
    """Return what decides whether the certificate of Redis is trusted, by the options of the URL.

    Raises
    ------
    OSError, ValueError
        When a file that the URL names cannot be read.
    """
    options = parse_url(bare_url(settings))
    context = ssl.create_default_context(
        cafile=options.get("ssl_ca_certs"), capath=options.get("ssl_ca_path"), cadata=options.get("ssl_ca_data")
    )
    context.check_hostname = str(options.get("ssl_check_hostname", True)).lower() not in ("false", "0", "no")
    if str(options.get("ssl_cert_reqs", "required")) == "none":
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if options.get("ssl_certfile"):
        context.load_cert_chain(options["ssl_certfile"], options.get("ssl_keyfile"), options.get("ssl_password"))
    return context


def redis_cli_options(settings: RedisSettings, connection: Any) -> tuple[str, ...]:
    """Return what leads redis-cli to the server of a connection; user and password are left out.

    Raises
    ------
    ValueError
        When the URL cannot be one.
    """
    path = getattr(connection, "path", None)
    if path:
        return "-s", str(path)
    where = "-h", str(connection.host), "-p", str(connection.port)
    if not settings.url.get_secret_value().startswith("rediss:"):
        return where
    options = parse_url(bare_url(settings))
    files = [word for name, flag in _FILES_OF_CLI.items() if options.get(name) for word in (flag, str(options[name]))]
    is_trusting = str(options.get("ssl_cert_reqs", "required")) == "none"
    return (*where, "--tls", *files, *(["--insecure"] if is_trusting else []))
