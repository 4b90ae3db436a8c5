"""Parameters that are read at once mean what FastAPI would have read."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any
from urllib.parse import quote

import pytest
from fastapi import APIRouter, Depends, FastAPI, Header, Query, Request, Response
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from api.parameters import read_at_once
from api.routes import reading
from api.routes.common import Category, N, UserId, answer
from recsys.data.event import Identifier

handled: list[str] = []


class AtOnce(APIRoute):
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        fastapi = super().get_route_handler()

        async def otherwise(request: Request) -> Response:
            handled.append("fastapi")
            return await fastapi(request)

        return read_at_once(self, otherwise)


def application(kind: type[APIRoute]) -> TestClient:
    router = APIRouter(route_class=kind)

    @router.get("/users/{user_id}")
    async def lists(
        request: Request,
        user_id: UserId,
        n: N = 10,
        category: Category = None,
        exclude: Annotated[list[Identifier] | None, Query(max_length=3)] = None,
    ) -> Response:
        return answer({"user_id": user_id, "n": n, "category": category, "exclude": exclude, "path": request.url.path})

    @router.get("/with-header")
    async def with_header(request: Request, if_match: Annotated[str, Header()] = "none") -> Response:
        return answer({"if_match": if_match})

    @router.get("/depends")
    async def depends(request: Request, n: Annotated[int, Depends(lambda: 7)]) -> Response:
        return answer({"n": n})

    @router.get("/model")
    async def model(request: Request, n: int = 1) -> dict[str, int]:
        return {"n": n}

    app = FastAPI()
    app.include_router(router)
    return TestClient(app, raise_server_exceptions=False)


ours, theirs = application(AtOnce), application(APIRoute)


def same(path: str) -> tuple[int, str]:
    """Return what both answer."""
    handled.clear()
    found, expected = ours.get(path), theirs.get(path)
    assert (found.status_code, found.text) == (expected.status_code, expected.text)
    return found.status_code, found.text


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("", 200), ("?n=3", 200), ("?n=3&n=4", 200), ("?n=+3", 200), ("?n=3.0", 200), ("?unknown=1", 200),
        ("?category=a%20b", 200), ("?exclude=a", 200), ("?exclude=a&exclude=b&n=2", 200),
        ("?n=", 422), ("?n=0", 422), ("?n=x", 422), ("?n=1e9", 422), ("?category=", 422), ("?exclude=", 422),
        ("?exclude=a&exclude=b&exclude=c&exclude=d", 422), ("?n=x&category=", 422),
    ],
)  # fmt: skip
def test_queries_mean_the_same(query: str, status: int) -> None:
    assert same(f"/users/ann{query}")[0] == status
    assert handled == ["fastapi"] * (status == 422)


@given(
    st.text(st.characters(codec="utf-8"), min_size=1, max_size=5),
    st.dictionaries(st.sampled_from(["n", "category", "exclude", "N", "user_id"]), st.text(max_size=4), max_size=4),
)
def test_whatever_is_sent_means_the_same(user: str, query: dict[str, str]) -> None:
    pairs = "&".join(f"{name}={quote(value, safe='')}" for name, value in query.items())
    same(f"/users/{quote(user, safe='')}?{pairs}")


@pytest.mark.parametrize("path", ["/with-header", "/depends", "/model?n=4"])
def test_what_takes_anything_else_is_left_to_fastapi(path: str) -> None:
    assert same(path)[0] == 200
    assert handled == ["fastapi"]


def test_the_lists_of_a_user_are_read_at_once() -> None:
    async def otherwise(_: Request) -> Response:
        raise AssertionError

    routes = {route.path: route for route in reading.router.routes if isinstance(route, APIRoute)}
    for path in ("/v1/users/{user_id}/recommendations", "/v1/users/{user_id}/again", "/v1/popular"):
        assert read_at_once(routes[path], otherwise) is not otherwise, path
