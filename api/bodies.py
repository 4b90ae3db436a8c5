"""The bodies of requests while they come: how many, from where, how many bytes and for how long.

A body that comes holds no place of the requests at work (`api.guard`), so that slow clients keep nobody from being
served. This is the only clock of a body; that of heads, and of answers that are to be read, is in `api.protocol`.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.types import Message, Receive

from api.connections import site_of
from recsys.settings import ApiSettings

_MOST_BYTES = 128 * 2**20
"""Of all bodies that come to a worker, unless a single one may have more."""


class Bodies:
    """The bodies that come to one worker.

    Where there are too many, the oldest one of the address that has most of them gives way: whoever sends many slow
    ones loses their own.

    Parameters
    ----------
    most, most_per_address : int
        In all, and from one address (of an IPv6 address, its /64 counts).
    most_bytes : int
        Of all of them together.
    longest : int
        Bytes of one; a longer one is answered 413, and no more than that of it is ever held.
    within_s : float
        Seconds from when it is asked for to its end; a later one is answered 408.
    note_ended : callable
        Told why a body was not waited for, and its address.
    """

    def __init__(
        self,
        *,
        most: int,
        most_per_address: int,
        most_bytes: int,
        longest: int,
        within_s: float,
        note_ended: Callable[[str, str], None],
    ) -> None:
        self.longest = longest
        self._most = most
        self._most_per_address = most_per_address
        self._most_bytes = most_bytes
        self._within_s = within_s
        self._note_ended = note_ended
        self._of_site: dict[str, dict[_Body, None]] = {}
        self._number = 0
        self._bytes = 0

    @classmethod
    def of(cls, settings: ApiSettings, note_ended: Callable[[str, str], None]) -> Bodies:
        """Take as many bodies as requests can be at work; one address has the same share of them as of connections."""
        share = min(1.0, settings.max_connections_per_address / settings.max_connections)
        return cls(
            most=settings.max_concurrency,
            most_per_address=math.ceil(settings.max_concurrency * share),
            most_bytes=max(_MOST_BYTES, settings.max_body_bytes),
            longest=settings.max_body_bytes,
            within_s=settings.client_timeout_s,
            note_ended=note_ended,
        )

    @property
    def held(self) -> tuple[int, int]:
        """How many bodies are coming, and how many bytes of them are here."""
        return self._number, self._bytes

    async def whole(self, receive: Receive, address: str) -> Message:
        """Return the whole body of a request in one message, or the one that says that its client has gone.

        Raises
        ------
        HTTPException
            408 if it does not come in time, 413 if it is too long, 503 if it had to give way.
        """
        body = _Body(site_of(address))
        try:
            async with asyncio.timeout(self._within_s) as body.timeout:
                self._enter(body)
                return await self._received(receive, body)
        except TimeoutError:
            if body.gives_way:
                raise _refused(HTTPStatus.SERVICE_UNAVAILABLE) from None
            self._note_ended("too_slow", address)
            raise _refused(HTTPStatus.REQUEST_TIMEOUT) from None
        finally:
            self._leave(body)

    async def _received(self, receive: Receive, body: _Body) -> Message:
        while True:
            message = await receive()
            if body.gives_way:  # it has left already, and what it held has gone
                raise _refused(HTTPStatus.SERVICE_UNAVAILABLE)
            if message["type"] != "http.request":
                return message
            part = message.get("body", b"")
            if len(body.content) + len(part) > self.longest:  # whatever its headers say
                raise _refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            if not message.get("more_body", False):
                return {**message, "body": bytes(body.content + part)} if body.content else message
            self._add(body, part)

    def _enter(self, body: _Body) -> None:
        of_site = self._of_site.get(body.site, {})
        if len(of_site) >= self._most_per_address:
            self._have_give_way(next(iter(of_site)))
        if self._number >= self._most:
            self._have_one_give_way()
        self._of_site.setdefault(body.site, {})[body] = None
        self._number += 1

    def _add(self, body: _Body, part: bytes) -> None:
        body.content += part
        self._bytes += len(part)
        while self._bytes > self._most_bytes:
            self._have_one_give_way()

    def _have_one_give_way(self) -> None:
        most = max(self._of_site.values(), key=lambda of_site: len(of_site))
        self._have_give_way(next(iter(most)))

    def _have_give_way(self, body: _Body) -> None:
        """End a body; what it held counts as free at once."""
        self._note_ended("body_gave_way", body.site)
        self._leave(body)
        body.gives_way = True
        body.content.clear()
        if not body.timeout.expired():
            body.timeout.reschedule(asyncio.get_running_loop().time())

    def _leave(self, body: _Body) -> None:
        of_site = self._of_site.get(body.site, {})
        if body not in of_site:
            return
        del of_site[body]
        if not of_site:
            del self._of_site[body.site]
        self._number -= 1
        self._bytes -= len(body.content)


class _Body:
    """A body that comes."""

    __slots__ = ("content", "gives_way", "site", "timeout")

    timeout: asyncio.Timeout

    def __init__(self, site: str) -> None:
        self.site = site
        self.content = bytearray()
        self.gives_way = False


def _refused(status: HTTPStatus) -> HTTPException:
    """End the connection with the answer: the rest of the body is not wanted."""
    return HTTPException(status, headers={"Connection": "close"})
