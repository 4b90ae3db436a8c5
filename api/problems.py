"""What is answered when a request cannot be served: problem+json, RFC 9457."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from recsys.api_schemas import NAMES_A_PROBLEM, BrokenRule, Problem
from recsys.data.event import NO_CONTROL_CHARACTERS
from recsys.errors import DataDirError, KafkaError, RecsysError, RedisError
from recsys.logger import logger
from recsys.settings import secrets

log = logger(__name__)
_RETRY_AFTER_S = 1
_HIDDEN_PLACE = "…"
_LONGEST_TOLD = 2_000
"""Of an error of another process: to look for places takes the square of its length."""
_PLACE = re.compile(
    r"""[^\s"'(),;]*/[^\s"'(),;]*[^\s"'(),;:.]"""  # a path, or a URL
    r"|(?<![\w.])(\[[0-9A-Fa-f:.]+\]|[A-Za-z][\w.-]*|\d{1,3}(\.\d{1,3}){3}):\d{1,5}\b"  # host and port
    r"|\b\d{1,3}(\.\d{1,3}){3}\b"
)


class Kind(Enum):
    """The kinds of problems: name, status, title."""

    INVALID_REQUEST = ("invalid-request", 422, "The request breaks a rule")
    MISSING_KEY = ("missing-key", 401, "A valid key is required")
    EXPIRED_KEY = ("expired-key", 401, "The key has expired")
    FORBIDDEN = ("forbidden", 403, "This is not allowed")
    NOT_FOUND = ("not-found", 404, "There is nothing at this address")
    UNKNOWN_ITEM = ("unknown-item", 404, "There is no such item")
    UNKNOWN_CATEGORY = ("unknown-category", 404, "There is no such category")
    UNKNOWN_MODEL = ("unknown-model", 404, "There is no such model")
    UNKNOWN_RETRAIN = ("unknown-retrain", 404, "There is no such retrain")
    METHOD_NOT_ALLOWED = ("method-not-allowed", 405, "This address does not accept this method")
    BODY_TOO_SLOW = ("body-too-slow", 408, "The body did not arrive in time")
    BODY_TOO_LARGE = ("body-too-large", 413, "The body is too large")
    TOO_MANY_REQUESTS = ("too-many-requests", 429, "A limit has been reached")
    INTERNAL_ERROR = ("internal-error", 500, "The API failed unexpectedly")
    PURCHASES_DISABLED = ("purchases-disabled", 403, "This API does not accept purchases")
    OVERLOADED = ("overloaded", 503, "Too many requests at the same time")
    REDIS_UNAVAILABLE = ("redis-unavailable", 503, "Redis does not answer")
    KAFKA_UNAVAILABLE = ("kafka-unavailable", 503, "Kafka did not confirm everything")
    STORAGE_UNAVAILABLE = ("storage-unavailable", 503, "The models cannot be read")
    NO_MODEL = ("no-model", 503, "No model is loaded")
    NO_LISTS = ("no-lists", 503, "There are no lists")
    NO_TRAINER = ("no-trainer", 503, "No trainer is running")

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.value[1]


_OF_STATUS: Mapping[int, tuple[Kind, str]] = {
    HTTPStatus.REQUEST_TIMEOUT: (Kind.BODY_TOO_SLOW, "send it again"),
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: (Kind.BODY_TOO_LARGE, "send less in one request"),
    HTTPStatus.SERVICE_UNAVAILABLE: (Kind.OVERLOADED, "try again in a moment"),
}
"""What `api.bodies` and `api.guard` raise while a route reads a body, where only an `HTTPException` gets through."""


class ProblemError(Exception):
    """Ends a request with a problem.

    Parameters
    ----------
    kind : Kind
    detail : str
        What is wrong and what to do, for a person.
    headers : mapping
        More headers of the answer.
    extra
        More members of the problem.
    """

    def __init__(self, kind: Kind, detail: str, *, headers: Mapping[str, str] | None = None, **extra: Any) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.headers = dict(headers or {})
        self.extra = extra


def without_places(text: str) -> str:
    """Return an error of another process without paths, URLs and addresses: the log has them, a client needs none."""
    shown = text if len(text) <= _LONGEST_TOLD else text[:_LONGEST_TOLD] + _HIDDEN_PLACE
    return _PLACE.sub(_HIDDEN_PLACE, shown)


def problem_body(kind: Kind, detail: str, **extra: Any) -> bytes:
    """Return a problem as it goes over the wire."""
    name, status, title = kind.value
    return orjson.dumps(
        {
            "type": f"{NAMES_A_PROBLEM}{name}",
            "title": title,
            "status": status,
            "detail": secrets.hidden_in(detail),
            **extra,
        }
    )


def problem_response(kind: Kind, detail: str, *, headers: Mapping[str, str] | None = None, **extra: Any) -> Response:
    """Return the answer that tells of a problem."""
    more = {"Cache-Control": "no-store", **(headers or {})}
    if kind.status == HTTPStatus.SERVICE_UNAVAILABLE:
        more.setdefault("Retry-After", str(_RETRY_AFTER_S))
    return Response(problem_body(kind, detail, **extra), kind.status, more, Problem.MEDIA_TYPE)


def install(app: FastAPI, allowed_methods: Callable[[str], Sequence[str]]) -> None:
    """Have an app answer every error with a problem, given which methods a path takes."""

    @app.exception_handler(ProblemError)
    async def told(_: Request, error: ProblemError) -> Response:
        return problem_response(error.kind, error.detail, headers=error.headers, **error.extra)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        errors = broken_rules(error.errors())
        if errors[0].field == "body" and "json" not in request.headers.get("content-type", "json"):
            errors = [BrokenRule(field="header.content-type", message="must be application/json")]
        return invalid_request(errors)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        if error.status_code == HTTPStatus.NOT_FOUND:
            return problem_response(Kind.NOT_FOUND, "see /docs for all addresses")
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            methods = ", ".join(allowed_methods(request.scope["path"])) or "GET"
            detail = f"{request.method} is not accepted here; use {methods}"
            return problem_response(Kind.METHOD_NOT_ALLOWED, detail, headers={"Allow": methods})
        if (known := _OF_STATUS.get(error.status_code)) is not None:
            return problem_response(*known, headers=error.headers)
        return invalid_request([BrokenRule(field="body", message="is not valid JSON")])

    @app.exception_handler(ClientDisconnect)
    async def gone(_: Request, __: ClientDisconnect) -> Response:
        return invalid_request([BrokenRule(field="body", message="is incomplete")])  # nobody is left to read this

    @app.exception_handler(RecsysError)
    async def expected(_: Request, error: RecsysError) -> Response:
        found = _kind_of(error)
        if found is None:
            return unexpected(error)
        kind, detail = found
        log.warning("request_refused", "{error}", error=error)
        return problem_response(kind, detail)


def _kind_of(error: RecsysError) -> tuple[Kind, str] | None:
    """Return what an error means for a request, and what to do; None = it was not to be expected."""
    if isinstance(error, RedisError):
        return Kind.REDIS_UNAVAILABLE, "try again in a moment"
    if isinstance(error, KafkaError):
        return Kind.KAFKA_UNAVAILABLE, "try again in a moment"
    if isinstance(error, DataDirError):
        return Kind.STORAGE_UNAVAILABLE, "the log of the API says why"
    return None


def status_of(error: Exception) -> int:
    """Return the status that an error will be answered with."""
    if isinstance(error, ProblemError):
        return error.kind.status
    if isinstance(error, RequestValidationError):
        return Kind.INVALID_REQUEST.status
    if isinstance(error, HTTPException):
        return error.status_code
    found = _kind_of(error) if isinstance(error, RecsysError) else None
    return Kind.INTERNAL_ERROR.status if found is None else found[0].status


def unexpected(error: Exception) -> Response:
    """Log an error with its traceback, and answer without."""
    log.error("unexpected_error", "unexpected error", exc_info=error)
    return problem_response(Kind.INTERNAL_ERROR, "the log of the API has the details")


def invalid_request(errors: Sequence[BrokenRule]) -> Response:
    """Return the answer to a request with fields that break rules."""
    named = f"{len(errors)} fields break" if len(errors) > 1 else f"{errors[0].field} breaks" if errors else "it breaks"
    detail = f"{named} a rule; see errors"
    return problem_response(Kind.INVALID_REQUEST, detail, errors=[error.model_dump() for error in errors])


def broken_rules(problems: Sequence[Mapping[str, Any]]) -> list[BrokenRule]:
    """Return what pydantic found, as the API tells it."""
    words = {
        "missing": "is required",
        "json_invalid": "is not JSON",
    }

    def rule(problem: Mapping[str, Any]) -> BrokenRule:
        kind = problem["type"]
        where = problem["loc"][:1] if kind == "json_invalid" else problem["loc"]
        message = words.get(kind) or problem["msg"].removeprefix("Value error, ")
        if kind == "string_pattern_mismatch" and problem["ctx"]["pattern"] == NO_CONTROL_CHARACTERS:
            message = "must not contain control characters"
        return BrokenRule(field=".".join(str(part) for part in where), message=message)

    return [rule(problem) for problem in problems]
