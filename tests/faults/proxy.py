"""A TCP proxy in front of a server: it can lead elsewhere, as a service's address does, or lose replies."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress


class TcpProxy:
    """Listens on a port of its own and passes bytes on to ``target``, which may be changed."""

    def __init__(self, target: int) -> None:
        self.target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._lose = b""
        self.lost = threading.Event()
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()

    def lead_to(self, target: int) -> None:
        """Break all connections; new ones go to another port."""
        self.target = target
        self.break_all()

    def lose_reply_to(self, command: bytes) -> None:
        """Break the connection on which these bytes come next, after the server has answered, keeping the answer."""
        self.lost.clear()
        self._lose = command

    def break_all(self) -> None:
        """Break all connections."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            _break(*pair)

    def close(self) -> None:
        """Stop listening."""
        self._listener.close()
        self.break_all()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                client.close()
                continue
            with self._lock:
                self._pairs.append((client, server))
            doomed = threading.Event()
            threading.Thread(target=self._requests, args=(client, server, doomed), daemon=True).start()
            threading.Thread(target=self._replies, args=(client, server, doomed), daemon=True).start()

    def _requests(self, client: socket.socket, server: socket.socket, doomed: threading.Event) -> None:
        with suppress(OSError):
            while data := client.recv(1 << 16):
                if self._lose and self._lose in data:
                    self._lose = b""
                    doomed.set()
                server.sendall(data)
        _break(client, server)

    def _replies(self, client: socket.socket, server: socket.socket, doomed: threading.Event) -> None:
        with suppress(OSError):
            while data := server.recv(1 << 16):
                if doomed.is_set():  # the command has been carried out, and nobody will know
                    self.lost.set()
                    break
                client.sendall(data)
        _break(client, server)


def _break(*sockets: socket.socket) -> None:
    for one in sockets:
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()
