"""The OpenAPI document is the one that is kept in docs/openapi.json, so that a change of it is seen."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.app import create_app
from recsys.settings import Settings

SNAPSHOT = Path(__file__).parents[2] / "docs" / "openapi.json"


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return create_app(Settings()).openapi()


def test_the_document_is_the_one_that_is_kept(document: dict[str, Any]) -> None:
    text = json.dumps(document, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    if os.environ.get("UPDATE_OPENAPI"):
        SNAPSHOT.write_text(text)
    assert SNAPSHOT.read_text() == text, (
        "the HTTP API has changed; if clients of today can live with that, run "
        "UPDATE_OPENAPI=1 make test ARGS=tests/unit/test_openapi.py"
    )


def test_everything_is_described(document: dict[str, Any]) -> None:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            where = f"{method} {path}"
            assert operation["summary"], where
            assert operation["description"], where
            assert all(parameter.get("description") for parameter in operation.get("parameters", [])), where
            for status, response in operation["responses"].items():
                assert response["description"], where
                if status not in ("304",):
                    assert response["content"], f"{where} {status}"
    for name, schema in document["components"]["schemas"].items():
        assert schema["description"], name
        assert schema.get("examples") or schema.get("enum") or name in ("Models", "ModelSummary", "RoundSummary"), name


def test_every_error_is_a_problem(document: dict[str, Any]) -> None:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            for status, response in operation["responses"].items():
                if status >= "400" and path != "/readyz":
                    assert list(response["content"]) == ["application/problem+json"], f"{method} {path} {status}"


def test_what_needs_no_key_is_rendered_once(document: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    app = create_app(Settings())
    monkeypatch.setattr(app, "openapi", lambda: pytest.fail("it is rendered again"))

    async def asked() -> list[httpx.Response]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://localhost") as client:
            return [await client.get("/openapi.json") for _ in range(2)]

    for answer in asyncio.run(asked()):
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
        assert answer.json() == document
