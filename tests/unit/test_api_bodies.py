"""Bodies that come slowly, called as the guard calls for them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from starlette.exceptions import HTTPException
from starlette.types import Message

from api.bodies import Bodies
from recsys.settings import ApiSettings


class Sent:
    """A body that a client sends part by part, and how it was taken."""

    def __init__(self) -> None:
        self._parts: asyncio.Queue[Message] = asyncio.Queue()

    def send(self, part: bytes, *, more: bool = False) -> None:
        self._parts.put_nowait({"type": "http.request", "body": part, "more_body": more})

    def go_away(self) -> None:
        self._parts.put_nowait({"type": "http.disconnect"})

    async def receive(self) -> Message:
        return await self._parts.get()


ended: Counter[str] = Counter()


def bodies(**limits: Any) -> Bodies:
    """Return a book of bodies with few places in it, which nothing ends by time."""
    ended.clear()
    given = {"most": 6, "most_per_address": 4, "most_bytes": 10_000, "longest": 1024, "within_s": 3600.0, **limits}
    return Bodies(**given, note_ended=lambda reason, _: ended.update([reason]))


async def until_idle() -> None:
    """Let all tasks go on until they wait for something."""
    for _ in range(20):
        await asyncio.sleep(0)


class Clients:
    """Clients whose bodies come, each a task; how they end."""

    def __init__(self, book: Bodies) -> None:
        self.book = book
        self.sent: list[Sent] = []
        self.tasks: list[asyncio.Task[Message]] = []

    async def come(self, *addresses: str, part: bytes = b"x") -> Sequence[int]:
        """Have a client begin from each address; return their numbers."""
        for address in addresses:
            self.sent.append(Sent())
            self.sent[-1].send(part, more=True)
            task = asyncio.create_task(self.book.whole(self.sent[-1].receive, address))
            task.add_done_callback(lambda done: done.cancelled() or done.exception())  # or asyncio says it, whenever
            self.tasks.append(task)
            await until_idle()
        return range(len(self.tasks) - len(addresses), len(self.tasks))

    def statuses(self) -> list[int]:
        """Return with which status each was refused; 0 = its body still comes."""
        return [status_of(task) for task in self.tasks]


def status_of(task: asyncio.Task[Message]) -> int:
    if not task.done():
        return 0
    error = task.exception()
    assert isinstance(error, HTTPException)
    assert error.headers == {"Connection": "close"}
    return error.status_code


def test_a_body_comes_in_one_piece_whatever_its_parts() -> None:
    async def tried() -> None:
        book = bodies()
        for parts in ([b"whole"], [b"", b"wh", b"", b"ole", b""], [b"w", b"h", b"o", b"l", b"e"]):
            body = Sent()
            for number, part in enumerate(parts, start=1):
                body.send(part, more=number < len(parts))
            message = await book.whole(body.receive, "192.0.2.1")
            assert (message["body"], message["more_body"]) == (b"whole", False)
            assert type(message["body"]) is bytes
        assert book.held == (0, 0)

    asyncio.run(tried())


def test_a_body_that_gave_way_is_never_handed_on_without_its_beginning() -> None:
    async def tried() -> None:
        clients = Clients(bodies(most=1, most_per_address=1))
        await clients.come("192.0.2.1", part=b"[1,2,")
        newcomer = Sent()
        task = asyncio.create_task(clients.book.whole(newcomer.receive, "192.0.2.2"))
        clients.sent[0].send(b"3]")  # the end is there before the task of the first one knows that it gave way
        await until_idle()
        assert clients.statuses() == [503]
        newcomer.send(b"[4]")
        assert (await task)["body"] == b"[4]"
        assert clients.book.held == (0, 0)

    asyncio.run(tried())


def test_whoever_sends_many_slow_bodies_loses_their_own() -> None:
    async def tried() -> None:
        clients = Clients(bodies())
        await clients.come("192.0.2.1", "192.0.2.3", *["192.0.2.9"] * 4)
        assert clients.book.held == (6, 6)
        await clients.come("192.0.2.9")  # more than one address may have: its oldest ends
        assert clients.statuses() == [0, 0, 503, 0, 0, 0, 0]
        await clients.come("192.0.2.2")  # more than all may have: the oldest of who has most
        assert clients.statuses() == [0, 0, 503, 503, 0, 0, 0, 0]
        assert clients.book.held == (6, 6)
        assert ended == {"body_gave_way": 2}
        clients.sent[0].send(b"end")
        await until_idle()
        assert clients.tasks[0].result()["body"] == b"xend"

    asyncio.run(tried())


def test_who_has_one_address_of_a_site_has_all_of_them() -> None:
    async def tried() -> None:
        clients = Clients(bodies())
        await clients.come(*[f"2001:db8::{n}" for n in range(1, 6)])
        assert clients.statuses() == [503, 0, 0, 0, 0]

    asyncio.run(tried())


def test_all_bodies_together_have_a_bound_in_bytes() -> None:
    async def tried() -> None:
        clients = Clients(bodies(most_bytes=2_500))
        await clients.come("192.0.2.1", "192.0.2.2", part=b"x" * 1_000)
        assert clients.book.held == (2, 2_000)
        await clients.come("192.0.2.3", part=b"x" * 600)
        assert clients.statuses() == [503, 0, 0]
        assert clients.book.held == (2, 1_600)
        for body in clients.sent[1:]:
            body.send(b"")
        await until_idle()
        assert [len(task.result()["body"]) for task in clients.tasks[1:]] == [1_000, 600]
        assert clients.book.held == (0, 0)

    asyncio.run(tried())


def test_a_body_is_refused_when_it_is_longer_than_it_may_be() -> None:
    async def tried() -> None:
        clients = Clients(bodies())
        await clients.come("192.0.2.1", "192.0.2.2", part=b"x" * 1_024)
        clients.sent[0].send(b"x", more=True)
        clients.sent[1].send(b"")
        await until_idle()
        assert status_of(clients.tasks[0]) == 413
        assert len(clients.tasks[1].result()["body"]) == 1_024
        assert clients.book.held == (0, 0)

    asyncio.run(tried())


def test_a_body_has_a_time_in_all_however_it_comes() -> None:
    async def tried() -> None:
        book = bodies(within_s=0.05)
        body = Sent()

        async def drip() -> None:
            while True:
                body.send(b" ", more=True)
                await asyncio.sleep(0.01)

        dripping = asyncio.create_task(drip())
        with pytest.raises(HTTPException) as late:
            await book.whole(body.receive, "192.0.2.1")
        dripping.cancel()
        assert late.value.status_code == 408
        assert ended == {"too_slow": 1}
        assert book.held == (0, 0)

    asyncio.run(tried())


def test_a_client_that_goes_away_leaves_nothing() -> None:
    async def tried() -> None:
        clients = Clients(bodies())
        await clients.come("192.0.2.1")
        clients.sent[0].go_away()
        await until_idle()
        assert clients.tasks[0].result()["type"] == "http.disconnect"
        await clients.come("192.0.2.1")
        clients.tasks[1].cancel()
        await until_idle()
        assert clients.book.held == (0, 0)

    asyncio.run(tried())


def test_the_budgets_follow_from_the_settings() -> None:
    async def most_held(settings: ApiSettings, *addresses: str) -> int:
        clients = Clients(Bodies.of(settings, lambda *_: None))
        await clients.come(*addresses)
        return clients.book.held[0]

    usual = ApiSettings(max_concurrency=10, max_connections=800, max_connections_per_address=400)
    behind_a_proxy = ApiSettings(max_concurrency=10, max_connections=800, max_connections_per_address=800)
    assert asyncio.run(most_held(usual, *["192.0.2.1"] * 30)) == 5
    assert asyncio.run(most_held(usual, *["192.0.2.1", "192.0.2.2", "192.0.2.3"] * 10)) == 10
    assert asyncio.run(most_held(behind_a_proxy, *["192.0.2.1"] * 30)) == 10
