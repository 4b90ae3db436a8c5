"""The port on which a service shows its metrics to Prometheus."""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Literal

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, generate_latest

from recsys.errors import SettingsError
from recsys.logger import logger

log = logger(__name__)
MOST_CONNECTIONS = 32
WITHIN_S = 5.0
"""For a whole connection, from the first byte to the last."""
_LONGEST_HEAD_BYTES = 16 * 1024


def serve_metrics(
    port: int | Literal["any"], registry: CollectorRegistry, *, variable: str, host: str = "127.0.0.1"
) -> None:
    """Serve metrics in the background, in one thread, until this process ends, and log where.

    Parameters
    ----------
    port : int or "any"
        0 serves nothing; with ``any`` the system chooses a port that is free.
    registry : CollectorRegistry
    variable : str
        The setting that named the port; the one of the host has HOST in its place.
    host : str
        The address to listen on.

    Raises
    ------
    SettingsError
        When the host is no address of this machine, or another program listens on the port.
    """
    if port == 0:
        return
    listening = _listening(host, 0 if port == "any" else port, variable)
    serving = MetricsServer(registry).serve(listening)
    threading.Thread(target=asyncio.run, args=(serving,), name="metrics", daemon=True).start()
    shown = f"[{host}]" if ":" in host else host
    log.info("metrics_served", "metrics at http://{host}:{port}/metrics", host=shown, port=listening.getsockname()[1])


def _listening(host: str, port: int, variable: str) -> socket.socket:
    of_host = f"{variable.removesuffix('PORT')}HOST"
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise SettingsError(f"{of_host}: {host} is no address of this machine: {error}") from None
    try:
        return socket.create_server((str(address[0]), port), family=family)
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL:
            raise SettingsError(f"{of_host}: {host} is no address of this machine") from None
        raise SettingsError(f"{variable}: cannot listen on port {port}: {error.strerror}") from error


@dataclass
class MetricsServer:
    """Answers each connection once, and none for long.

    Where there are too many connections, the oldest one ends: those that only hold a place cannot keep Prometheus out.
    """

    registry: CollectorRegistry
    within_s: float = WITHIN_S
    _open: dict[asyncio.StreamWriter, None] = field(default_factory=dict)

    async def serve(self, listening: socket.socket) -> None:
        """Serve until cancelled."""
        server = await asyncio.start_server(self._answer, sock=listening, limit=_LONGEST_HEAD_BYTES)
        await server.serve_forever()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._open) >= MOST_CONNECTIONS:
            oldest = next(iter(self._open))
            del self._open[oldest]
            oldest.transport.abort()
        self._open[writer] = None
        # Whoever connects may send anything, stop half-way or go away: none of it is worth a line in the log.
        with suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            async with asyncio.timeout(self.within_s):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(self._answer_to(head))
                writer.close()
                await writer.wait_closed()
        self._open.pop(writer, None)
        writer.transport.abort()

    def _answer_to(self, head: bytes) -> bytes:
        """Return the metrics, whatever the path; headers are not looked at."""
        method = head.partition(b" ")[0]
        if method not in (b"GET", b"HEAD"):
            return _message(HTTPStatus.METHOD_NOT_ALLOWED, "text/plain", 8, "Allow: GET, HEAD") + b"use GET\n"
        content = generate_latest(self.registry)
        message = _message(HTTPStatus.OK, CONTENT_TYPE_PLAIN_0_0_4, len(content))
        return message if method == b"HEAD" else message + content


def _message(status: HTTPStatus, media_type: str, length: int, *more: str) -> bytes:
    lines = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        f"Content-Type: {media_type}",
        f"Content-Length: {length}",
        "Connection: close",
        *more,
    ]
    return "\r\n".join([*lines, "", ""]).encode()
