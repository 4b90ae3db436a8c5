"""The protocol in a real server, with an application that answers when it is told to."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import uvicorn
from prometheus_client import CollectorRegistry, Counter, Gauge
from starlette.types import Receive, Scope, Send

from api.connections import Connections
from api.protocol import CONNECTIONS, MOST_PIPELINED, BoundedProtocol
from tests.services import wait_until

_REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
_LARGE = b"x" * 10_000_000


class Served:
    """A server in a thread of its own."""

    def __init__(self, *, most: int, client_timeout_s: float) -> None:
        registry = CollectorRegistry()
        self.held = Gauge("held", "", registry=registry)
        self.ended = Counter("ended", "", ["reason"], registry=registry)
        self.under_way = 0
        self._may_answer = threading.Event()
        self._connections = Connections(most, most, client_timeout_s, self.held, self.ended)
        config = uvicorn.Config(
            self._app,
            interface="asgi3",
            lifespan="on",
            loop="uvloop",
            http=BoundedProtocol,
            ws="none",
            log_config=None,
            timeout_graceful_shutdown=1,
        )
        self.server = uvicorn.Server(config)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            scope["state"][CONNECTIONS] = self._connections
            for step in ("startup", "shutdown"):
                assert (await receive())["type"] == f"lifespan.{step}"
                await send({"type": f"lifespan.{step}.complete"})
            return
        self.under_way += 1
        while not self._may_answer.is_set():
            await asyncio.sleep(0.01)
        length = str(len(_LARGE)).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
        await send({"type": "http.response.body", "body": _LARGE})
        self.under_way -= 1

    def answer(self) -> None:
        self._may_answer.set()

    def count(self, reason: str) -> float:
        return float(self.ended.labels(reason)._value.get())

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=240)

    @contextmanager
    def running(self) -> Iterator[Served]:
        thread = threading.Thread(target=self.server.run, args=([self._listening],))
        thread.start()
        try:
            wait_until(lambda: self.server.started, "the server has started")
            yield self
        finally:
            self.answer()
            self.server.should_exit = True
            thread.join()


def test_whoever_comes_while_all_connections_are_served_is_told_so() -> None:
    with Served(most=2, client_timeout_s=60).running() as served:
        with served.connect() as first, served.connect() as second:
            for connection in (first, second):
                connection.sendall(_REQUEST)
            wait_until(lambda: served.under_way == 2, "both are served")
            with served.connect() as third:
                answer = b"".join(iter(lambda: third.recv(65_536), b""))
            assert answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\n")
            assert b"retry-after: 1\r\n" in answer
            assert b'"urn:recsys:problem:overloaded"' in answer
            assert served.count("too_many") == 1
            served.answer()
            assert first.recv(12) == b"HTTP/1.1 200"
        wait_until(lambda: served.held._value.get() == 0, "nothing is held")


def head_of(size: int) -> bytes:
    """Return a head of that many bytes in several headers, from its address on."""
    start, end = b"GET /x HTTP/1.1\r\n", b"Connection: close\r\n\r\n"
    counted = size - len(b"/x") - len(b"Connection: close\r\n")
    headers = [b"x: " + b"y" * 995 + b"\r\n"] * (counted // 1000)
    missing = counted - 1000 * len(headers)
    headers[-1] = b"x: " + b"y" * (995 + missing) + b"\r\n"
    return start + b"".join(headers) + end


@pytest.mark.parametrize("before", [b"", _REQUEST], ids=["alone", "behind another request"])
@pytest.mark.parametrize(("size", "status"), [(65_000, b"200"), (65_537, b"431"), (100_000, b"431")])
def test_a_head_has_64_kib_however_its_bytes_come_together(before: bytes, size: int, status: bytes) -> None:
    with Served(most=5, client_timeout_s=60).running() as served, served.connect() as connection:
        served.answer()
        for end in (60_000, len(before) + size):
            sent = before + head_of(size)
            connection.sendall(sent[:end] if end == 60_000 else sent[60_000:])
        answers = b"".join(iter(lambda: connection.recv(65_536), b""))
    statuses = re.findall(rb"HTTP/1.1 (\d+)", answers)
    if before:
        assert statuses.pop(0) == b"200"
    # what is wrong behind a request that is being answered ends the connection without an answer of its own
    assert statuses == [status] or (before and status == b"431" and not statuses)
    assert served.count("too_long") == (status == b"431")


def test_an_answer_that_takes_its_time_is_no_fault_of_its_client() -> None:
    with Served(most=5, client_timeout_s=0.2).running() as served, served.connect() as connection:
        connection.sendall(_REQUEST)
        wait_until(lambda: served.under_way == 1, "it is served")
        with served.connect() as silent:
            assert silent.recv(1) == b""  # so the time of a client is over
        assert served.under_way == 1
        served.answer()
        assert connection.recv(12) == b"HTTP/1.1 200"


def test_an_answer_that_is_not_read_is_given_up_and_so_are_those_behind_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    with Served(most=5, client_timeout_s=0.2).running() as served, served.connect() as connection:
        connection.sendall(_REQUEST * MOST_PIPELINED)
        served.answer()
        wait_until(lambda: served.count("not_read") == 1, "it is given up")
        wait_until(lambda: served.under_way == 0, "nothing of it is under way")
        assert served.held._value.get() == 0
    assert [record.name for record in caplog.records] == ["api.connections"]


def test_a_client_that_goes_away_while_it_is_served_leaves_nothing_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    with Served(most=5, client_timeout_s=60).running() as served:
        with served.connect() as connection:
            connection.sendall(_REQUEST * MOST_PIPELINED)
            wait_until(lambda: served.under_way == 1, "the first is served")
        served.answer()
        wait_until(lambda: served.held._value.get() == 0, "it is gone")
        wait_until(lambda: served.under_way == 0, "nothing of it is under way")
    assert not caplog.records
