"""Sockets that listen: one of its own for each worker."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class OwnSocket:
    """Arrives in a worker as a socket of that worker's own, to which the system gives its share of the connections.

    From a socket that workers share, the first that wakes up may take all that have come.
    """

    host: str
    port: int

    def __reduce__(self) -> tuple[Callable[..., socket.socket], tuple[str, int, bool]]:
        return bound_socket, (self.host, self.port, True)


def bound_socket(host: str, port: int, shared: bool) -> socket.socket:
    """Return a socket that is bound to an address, which others may be bound to as well if it is ``shared``."""
    family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind((host, port))
    except OSError:
        bound.close()
        raise
    return bound
