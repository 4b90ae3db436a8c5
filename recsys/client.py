"""A client of the HTTP API: `Client` waits for answers, `AsyncClient` awaits them; both have the same methods.

>>> with Client("http://127.0.0.1:8000", key="...") as client:  # doctest: +SKIP
...     for item in client.recommendations("42", n=5).items:
...         print(item.item_id, item.score)
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import wraps
from itertools import islice
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar
from urllib.parse import quote

import httpx
import orjson
from pydantic import BaseModel, ValidationError

from recsys.api_schemas import (
    MOST_USERS,
    AgainItems,
    BasketRecommendations,
    BulkRecommendations,
    EventResult,
    ForgetAccepted,
    HiddenItem,
    Models,
    PopularItems,
    Problem,
    PurchasesAccepted,
    Recommendations,
    Retrain,
    RollbackAccepted,
    ScoreExplanation,
    SimilarItems,
    UserHistory,
)
from recsys.errors import ApiError, ApiUnavailable

_KEY = "Idempotency-Key"
P = ParamSpec("P")
T = TypeVar("T", bound=BaseModel)
_LIMIT = 429
_AGAIN = (_LIMIT, 502, 503, 504)
_REFUSED = (_LIMIT, 503)
"""Answers after which the same request may do better; the latter are this API's own, and say that nothing was done."""
_LONGEST_PAUSE_S = 5.0
_LONGEST_LIMIT_S = 60.0
"""How long a limit on what is sent (429) is waited out: nothing is broken, and more can be sent after that time."""


@dataclass(frozen=True)
class _Call(Generic[T]):
    """One request, and what its answer is read as."""

    reply: type[T]
    method: str
    path: str
    params: Mapping[str, Any] = field(default_factory=dict)
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    repeatable: bool = True
    """Whether it may be sent again although nobody knows whether it arrived."""


def _recommendations(
    user_id: str, n: int = 10, *, category: str | None = None, exclude: Sequence[str] = ()
) -> _Call[Recommendations]:
    """Return what to recommend to a user: their list, or the popular one."""
    return _Call(Recommendations, "GET", f"users/{_id(user_id)}/recommendations", _params(n, category, exclude))


def _bulk(user_ids: Sequence[str], n: int = 10) -> _Call[BulkRecommendations]:
    """Return what to recommend to up to 1,000 users, in order."""
    return _Call(BulkRecommendations, "POST", "recommendations", body={"user_ids": list(user_ids), "n": n})


def _basket(items: Mapping[str, float], *, user_id: str | None = None, n: int = 10) -> _Call[BasketRecommendations]:
    """Return what goes with a basket, given item id → quantity, on top of a user's history if there is one."""
    lines = [{"item_id": item, "quantity": quantity} for item, quantity in items.items()]
    body = {"items": lines, "n": n, **({} if user_id is None else {"user_id": user_id})}
    return _Call(BasketRecommendations, "POST", "recommendations/basket", body=body)


def _again(user_id: str, n: int = 10) -> _Call[AgainItems]:
    """Return what a user may buy again."""
    return _Call(AgainItems, "GET", f"users/{_id(user_id)}/again", _params(n))


def _history(user_id: str, n: int = 100) -> _Call[UserHistory]:
    """Return what a user owns."""
    return _Call(UserHistory, "GET", f"users/{_id(user_id)}/history", _params(n))


def _explanation(user_id: str, item_id: str, *, top: int | None = None) -> _Call[ScoreExplanation]:
    """Return why an item has its score for a user; with ``top``, only the largest contributions one by one."""
    path = f"users/{_id(user_id)}/recommendations/{_id(item_id)}/explanation"
    return _Call(ScoreExplanation, "GET", path, {} if top is None else {"top": top})


def _similar(item_id: str, n: int = 10) -> _Call[SimilarItems]:
    """Return the items most like one."""
    return _Call(SimilarItems, "GET", f"items/{_id(item_id)}/similar", _params(n))


def _popular(n: int = 10, *, category: str | None = None) -> _Call[PopularItems]:
    """Return what everybody buys now."""
    return _Call(PopularItems, "GET", "popular", _params(n, category))


def _purchases(events: Sequence[Mapping[str, Any]], *, idempotency_key: str | None = None) -> _Call[PurchasesAccepted]:
    """Publish up to 1,000 events; those that break a rule are told of in the results.

    Without an ``idempotency_key`` one is made, so that an event counts once however often this has to try. Should all
    tries fail, the error has it (`ApiError.idempotency_key`): send the same events again with it.
    """
    key = uuid.uuid4().hex if idempotency_key is None else idempotency_key
    body = [dict(event) for event in events]
    return _Call(PurchasesAccepted, "POST", "purchases", body=body, headers={_KEY: key})


def _models() -> _Call[Models]:
    """Return the models that are kept and the last rounds."""
    return _Call(Models, "GET", "models")


def _start_retrain(*, force: bool = False) -> _Call[Retrain]:
    """Ask for a new model."""
    return _Call(Retrain, "POST", "retrains", body={"force": force}, repeatable=False)


def _retrain(number: int) -> _Call[Retrain]:
    """Return how a retrain goes, or went."""
    return _Call(Retrain, "GET", f"retrains/{number}")


def _rollback(version: str) -> _Call[RollbackAccepted]:
    """Have an earlier model made live again."""
    return _Call(RollbackAccepted, "POST", f"models/{_id(version)}/rollback")


def _hide(item_id: str) -> _Call[HiddenItem]:
    """Keep an item out of all lists."""
    return _Call(HiddenItem, "PUT", f"items/{_id(item_id)}/hidden")


def _unhide(item_id: str) -> _Call[HiddenItem]:
    """Let an item be recommended again."""
    return _Call(HiddenItem, "DELETE", f"items/{_id(item_id)}/hidden")


def _forget(user_id: str) -> _Call[ForgetAccepted]:
    """Have a user erased."""
    return _Call(ForgetAccepted, "DELETE", f"users/{_id(user_id)}")


def _id(name: str | int) -> str:
    text = str(name)
    return quote(text, safe="") if text.strip(".") else "%2E" * len(text)  # . and .. would lead elsewhere


def _params(n: int, category: str | None = None, exclude: Sequence[str] = ()) -> dict[str, Any]:
    if isinstance(exclude, str):
        raise TypeError("exclude: must be a list of ids, not one string")
    return {
        "n": n,
        **({} if category is None else {"category": category}),
        **({"exclude": list(exclude)} if exclude else {}),
    }


def _parts(user_ids: Iterable[str]) -> Iterator[list[str]]:
    if isinstance(user_ids, str):
        raise TypeError("user_ids: must be a list of ids, not one string")
    users = iter(user_ids)
    while part := list(islice(users, MOST_USERS)):
        yield part


class _Tries:
    """When to try again: after no answer, and after one that says to."""

    def __init__(self, retries: int, call: _Call[Any]) -> None:
        self._left = retries
        self._again = _AGAIN if call.repeatable else _REFUSED
        self._repeatable = call.repeatable
        self._pause_s = 0.05

    def pause_s(self, response: httpx.Response | None) -> float | None:
        """Return how long to wait before the next try, None if there is to be none."""
        wanted_again = self._repeatable if response is None else response.status_code in self._again
        if self._left == 0 or not wanted_again:
            return None
        self._left -= 1
        self._pause_s *= 2
        wanted = "" if response is None else response.headers.get("retry-after", "")
        pause_s = max(self._pause_s, float(wanted) if wanted.isdigit() else 0.0)
        if response is not None and response.status_code == _LIMIT:  # before that time it would only be refused again
            return min(pause_s, _LONGEST_LIMIT_S) * random.uniform(1.0, 1.25)  # noqa: S311 - not for secrets
        return min(pause_s, _LONGEST_PAUSE_S) * random.uniform(0.75, 1.25)  # noqa: S311 - not for secrets


class _Base:
    """What both clients have in common.

    Parameters
    ----------
    url : str
        Of the API, such as ``http://127.0.0.1:8000``.
    key : str
        A key with the role that is needed; empty for an API without keys on this machine.
    timeout_s : float
        How long each try waits; longer than the API waits for Kafka, which is RECSYS_KAFKA__TIMEOUT_S.
    retries : int
        How often to try again when there is no answer, or one that says to come again. A retrain that was asked for
        without an answer is not asked for again.
    """

    def __init__(self, url: str, *, key: str = "", timeout_s: float = 15.0, retries: int = 3) -> None:
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"{url!r} is not the URL of an API, such as http://127.0.0.1:8000")
        self._url = url.rstrip("/")
        self._retries = retries
        self._options: dict[str, Any] = {
            "base_url": f"{self._url}/v1/",
            "timeout": timeout_s,
            "headers": {"Authorization": f"Bearer {key}"} if key else {},
        }

    def _request(self, call: _Call[T]) -> dict[str, Any]:
        headers = dict(call.headers)
        if call.body is None:
            return {"method": call.method, "url": call.path, "params": call.params, "headers": headers}
        headers["Content-Type"] = "application/json"
        content = orjson.dumps(call.body, default=float)  # of a Decimal; a datetime is known
        return {"method": call.method, "url": call.path, "headers": headers, "content": content}

    def _read(self, call: _Call[T], response: httpx.Response) -> T:
        if response.is_success:
            try:
                return call.reply.model_validate_json(response.content)
            except ValidationError as error:
                raise ApiError(f"{self._url}: the answer is not that of this API: {error}", 0) from error
        try:
            problem = Problem.model_validate_json(response.content)
        except ValidationError:
            raise ApiError(f"{self._url}: {response.status_code} {response.text[:200]}", response.status_code) from None
        broken = "".join(f"; {rule.field}: {rule.message}" for rule in problem.errors)
        told = ApiError(f"{problem.title}: {problem.detail}{broken}", problem.status, problem.type)
        told.idempotency_key = call.headers.get(_KEY, "")
        told.results = [EventResult.model_validate(result) for result in (problem.model_extra or {}).get("results", [])]
        raise told

    def _unavailable(self, call: _Call[T], error: httpx.TransportError) -> ApiUnavailable:
        told = ApiUnavailable(f"{self._url} does not answer: {str(error) or type(error).__name__}")
        told.idempotency_key = call.headers.get(_KEY, "")
        return told


class Client(_Base):
    """The API, for programs that wait; use it as a context manager, in any number of threads.

    Methods raise `recsys.errors.ApiError` when the API says that something is wrong, and `ApiUnavailable` when it
    does not answer.
    """

    def __init__(self, url: str, *, key: str = "", timeout_s: float = 15.0, retries: int = 3) -> None:
        super().__init__(url, key=key, timeout_s=timeout_s, retries=retries)
        self._http = httpx.Client(**self._options)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def _do(self, call: _Call[T]) -> T:
        tries = _Tries(self._retries, call)
        while True:
            try:
                response = self._http.request(**self._request(call))
            except httpx.TransportError as error:
                pause_s = tries.pause_s(None)
                if pause_s is None:
                    raise self._unavailable(call, error) from error
            else:
                pause_s = tries.pause_s(response)
                if pause_s is None:
                    return self._read(call, response)
            time.sleep(pause_s)

    def recommendations_of(self, user_ids: Iterable[str], n: int = 10) -> Iterator[Recommendations]:
        """Yield what to recommend to any number of users, in order, asking for 1,000 at a time."""
        for part in _parts(user_ids):
            yield from self.bulk(part, n).results

    @staticmethod
    def _method(make: Callable[P, _Call[T]]) -> Callable[Concatenate[Client, P], T]:
        @wraps(make)
        def method(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
            return self._do(make(*args, **kwargs))

        return method

    recommendations = _method(_recommendations)
    bulk = _method(_bulk)
    basket = _method(_basket)
    again = _method(_again)
    history = _method(_history)
    explanation = _method(_explanation)
    similar = _method(_similar)
    popular = _method(_popular)
    purchases = _method(_purchases)
    models = _method(_models)
    start_retrain = _method(_start_retrain)
    retrain = _method(_retrain)
    rollback = _method(_rollback)
    hide = _method(_hide)
    unhide = _method(_unhide)
    forget = _method(_forget)


class AsyncClient(_Base):
    """The API, for event loops: `Client`, whose methods are to be awaited."""

    def __init__(self, url: str, *, key: str = "", timeout_s: float = 15.0, retries: int = 3) -> None:
        super().__init__(url, key=key, timeout_s=timeout_s, retries=retries)
        self._http = httpx.AsyncClient(**self._options)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def _do(self, call: _Call[T]) -> T:
        tries = _Tries(self._retries, call)
        while True:
            try:
                response = await self._http.request(**self._request(call))
            except httpx.TransportError as error:
                pause_s = tries.pause_s(None)
                if pause_s is None:
                    raise self._unavailable(call, error) from error
            else:
                pause_s = tries.pause_s(response)
                if pause_s is None:
                    return self._read(call, response)
            await asyncio.sleep(pause_s)

    async def recommendations_of(self, user_ids: Iterable[str], n: int = 10) -> AsyncIterator[Recommendations]:
        """Yield what to recommend to any number of users, in order, asking for 1,000 at a time."""
        for part in _parts(user_ids):
            for result in (await self.bulk(part, n)).results:
                yield result

    @staticmethod
    def _method(make: Callable[P, _Call[T]]) -> Callable[Concatenate[AsyncClient, P], Awaitable[T]]:
        @wraps(make)
        async def method(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
            return await self._do(make(*args, **kwargs))

        return method

    recommendations = _method(_recommendations)
    bulk = _method(_bulk)
    basket = _method(_basket)
    again = _method(_again)
    history = _method(_history)
    explanation = _method(_explanation)
    similar = _method(_similar)
    popular = _method(_popular)
    purchases = _method(_purchases)
    models = _method(_models)
    start_retrain = _method(_start_retrain)
    retrain = _method(_retrain)
    rollback = _method(_rollback)
    hide = _method(_hide)
    unhide = _method(_unhide)
    forget = _method(_forget)
