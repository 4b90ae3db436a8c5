"""The client against a small HTTP server that answers as it is told."""

from __future__ import annotations

import asyncio
import inspect
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from recsys.client import AsyncClient, Client
from recsys.errors import ApiError, ApiUnavailable
from tests.services import kept_port

POPULAR = {"model": "m", "generated_at": "2026-11-22T10:15:02.113Z", "items": [{"item_id": "a", "score": 1.5}]}
PROBLEM = {"type": "urn:recsys:problem:overloaded", "title": "Too many", "status": 503, "detail": "try again"}


@dataclass
class Server:
    """Answers with (status, body, headers), one after the other, the last one over and over."""

    url: str = ""
    answers: list[tuple[int, Any, dict[str, str]]] = field(default_factory=list)
    asked: list[tuple[str, str, dict[str, str], Any]] = field(default_factory=list)


@pytest.fixture
def server() -> Iterator[Server]:
    told = Server()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            told.asked.append((self.command, self.path, headers, json.loads(body) if body else None))
            status, content, more = told.answers[0]
            if len(told.answers) > 1:
                told.answers.pop(0)
            text = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(text)), **more}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PUT = do_DELETE = answer

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    told.url = f"http://127.0.0.1:{http.server_address[1]}"
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    yield told
    http.shutdown()
    thread.join()
    http.server_close()


def test_both_clients_have_the_same_methods_with_the_same_arguments() -> None:
    def methods(kind: type) -> dict[str, inspect.Signature]:
        own = {name: value for name, value in vars(kind).items() if not name.startswith("_") and callable(value)}
        return {name: inspect.signature(value) for name, value in own.items() if hasattr(value, "__wrapped__")}

    assert methods(Client) == methods(AsyncClient)
    assert len(methods(Client)) == 16
    assert all(getattr(Client, name).__doc__ for name in methods(Client))


def test_a_request_is_sent_as_the_api_wants_it(server: Server) -> None:
    server.answers = [(200, POPULAR, {})]
    with Client(server.url + "/", key="secret") as client:
        assert client.popular(3, category="Tea & more").items[0].item_id == "a"
        with pytest.raises(ApiError, match="not that of this API"):
            client.history("a/b?c")
    (_, path, headers, _), (_, other, _, _) = server.asked
    assert path in ("/v1/popular?n=3&category=Tea+%26+more", "/v1/popular?n=3&category=Tea%20%26%20more")
    assert headers["authorization"] == "Bearer secret"
    assert other == "/v1/users/a%2Fb%3Fc/history?n=100"


def test_an_explanation_is_asked_for_with_as_many_parts_as_wanted(server: Server) -> None:
    earlier = {
        "user_id": "u", "item_id": "a", "model": "m", "score": 0.5, "demand": 0.5, "habit": 0, "owned": False,
        "hidden": False, "contributions": [],
    }  # fmt: skip
    server.answers = [(200, earlier, {}), (200, {**earlier, "others": 0.25, "other_items": 3}, {})]
    with Client(server.url) as client:
        whole, largest = client.explanation("u", "a/b"), client.explanation("u", "a/b", top=3)
    assert (whole.others, whole.other_items) == (0, 0)  # what an API of an earlier release leaves out
    assert (largest.others, largest.other_items) == (0.25, 3)
    path = "/v1/users/u/recommendations/a%2Fb/explanation"
    assert [asked[1] for asked in server.asked] == [path, f"{path}?top=3"]


@pytest.mark.parametrize("status", [429, 503])
def test_a_request_that_is_told_to_come_again_does(server: Server, status: int) -> None:
    server.answers = [(status, PROBLEM, {"Retry-After": "0"})] * 2 + [(200, POPULAR, {})]
    with Client(server.url) as client:
        assert client.popular().model == "m"
    assert len(server.asked) == 3


def test_a_limit_is_waited_out_for_as_long_as_the_api_says(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    slept: list[float] = []
    monkeypatch.setattr("recsys.client.time.sleep", slept.append)
    server.answers = [(status, PROBLEM, {"Retry-After": "40"}) for status in (429, 503)] + [(200, POPULAR, {})]
    with Client(server.url) as client:
        client.popular()
    assert slept[0] >= 40  # sooner would only be refused again
    assert slept[1] <= 10


def test_events_are_repeated_under_the_same_key(server: Server) -> None:
    accepted = {"accepted": 1, "rejected": 0, "results": [{"status": "accepted"}]}
    server.answers = [(503, PROBLEM, {}), (202, accepted, {})]
    with Client(server.url) as client:
        client.purchases([{"user_id": "u", "item_id": "i"}])
        client.purchases([{"user_id": "u", "item_id": "i"}])
        client.purchases([{"user_id": "u", "item_id": "i"}], idempotency_key="mine")
    first, again, other, mine = (headers["idempotency-key"] for _, _, headers, _ in server.asked)
    assert first == again != other
    assert mine == "mine"
    failed = {"status": "failed", "event_id": "e"}
    server.answers = [(503, {**PROBLEM, "results": [failed]}, {})]
    with Client(server.url, retries=0) as client, pytest.raises(ApiError) as told:
        client.purchases([{"user_id": "u", "item_id": "i"}])
    assert told.value.idempotency_key == server.asked[-1][2]["idempotency-key"]
    assert [(result.status, result.event_id) for result in told.value.results] == [("failed", "e")]


def test_a_retrain_is_asked_for_again_only_if_it_was_refused(server: Server) -> None:
    accepted = {"id": 1, "state": "waiting"}
    server.answers = [(503, PROBLEM, {}), (202, accepted, {})]
    with Client(server.url) as client:
        assert client.start_retrain().id == 1
        server.answers = [(504, b"", {}), (202, accepted, {})]
        with pytest.raises(ApiError, match="504"):
            client.start_retrain()
    with Client(f"http://127.0.0.1:{kept_port()}") as client, pytest.raises(ApiUnavailable):
        client.start_retrain()


def test_a_problem_is_an_error_that_says_what_it_says(server: Server) -> None:
    broken = {"type": "urn:recsys:problem:invalid-request", "title": "It breaks a rule", "status": 422, "detail": "see"}
    server.answers = [(422, {**broken, "errors": [{"field": "body.n", "message": "too many"}]}, {})]
    with (
        Client(server.url) as client,
        pytest.raises(ApiError, match=r"It breaks a rule: see; body\.n: too many") as told,
    ):
        client.bulk(["u"], 7)
    assert (told.value.status, told.value.type) == (422, "urn:recsys:problem:invalid-request")
    assert len(server.asked) == 1  # it would be refused again
    server.answers = [(502, b"<html>bad gateway", {})]
    with Client(server.url, retries=0) as client, pytest.raises(ApiError, match="502 <html>bad gateway"):
        client.popular()


def test_nobody_there_is_said_after_some_tries() -> None:
    with (
        Client(f"http://127.0.0.1:{kept_port()}", retries=1) as client,
        pytest.raises(ApiUnavailable, match="does not"),
    ):
        client.popular()


def test_any_number_of_users_is_asked_for_a_thousand_at_a_time(server: Server) -> None:
    def result(user: str) -> dict[str, Any]:
        return {"user_id": user, "source": "popular", **POPULAR}

    users = [f"user-{n}" for n in range(2_300)]
    parts = [users[:1000], users[1000:2000], users[2000:]]
    server.answers = [(200, {"results": [result(user) for user in part]}, {}) for part in parts]
    with Client(server.url) as client:
        assert [found.user_id for found in client.recommendations_of(iter(users), 3)] == users
    assert [len(body["user_ids"]) for _, _, _, body in server.asked] == [1000, 1000, 300]


def test_the_async_client_does_the_same(server: Server) -> None:
    server.answers = [(503, PROBLEM, {}), (200, POPULAR, {})]

    async def ask() -> list[str]:
        async with AsyncClient(server.url, key="secret") as client:
            first = await client.popular()
            server.answers = [(200, {"results": [{"user_id": "u", "source": "popular", **POPULAR}]}, {})]
            return [first.items[0].item_id, *[found.user_id async for found in client.recommendations_of(["u"])]]

    assert asyncio.run(ask()) == ["a", "u"]

    async def nobody() -> None:
        async with AsyncClient(f"http://127.0.0.1:{kept_port()}", retries=1) as client:
            await client.models()

    with pytest.raises(ApiUnavailable):
        asyncio.run(nobody())
