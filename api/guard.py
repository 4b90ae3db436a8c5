"""What every request goes through: bounds on how many and how long, metrics, headers."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from http import HTTPStatus
from urllib.parse import parse_qsl, quote

from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.metrics import ApiMetrics
from api.problems import Kind, problem_body
from recsys.api_schemas import Problem

log = logging.getLogger(__name__)
PROBES = frozenset({"/livez", "/readyz", "/metrics"})
"""Answered also when there is too much to do."""
_Header = tuple[bytes, bytes]
_MOST_NAMES, _LONGEST_NAME = 10, 40
_BODY_WITHIN_S = 10.0
"""Between two parts of a body: whoever stops sending holds a place that others need."""
_ALWAYS: Sequence[_Header] = ((b"x-content-type-options", b"nosniff"),)


class Guard:
    """ASGI middleware, the outermost one of ours; no error passes it.

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
        # HEAD is GET; the server leaves the body out. And the path as it was sent: an id may hold a slash, which is %2F
        # there and ends no segment.
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        scope = {**scope, "method": method, "path": scope["raw_path"].decode("latin-1")}
        started = time.perf_counter()
        answer = _Answer(send, scope)
        self._under_way += 1
        try:
            if self._under_way > self._most and scope["path"] not in PROBES:
                await answer.problem(Kind.OVERLOADED, "try again in a moment", (b"retry-after", b"1"))
                return
            declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
            if declared.isdigit() and int(declared) > self._longest:
                await self._too_large(answer)
                return
            await self._app(scope, self._bounded(receive), answer.send)
        except Exception as error:
            if answer.status:
                raise  # it has begun: all that is left is to break it off
            log.error("unexpected error", exc_info=error)
            await answer.problem(Kind.INTERNAL_ERROR, "the log says more")
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
            try:
                async with asyncio.timeout(_BODY_WITHIN_S):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(HTTPStatus.REQUEST_TIMEOUT) from None
            if message["type"] == "http.request":
                received += len(message.get("body", b""))
                if received > self._longest:  # whatever its headers say
                    raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            return message

        return bounded


def _unknown_parameters(scope: Scope) -> list[str]:
    """Return the names of query parameters that the route does not have, as they may stand in a header."""
    route = scope.get("route")
    if not isinstance(route, APIRoute):
        return []
    known = {field.alias for field in route.dependant.query_params}
    given = dict.fromkeys(
        name for name, _ in parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    )
    return [quote(name[:_LONGEST_NAME]) for name in given if name not in known][:_MOST_NAMES]


class _Answer:
    """An answer on its way."""

    def __init__(self, send: Send, scope: Scope) -> None:
        self._send = send
        self._scope = scope
        self.status = 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"].extend(_ALWAYS)
            if self._scope["query_string"] and (unknown := _unknown_parameters(self._scope)):
                text = f'299 recsys "query parameters that are unknown here, and ignored: {", ".join(unknown)}"'
                message["headers"].append((b"warning", text.encode()))
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
