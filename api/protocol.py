"""HTTP/1.1 within budgets of bytes, time and requests, which neither httptools nor uvicorn has.

They hold before anyone has shown a key, so they are as strict with those who have one. The time of a body is not among
them: `api.bodies` bounds it, and what is not asked for of a body is dropped when its request has been answered.
"""

from __future__ import annotations

import asyncio
import math
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api.connections import Connections
from api.problems import Kind, problem_body
from recsys.api_schemas import Problem

CONNECTIONS = "connections"
"""Where the lifespan of the application leaves the worker's `Connections`."""
LONGEST_HEAD_BYTES = 64 * 1024
"""Of an address with its headers. Of trailers, and of what stands before a chunk, once or twice that: it depends on
where the data that come together end."""
_BESIDE_A_HEADER = len(b": \r\n")
MOST_HEADERS = 100
MOST_PIPELINED = 8
"""Requests of a connection that wait behind the one that is being served."""
_LINGER_S, _LINGER_BYTES = 2.0, 1024 * 1024
"""An answer is lost if its connection is closed while its client still sends: so long, and so much, it may go on."""
_ANSWERS = {
    "too_long": b"431 Request Header Fields Too Large",
    "no_http": b"400 Bad Request",
    "too_slow": b"408 Request Timeout",
}


def _closing_answer(status: bytes, body: bytes = b"", *headers: bytes) -> bytes:
    lines = [b"HTTP/1.1 " + status, b"connection: close", b"content-length: %d" % len(body), *headers]
    return b"\r\n".join([*lines, b"", body])


_REFUSAL = _closing_answer(
    b"503 Service Unavailable",
    problem_body(Kind.OVERLOADED, "there are too many connections; try again in a moment"),
    b"retry-after: 1",
    b"content-type: " + Problem.MEDIA_TYPE.encode(),
)


class _OverBudgetError(Exception):
    """Stops the parser."""


class BoundedProtocol(HttpToolsProtocol):
    """Breaks a connection off that exceeds a budget, and counts it."""

    transport: _Transport
    _connections: Connections
    _reason = ""
    _in_body = False
    _lingers = False
    _takes_nothing = False
    _bytes_without_progress = 0
    _due = math.inf
    """When the head that the client is sending must have come."""
    _read_due = math.inf
    """When the client must have read of its answers what is too much to keep; at the end, all of them."""
    _timer: asyncio.TimerHandle | None = None

    # What happens to a connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, unless there are too many."""
        super().connection_made(_Transport(transport, self))
        self._connections = self.app_state[CONNECTIONS]
        if not self._connections.admit(self, self._address):
            transport.write(_REFUSAL)
            transport.close()
            return
        self._give_time()
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        """Give its place to others."""
        if self._timer is not None:
            self._timer.cancel()
        self._connections.leave(self)
        self.pipeline.clear()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what has come."""
        self._unset_keepalive_if_required()
        if self._lingers:
            self._bytes_without_progress += len(data)
            if self._bytes_without_progress > _LINGER_BYTES:
                self.transport.abort()
            return
        for start in range(0, len(data), LONGEST_HEAD_BYTES):
            if self._takes_nothing or self.transport.is_closing():
                return  # what follows the last request, or an answer that ends the connection, is dropped
            self._feed(data[start : start + LONGEST_HEAD_BYTES])  # the whole of it, in most cases: no copy

    def _feed(self, data: bytes) -> None:
        self._bytes_without_progress += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # an offer, of HTTP/2 by some clients: they are answered in HTTP/1.1
        except httptools.HttpParserError:
            self._break_off(self._reason or "no_http")
        else:
            if self._bytes_without_progress > LONGEST_HEAD_BYTES:
                self._break_off("too_long")
            elif self._due == math.inf and self._bytes_without_progress and not self._in_body:
                self._give_time()

    # What the parser finds

    def on_headers_complete(self) -> None:
        """Have the request served, and go on with its body."""
        head_bytes = len(self.url) + sum(len(name) + len(value) + _BESIDE_A_HEADER for name, value in self.headers)
        if len(self.headers) > MOST_HEADERS or head_bytes > LONGEST_HEAD_BYTES:
            self._stop_parsing("too_long")
        if len(self.pipeline) >= MOST_PIPELINED:
            self._stop_parsing("too_many_requests")
        self._in_body = True
        self._bytes_without_progress = 0
        self._due = math.inf
        super().on_headers_complete()
        self.headers = []  # trailers go there and nowhere else: the request is being served with the headers it had

    def on_chunk_header(self) -> None:
        """Go on with a part of the body."""
        self._bytes_without_progress = 0

    def on_body(self, body: bytes) -> None:
        """Keep a part of the body."""
        self._bytes_without_progress = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Wait for the next request."""
        self._in_body = False
        self._bytes_without_progress = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Serve the next request, unless the client is still sending the one that has been answered."""
        super().on_response_complete()
        if self.cycle.response_complete and self.cycle.more_body:
            self.transport.close()

    # Budgets of time

    def pause_writing(self) -> None:
        """Give the client time to read."""
        self._give_time_to_read()
        super().pause_writing()

    def resume_writing(self) -> None:
        """Go on with what is to be sent."""
        if not self.transport.is_closing():
            self._read_due = math.inf
        super().resume_writing()

    def ends(self) -> None:
        """Take nothing more; give the client time to read what it has not read yet."""
        self._due = math.inf
        self._give_time_to_read()

    def _give_time(self) -> None:
        """Give the client time for a head."""
        self._due = self.loop.time() + self._connections.client_timeout_s

    def _give_time_to_read(self) -> None:
        self._read_due = min(self._read_due, self.loop.time() + self._connections.client_timeout_s)

    def _look(self) -> None:
        """End what is late; look again when the next time is up, or in a while."""
        now = self.loop.time()
        if now >= self._read_due:
            self._abort("not_read")
            return
        if now >= self._due:
            self._break_off("too_slow")
        next_look = min(self._due, self._read_due, now + self._connections.client_timeout_s)
        self._timer = self.loop.call_later(next_look - now, self._look)

    # How a connection ends

    @property
    def waits_for_client(self) -> bool:
        """Whether it is the client's turn: to send a request or its body, or to read an answer."""
        served = self.cycle is not None and not self.cycle.response_complete and not self.cycle.more_body
        return not served or self.flow.write_paused or self.transport.is_closing()

    def give_way(self) -> None:
        """End at once."""
        self.transport.abort()

    def linger(self) -> bool:
        """Whether the client is still sending what is already answered: then let it read the answer, and only then end.

        To close a connection on which something comes tells the client at once, before it has read.
        """
        if not self._in_body or self._lingers:
            return self._lingers
        self._lingers = True
        self._bytes_without_progress = 0
        self.flow.resume_reading()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(_LINGER_S, self.transport.abort)
        return True

    @property
    def _address(self) -> str:
        return self.client[0] if self.client else ""

    def _stop_parsing(self, reason: str) -> None:
        self._reason = reason
        raise _OverBudgetError

    def _break_off(self, reason: str) -> None:
        """Take nothing more, and end the connection when the requests before are answered; tell the client why."""
        self._connections.note_ended(reason, self._address)
        is_answering = self.cycle is not None and not self.cycle.response_complete
        if is_answering and not self._in_body:
            self._takes_nothing = True
            self._due = math.inf
            self.cycle.keep_alive = False
            return
        has_sent = self._in_body or self._bytes_without_progress
        has_begun = self.pipeline or (is_answering and self.cycle.response_started)
        if reason in _ANSWERS and has_sent and not has_begun:
            self.transport.write(_closing_answer(_ANSWERS[reason]))
        self.transport.close_now()

    def _abort(self, reason: str) -> None:
        self._connections.note_ended(reason, self._address)
        self.transport.abort()


class _Transport(asyncio.Transport):
    """A connection's transport: after its end it takes and drops what is written, and it ends after the answer is read.

    uvloop raises instead, which would be a traceback in the log for every client that goes away.
    """

    def __init__(self, own: asyncio.Transport, protocol: BoundedProtocol) -> None:
        super().__init__()
        self._own = own
        self._protocol = protocol
        self._closes = False

    def write(self, data: Any) -> None:
        if not (self._closes or self._own.is_closing()):
            self._own.write(data)

    def is_closing(self) -> bool:
        return self._closes or self._own.is_closing()

    def close(self) -> None:
        if self.is_closing():
            return
        self._closes = True
        if self._protocol.linger():
            self._own.write_eof()
        else:
            self._protocol.ends()
            self._own.close()

    def close_now(self) -> None:
        self._closes = True
        self._protocol.ends()
        self._own.close()

    def abort(self) -> None:
        self._closes = True
        self._own.abort()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._own.get_extra_info(name, default)

    def pause_reading(self) -> None:
        self._own.pause_reading()

    def resume_reading(self) -> None:
        if not self._own.is_closing():
            self._own.resume_reading()
