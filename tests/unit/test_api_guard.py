"""The outermost middleware, called as a server calls it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope, Send

from api.guard import Guard
from api.metrics import ApiMetrics
from tests.unit.test_api_bodies import Sent, bodies, until_idle

_START: Message = {"type": "http.response.start", "status": 200, "headers": []}


class Server:
    """Has requests served by a guarded application that waits until it may answer."""

    def __init__(self, **limits: Any) -> None:
        self.now = 0.0
        self.may_begin, self.may_end = asyncio.Event(), asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.guard = Guard(
            self.app, metrics=ApiMetrics(), bodies=bodies(**limits), max_concurrency=2, clock=lambda: self.now
        )

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "POST":
            try:
                await receive()
            except HTTPException as error:  # as `api.problems` answers it
                await send({**_START, "status": error.status_code, "headers": []})
                return
        if scope["path"] == "/livez":
            self.may_begin.set()
        await self.may_begin.wait()
        await send({**_START, "headers": []})
        await self.may_end.wait()
        await send({"type": "http.response.body", "body": b""})

    async def status(self, path: str = "/v1/popular", *headers: tuple[bytes, bytes], body: Sent | None = None) -> int:
        """Return with which status a request is answered, as soon as the answer begins."""
        begun: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                begun.set_result(message["status"])

        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        scope = {
            "type": "http",
            "method": "GET" if body is None else "POST",
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": headers,
            "client": ("192.0.2.1", 1234),
        }
        self._tasks.append(asyncio.create_task(self.guard(scope, receive if body is None else body.receive, send)))
        return await begun


async def until_under_way(server: Server, number: int) -> list[asyncio.Task[int]]:
    asked = [asyncio.create_task(server.status()) for _ in range(number)]
    for _ in range(5):
        await asyncio.sleep(0)
    return asked


def test_a_request_holds_its_place_until_its_answer_begins_and_no_longer() -> None:
    async def tried() -> None:
        server = Server()
        asked = await until_under_way(server, 2)
        assert await server.status() == 503
        server.may_begin.set()
        assert await asyncio.gather(*asked) == [200, 200]
        assert not server.may_end.is_set()  # their clients have not read them yet
        assert await server.status() == 200

    asyncio.run(tried())


def test_a_request_whose_body_comes_holds_no_place_and_takes_one_when_it_is_there() -> None:
    async def tried() -> None:
        server = Server(most_per_address=6)
        slow = [Sent() for _ in range(5)]
        posted = [asyncio.create_task(server.status(body=body)) for body in slow]
        await until_idle()
        for body in slow:
            body.send(b"{", more=True)
        await until_under_way(server, 1)
        server.may_begin.set()
        assert await server.status() == 200  # five bodies come, and two places are free
        server.may_begin.clear()
        for body in slow[:2]:
            body.send(b"}")
        await until_idle()
        assert await server.status() == 503  # now they are at work
        slow[2].send(b"}")
        assert await posted[2] == 503
        server.may_begin.set()
        assert await asyncio.gather(*posted[:2]) == [200, 200]

    asyncio.run(tried())


def test_it_is_not_alive_when_no_place_becomes_free() -> None:
    async def tried() -> None:
        server = Server()
        asked = await until_under_way(server, 2)
        server.now += 59
        server.may_end.set()
        assert [await server.status() for _ in range(3)] == [503] * 3  # refused ones are no sign of life
        server.now += 2
        assert await server.status("/livez") == 503
        server.may_begin.set()
        await asyncio.gather(*asked)
        assert await server.status("/livez") == 200
        assert await server.status() == 200

    asyncio.run(tried())


def test_a_busy_process_is_alive() -> None:
    async def tried() -> None:
        server = Server()
        server.may_end.set()
        for _ in range(5):
            asked = await until_under_way(server, 2)
            server.now += 50
            server.may_begin.set()
            await asyncio.gather(*asked)
            server.may_begin.clear()
        await until_under_way(server, 2)
        server.now += 40
        assert await server.status("/livez") == 200

    asyncio.run(tried())


@pytest.mark.parametrize(
    ("declared", "status"),
    [(b"1024", 200), (b"1025", 413), (b"9" * 5000, 413), (b"-1", 200), (b"\xb2", 200), (b"", 200), (b"1_0", 200)],
)
def test_a_declared_length_is_believed_only_if_it_is_one(declared: bytes, status: int) -> None:
    async def tried() -> int:
        server = Server()
        server.may_begin.set()
        server.may_end.set()
        return await server.status("/v1/popular", (b"content-length", declared))

    assert asyncio.run(tried()) == status
