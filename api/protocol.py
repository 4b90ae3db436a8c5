"""HTTP/1.1 with a bound on what comes before the body, which neither httptools nor uvicorn has."""

from __future__ import annotations

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LONGEST_HEAD_BYTES = 64 * 1024
_ANSWER = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class BoundedProtocol(HttpToolsProtocol):
    """Breaks a connection off whose next request has too long a head: it would be held in memory."""

    _head_bytes = 0
    _in_head = True

    def data_received(self, data: bytes) -> None:
        """Take what has come."""
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > LONGEST_HEAD_BYTES and not self.transport.is_closing():
            self.transport.write(_ANSWER)
            self.transport.close()

    def on_headers_complete(self) -> None:
        """Go on with the body."""
        self._in_head, self._head_bytes = False, 0
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Wait for the next request."""
        self._in_head = True
        super().on_message_complete()
