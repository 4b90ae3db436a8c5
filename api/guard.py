"""What every request goes through: bounds on how many and how long, metrics, headers."""

from __future__ import annotations

import time
from collections.abc import Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.metrics import ApiMetrics
from api.problems import Kind, problem_body
from recsys.schemas import Problem

PROBES = frozenset({"/livez", "/readyz", "/metrics"})
"""Answered also when there is too much to do."""
_Header = tuple[bytes, bytes]
_ALWAYS: Sequence[_Header] = ((b"x-content-type-options", b"nosniff"),)


class Guard:
    """ASGI middleware, the outermost one.

    Parameters
    ----------
    app : ASGIApp
    metrics : ApiMetrics
    max_concurrency : int
        Requests under way; more are answered 503 at once, for those that wait only make it worse.
    max_body_bytes : int
        A longer body is answered 413; no more than that of it is ever held.
    """

    def __init__(self, app: ASGIApp, *, metrics: ApiMetrics, max_concurrency: int, max_body_bytes: int) -> None:
        self._app = app
        self._metrics = metrics
        self._most = max_concurrency
        self._longest = max_body_bytes
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection's request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # As it was sent: ids may hold a slash, which is %2F there and ends no segment.
        scope["path"] = scope["raw_path"].decode("latin-1")
        started = time.perf_counter()
        answer = _Answer(send)
        self._under_way += 1
        try:
            if self._under_way > self._most and scope["path"] not in PROBES:
                await answer.problem(Kind.OVERLOADED, "try again in a moment", (b"retry-after", b"1"))
                return
            declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
            if declared.isdigit() and int(declared) > self._longest:
                await self._too_large(answer)
                return
            try:
                await self._app(scope, self._bounded(receive), answer.send)
            except _TooLargeError:
                await self._too_large(answer)
        finally:
            self._under_way -= 1
            route = scope.get("route")
            self._metrics.note_request(
                getattr(route, "path", "none"), scope["method"], answer.status, time.perf_counter() - started
            )

    async def _too_large(self, answer: _Answer) -> None:
        await answer.problem(
            Kind.BODY_TOO_LARGE,
            f"at most {self._longest:,} bytes are taken; send fewer at a time",
            (b"connection", b"close"),
        )

    def _bounded(self, receive: Receive) -> Receive:
        received = 0

        async def bounded() -> Message:
            nonlocal received
            message = await receive()
            if message["type"] == "http.request":
                received += len(message.get("body", b""))
                if received > self._longest:
                    raise _TooLargeError
            return message

        return bounded


class _TooLargeError(Exception):
    """The body is longer than allowed, whatever its headers say."""


class _Answer:
    """An answer on its way."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"].extend(_ALWAYS)
        await self._send(message)

    async def problem(self, kind: Kind, detail: str, *headers: _Header) -> None:
        body = problem_body(kind, detail)
        about = [
            (b"content-type", Problem.MEDIA_TYPE.encode()),
            (b"content-length", str(len(body)).encode()),
            (b"cache-control", b"no-store"),
            *headers,
        ]
        await self.send({"type": "http.response.start", "status": kind.status, "headers": about})
        await self._send({"type": "http.response.body", "body": body})
