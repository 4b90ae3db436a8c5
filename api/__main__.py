"""`python -m api`: the HTTP API, in one or more worker processes."""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import socket
import sys
import tempfile

import uvicorn

from api.metrics import SHARED_FOLDER
from api.security import Audit, Keyring
from recsys.errors import RecsysError, SettingsError
from recsys.kafka import open_producer
from recsys.settings import Settings, load_settings
from recsys.telemetry import configure_logging

log = logging.getLogger("api")
_STOP_WITHIN_S = 20
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def main() -> int:
    """Serve until terminated; return the exit code."""
    try:
        settings = load_settings()
        configure_logging(settings.log.level)
        keys = len(Keyring.of(settings.api))
        Audit(settings.api.audit_file)
        _ensure_port_is_free(settings)
        if settings.api.purchases:
            open_producer(settings.kafka)  # refuses wrong properties; each worker has its own
    except RecsysError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    _say_who_may(settings, keys)
    for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn stops at one, and then lets whoever was there before know
        signal.signal(number, lambda *_: None)
    with tempfile.TemporaryDirectory(prefix="recsys-api-") as folder:
        if settings.api.workers > 1:
            os.environ[SHARED_FOLDER] = folder
        try:
            uvicorn.run(
                "api.app:app_of_this_process",
                factory=True,
                host=settings.api.host,
                port=settings.api.port,
                workers=settings.api.workers,
                loop="uvloop",
                http="api.protocol:BoundedProtocol",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,  # where requests come from is looked at; a header could be made up
                timeout_graceful_shutdown=_STOP_WITHIN_S,
            )
        except SystemExit as end:
            return int(end.code or 0)
    log.info("stopped")
    return 0


def _ensure_port_is_free(settings: Settings) -> None:
    host, port = settings.api.host, settings.api.port
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        raise SettingsError(f"RECSYS_API__PORT: cannot listen on {host}:{port}: {error.strerror}") from None


def _say_who_may(settings: Settings, keys: int) -> None:
    if keys:
        log.info("%d keys are valid", keys)
        return
    log.warning("there are no keys (RECSYS_API__KEYS): only programs on this machine may ask, and only read")
    if settings.api.host not in _LOOPBACK:
        log.warning("so listening on %s answers nobody else", settings.api.host)


if __name__ == "__main__":
    faulthandler.enable()  # should a library crash, the log says where
    sys.exit(main())
