"""What the routes have in common: ids in paths, answers with an ETag, the problems that each may answer with."""

from __future__ import annotations

from hashlib import blake2b
from typing import Annotated, Any
from urllib.parse import unquote

import orjson
from fastapi import Path, Query, Request, Response
from pydantic import BeforeValidator

from recsys.api_schemas import MOST_ITEMS, Problem
from recsys.data.event import Identifier

_KEPT = "private, no-cache"
"""A list may be kept, but must be asked for again: it changes with the next purchase, and when an item is hidden."""


def _decoded(segment: object) -> object:
    """Decode a segment of the path, which reaches the routes as it was sent."""
    try:
        return unquote(segment, errors="strict") if isinstance(segment, str) else segment
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8") from None


UserId = Annotated[Identifier, BeforeValidator(_decoded), Path(description="As in events.", examples=["42"])]
ItemId = Annotated[Identifier, BeforeValidator(_decoded), Path(description="As in events.", examples=["sku-9"])]
N = Annotated[int, Query(ge=1, le=MOST_ITEMS, description="Length of the list; shorter if there are no more items.")]
Category = Annotated[
    str | None,
    Query(min_length=1, max_length=1_000, description="Only items of this category.", examples=["Drinks"]),
]


def answer(body: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return JSON that must not be kept."""
    return Response(orjson.dumps(body), status, {"Cache-Control": "no-store", **(headers or {})}, "application/json")


def answer_with_etag(request: Request, body: dict[str, Any]) -> Response:
    """Return JSON with an ETag, or 304 if the client has just that."""
    content = orjson.dumps(body)
    tag = f'"{blake2b(content, digest_size=12).hexdigest()}"'
    headers = {"ETag": tag, "Cache-Control": _KEPT}
    known = request.headers.get("if-none-match")
    if known is not None and (known == "*" or tag in (part.strip().removeprefix("W/") for part in known.split(","))):
        return Response(status_code=304, headers=headers)
    return Response(content, 200, headers, "application/json")


_MEANINGS = {
    304: "It is what the client has already (If-None-Match).",
    401: "No valid key.",
    403: "The key's role does not allow it.",
    404: "There is no such thing.",
    413: "The body is too large.",
    422: "Fields break rules; all of them are listed.",
    429: "A rate is used up, of the key or of wrong keys; Retry-After says when there is more.",
    503: "What it needs is away; Retry-After says when to try again.",
}


def problems(*more: int) -> dict[int | str, dict[str, Any]]:
    """Return the responses, for the documentation, that a route may give beside its own."""
    found: dict[int | str, dict[str, Any]] = {}
    for status in sorted({401, 403, 422, 429, 503, *more}):
        described: dict[str, Any] = {"description": _MEANINGS[status]}
        if status == 401:
            described["headers"] = {"WWW-Authenticate": {"schema": {"type": "string"}}}
        if status in (429, 503):
            described["headers"] = {"Retry-After": {"schema": {"type": "integer"}}}
        if status != 304:
            described["content"] = {Problem.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
        found[status] = described
    return found
