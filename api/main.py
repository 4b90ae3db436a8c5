"""`python -m api`: the HTTP API, in one or more worker processes."""

from __future__ import annotations

import argparse
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import uvicorn
from prometheus_client.multiprocess import mark_process_dead
from uvicorn.supervisors import Multiprocess

from api.connections import allow_open_files
from api.metrics import SHARED_FOLDER
from api.security import Audit, Keyring
from api.sockets import OwnSocket, bound_socket
from recsys.errors import SettingsError
from recsys.kafka.clients import open_producer, renew_logins
from recsys.logger import logger
from recsys.redis import open_store
from recsys.runtime.hangup import at_hangup
from recsys.runtime.service import on_termination, run_service
from recsys.settings import Settings

log = logger("api")
_STOP_WITHIN_S = 7
"""For requests under way; the rest of a stop takes a second or two, and supervisors often wait for 10 s."""
_START_WITHIN_S = 60
"""A new worker, after SIGHUP; else the one that it was to replace goes on."""
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def main() -> int:
    """Serve until terminated; return the exit code."""
    argparse.ArgumentParser(
        prog="python -m api", description="Serves the HTTP API; see recsys config for its settings."
    ).parse_args()
    return run_service(_serve, log, check=_check)


def _check(settings: Settings) -> None:
    """Raise what is wrong, before there are workers that would each say so."""
    Keyring.of(settings.api)
    Audit(settings.api.audit_file)
    allow_open_files(settings.api)  # workers inherit it
    _ensure_port_is_free(settings)
    with open_store(settings):
        pass  # refuses options in the URL of Redis that it does not know; connects nowhere
    if settings.api.purchases:
        open_producer(settings.kafka)  # refuses wrong properties; each worker has its own


def _serve(settings: Settings) -> int:
    _say_who_may(settings, len(Keyring.of(settings.api)))
    at_hangup(partial(renew_logins, settings.kafka))  # with several workers uvicorn replaces them one by one instead
    on_termination(lambda _: None)  # uvicorn stops at a signal, and then lets whoever was there before know
    with tempfile.TemporaryDirectory(prefix="recsys-api-") as folder:
        if settings.api.workers > 1:
            os.environ[SHARED_FOLDER] = folder
        try:
            _run_uvicorn(settings)
        except SystemExit as end:
            return int(end.code or 0)
    log.info("stopped", "stopped")
    return 0


class _Workers(Multiprocess):
    """Workers that SIGHUP replaces one by one: each new one reads all settings again."""

    def keep_subprocess_alive(self) -> None:
        """Start another worker for each that has ended."""
        with self._metrics_of_ended_forgotten():
            super().keep_subprocess_alive()

    def restart_all(self) -> None:
        """Replace them, giving each new one time to import and open what it needs."""
        usual_s = self.config.timeout_worker_healthcheck
        self.config.timeout_worker_healthcheck = _START_WITHIN_S
        try:
            with self._metrics_of_ended_forgotten():
                super().restart_all()
        finally:
            self.config.timeout_worker_healthcheck = usual_s

    @contextmanager
    def _metrics_of_ended_forgotten(self) -> Iterator[None]:
        """Take back what was true of a worker only while it lived, such as the connections that it held."""
        before = {process.pid for process in self.processes}
        yield
        for pid in before - {process.pid for process in self.processes}:
            mark_process_dead(pid)  # type: ignore[no-untyped-call]


def _run_uvicorn(settings: Settings) -> None:
    """Serve in this process, or have workers serve, until terminated."""
    config = uvicorn.Config(
        "api.app:app_of_this_process",
        factory=True,
        host=settings.api.host,
        port=settings.api.port,
        workers=settings.api.workers,
        loop="uvloop",
        http="api.protocol:BoundedProtocol",
        ws="none",  # nothing here speaks it, and it would have no budgets
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # where requests come from is looked at; a header could be made up
        timeout_graceful_shutdown=_STOP_WITHIN_S,
    )
    if settings.api.workers == 1:
        uvicorn.Server(config).run()
    elif not hasattr(socket, "SO_REUSEPORT"):
        _Workers(config, sockets=[config.bind_socket()]).run()
    else:
        # Held, so that it stays ours; who does not listen gets no connections.
        with bound_socket(settings.api.host, settings.api.port, True) as held:
            port = held.getsockname()[1]
            log.info(
                "listening",
                "listening on http://{host}:{port}, in {workers} workers",
                host=settings.api.host,
                port=port,
                workers=settings.api.workers,
            )
            _Workers(config, sockets=[OwnSocket(settings.api.host, port)]).run()  # type: ignore[list-item]


def _ensure_port_is_free(settings: Settings) -> None:
    host, port = settings.api.host, settings.api.port
    try:
        bound_socket(host, port, False).close()
    except OSError as error:
        raise SettingsError(f"RECSYS_API__PORT: cannot listen on {host}:{port}: {error.strerror}") from None


def _say_who_may(settings: Settings, keys: int) -> None:
    if keys:
        log.info("keys_valid", "{keys} keys are valid", keys=keys)
        return
    log.warning(
        "no_keys", "there are no keys (RECSYS_API__KEYS): only programs on this machine can call the API, and only read"
    )
    if settings.api.host not in _LOOPBACK:
        log.warning("only_loopback", "so other machines get no answer on {host}", host=settings.api.host)
