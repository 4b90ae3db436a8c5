"""The port on which a service shows its metrics to Prometheus."""

from __future__ import annotations

import logging
from typing import Literal

from prometheus_client import CollectorRegistry, start_http_server

from recsys.errors import SettingsError

log = logging.getLogger(__name__)


def serve_metrics(port: int | Literal["any"], registry: CollectorRegistry, *, variable: str) -> None:
    """Serve metrics in the background until this process ends, and log where.

    Parameters
    ----------
    port : int or "any"
        0 serves nothing; with ``any`` the system chooses a port that is free.
    registry : CollectorRegistry
    variable : str
        The setting that named the port.

    Raises
    ------
    SettingsError
        When another program listens on the port.
    """
    if port == 0:
        return
    try:
        server, _ = start_http_server(0 if port == "any" else port, registry=registry)
    except OSError as error:
        raise SettingsError(f"{variable}: cannot listen on port {port}: {error.strerror}") from error
    log.info("metrics at http://127.0.0.1:%d/metrics", server.server_port)
