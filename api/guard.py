"""What every request goes through: bounds on how many and how long, metrics, headers."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from http import HTTPStatus
from urllib.parse import parse_qsl, quote

from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.bodies import Bodies
from api.metrics import ApiMetrics
from api.problems import Kind, problem_body
from recsys.api_schemas import Problem
from recsys.logger import logger

log = logger(__name__)
PROBES = frozenset({"/livez", "/readyz", "/metrics"})
"""Answered also when there is too much to do."""
_Header = tuple[bytes, bytes]
_MOST_NAMES, _LONGEST_NAME = 10, 40
_ALIVE = "/livez"
_STUCK_AFTER_S = 60.0
"""Longer than any request takes that does not hang."""
_LONGEST_LENGTH_DIGITS = 18
_ALWAYS: Sequence[_Header] = ((b"x-content-type-options", b"nosniff"),)


class Guard:
    """ASGI middleware, the outermost one of ours; no error passes it.

    Parameters
    ----------
    app : ASGIApp
    metrics : ApiMetrics
    bodies : Bodies
        Bounds what clients send.
    max_concurrency : int
        Requests at work; more are answered 503 at once, for those that wait only make it worse.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        metrics: ApiMetrics,
        bodies: Bodies,
        max_concurrency: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._bodies = bodies
        self._places = _Places(max_concurrency, clock)

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
        try:
            if scope["path"] in PROBES:
                if scope["path"] == _ALIVE and self._places.are_stuck():
                    await answer.problem(Kind.OVERLOADED, _STUCK, (b"retry-after", b"1"))
                    return
            elif not answer.takes_place(self._places):
                await answer.problem(Kind.OVERLOADED, "try again in a moment", (b"retry-after", b"1"))
                return
            if _declared_length(scope) > self._bodies.longest:
                await self._too_large(answer)
                return
            await self._app(scope, self._with_whole_body(receive, answer), answer.send)
        except Exception as error:
            if answer.status:
                raise  # it has begun: all that is left is to break it off
            log.error("unexpected_error", "unexpected error", exc_info=error)
            await answer.problem(Kind.INTERNAL_ERROR, "the log says more")
        finally:
            answer.leave_place()
            route = scope.get("route")
            self._metrics.note_request(
                getattr(route, "path", "none"), scope["method"], answer.status, time.perf_counter() - started
            )

    async def _too_large(self, answer: _Answer) -> None:
        await answer.problem(
            Kind.BODY_TOO_LARGE,
            f"at most {self._bodies.longest:,} bytes are taken; send fewer at a time",
            (b"connection", b"close"),
        )

    def _with_whole_body(self, receive: Receive, answer: _Answer) -> Receive:
        """Have the application receive the body in one piece, and the request hold no place while it comes."""
        is_complete = False

        async def received() -> Message:
            nonlocal is_complete
            if is_complete:
                return await receive()  # tells when the client has gone; an answer may take its time
            had_place = answer.leave_place()
            message = await self._bodies.whole(receive, answer.address)
            is_complete = True
            if had_place and not answer.takes_place(self._places):
                raise HTTPException(HTTPStatus.SERVICE_UNAVAILABLE)
            return message

        return received


_STUCK = "all places are taken, and none has become free for over a minute; restart this process"


class _Places:
    """Places for requests at work: from when they are here with their bodies until their answer begins.

    A body that comes, an answer that its client does not read, and later a stream that lasts, hold none: `api.bodies`
    and `api.connections` bound them.
    """

    def __init__(self, most: int, clock: Callable[[], float]) -> None:
        self._most = most
        self._clock = clock
        self._taken = 0
        self._full_since = clock()

    def take(self) -> bool:
        """Take a place; return whether there was one."""
        if self._taken >= self._most:
            return False
        self._taken += 1
        if self._taken == self._most:
            self._full_since = self._clock()
        return True

    def leave(self) -> None:
        """Give a place back."""
        self._taken -= 1

    def are_stuck(self) -> bool:
        """Whether this process can no longer serve: nothing becomes free."""
        return self._taken >= self._most and self._clock() - self._full_since >= _STUCK_AFTER_S


def _declared_length(scope: Scope) -> int:
    """Return how long a body says it is; 0 where it does not say, or what it says is no number."""
    declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
    return int(declared[:_LONGEST_LENGTH_DIGITS]) if declared.isdigit() else 0


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
        self._places: _Places | None = None
        self.status = 0

    @property
    def address(self) -> str:
        """Where it goes; empty where that is no address."""
        client = self._scope.get("client")
        return client[0] if client else ""

    def takes_place(self, places: _Places) -> bool:
        """Take a place until the answer begins; return whether there was one."""
        if not places.take():
            return False
        self._places = places
        return True

    def leave_place(self) -> bool:
        """Give the place back; return whether there was one."""
        if self._places is None:
            return False
        self._places.leave()
        self._places = None
        return True

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.leave_place()
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
