"""The cached lists: of users, of all, of items."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query, Request, Response

from api.lists import Listed, ListFilter, parsed
from api.problems import Kind, ProblemError
from api.routes.common import Category, ItemId, N, UserId, answer, problems, tagged
from api.security import Role, guarded
from api.services import Services, no_lists, services_of
from recsys.api_schemas import (
    MOST_EXCLUDED,
    MOST_ITEMS,
    AgainItems,
    BulkRecommendations,
    BulkRequest,
    PopularItems,
    Recommendations,
    SimilarItems,
    Source,
    UserHistory,
)
from recsys.data.event import UNITS_PER_QUANTITY, Identifier
from recsys.errors import RedisUnavailable
from recsys.redis.async_reader import UserList

router = APIRouter(prefix="/v1", route_class=guarded(Role.READ))
_AT_ONCE = 100
_SPARE = 6
"""Items of a list that are read beyond those asked for, in place of hidden ones."""


@router.get(
    "/users/{user_id}/recommendations",
    response_model=Recommendations,
    responses=problems(304),
    tags=["users"],
    summary="What to recommend to a user",
)
async def recommendations(
    request: Request,
    user_id: UserId,
    n: N = 10,
    category: Category = None,
    exclude: Annotated[
        list[Identifier] | None,
        Query(
            max_length=MOST_EXCLUDED,
            description="An item that is not wanted, such as one on the page already; repeat it for more.",
        ),
    ] = None,
) -> Response:
    """Return the user's list; the popular one for a user who has none, or none of this category.

    Hidden items, and what the user has bought since the list was made, are left out. While Redis is away it is the
    popular list as it was before, marked `stale`.
    """
    services = services_of(request)
    live = services.live
    shown = ListFilter(live.hidden, live.catalogue, category, frozenset(exclude or ()))
    try:
        found = await services.reader.user_lists([user_id])
        result = (await ListAssembler(services, shown, n).of([user_id], found))[0]
    except RedisUnavailable:
        result = _stale(services, user_id, shown, n)
    return tagged(request, result)


@router.post(
    "/recommendations",
    response_model=BulkRecommendations,
    responses=problems(413),
    tags=["users"],
    summary="What to recommend to many users",
)
async def bulk_recommendations(request: Request, wanted: BulkRequest) -> Response:
    """Return the lists of up to 1,000 users, one result per id, in order; see the list of one user."""
    services = services_of(request)
    shown = ListFilter(services.live.hidden, services.live.catalogue)
    users = wanted.user_ids
    # Many lists at a time are work that smaller requests must not wait behind.
    async with services.large if len(users) > _AT_ONCE else nullcontext():
        try:
            found = await services.reader.user_lists(users)
            results = await ListAssembler(services, shown, wanted.n).of(users, found)
        except RedisUnavailable:
            results = [_stale(services, user, shown, wanted.n) for user in users]
        return answer({"results": results})


class ListAssembler:
    """The lists of some users, from what is cached for them."""

    def __init__(self, services: Services, shown: ListFilter, n: int) -> None:
        self._services = services
        self._shown = shown
        self._n = n
        self._most = n + _SPARE if shown.category is None else MOST_ITEMS
        self._include_purchased = services.settings.ranking.include_purchased

    async def of(self, users: Sequence[str], found: Sequence[UserList]) -> list[dict[str, Any]]:
        """Return a result for each user, in order."""
        lists: list[dict[str, Any] | None] = []
        for place, cached in enumerate(found, start=1):
            lists.append(self._parsed(cached))
            if place % _AT_ONCE == 0:
                await asyncio.sleep(0)  # others' turn: a thousand lists take as long as many requests
        bought = await self._bought_since(users, found, lists)
        results: list[dict[str, Any] | None] = []
        for user, cached, own in zip(users, found, lists, strict=True):
            items = [] if own is None else self._visible(own["items"], bought.get(user))
            if own is not None and cached.content is not None and len(items) < self._n <= len(own["items"]):
                items = self._visible(orjson.loads(cached.content)["items"], bought.get(user))  # beyond those parsed
            results.append(_personal(user, own, items) if own is not None and items else None)
            if len(results) % _AT_ONCE == 0:
                await asyncio.sleep(0)
        without = [user for user, result in zip(users, results, strict=True) if result is None]
        popular = iter(await self._popular(without, dict(zip(users, found, strict=True))) if without else ())
        services = self._services
        services.metrics.lists.labels(Source.PERSONAL).inc(len(users) - len(without))
        services.metrics.lists.labels(Source.POPULAR).inc(len(without))
        return [next(popular) if result is None else result for result in results]

    def _parsed(self, cached: UserList) -> dict[str, Any] | None:
        """Parse as much of a list as is likely to be needed; all of it if its history is newer."""
        if cached.content is None:
            return None
        own = parsed(cached.content, self._most)
        return own if own["revision"] == cached.revision else dict(orjson.loads(cached.content))

    async def _bought_since(
        self, users: Sequence[str], found: Sequence[UserList], lists: Sequence[dict[str, Any] | None]
    ) -> dict[str, frozenset[str]]:
        """Return what users own of their lists: only of those whose history is newer than their list."""
        if self._include_purchased:
            return {}
        return await self._services.reader.owned_among(
            {
                user: [item["item_id"] for item in own["items"]]
                for user, cached, own in zip(users, found, lists, strict=True)
                if own is not None and own["revision"] != cached.revision
            }
        )

    async def _popular(self, users: Sequence[str], found: dict[str, UserList]) -> list[dict[str, Any]]:
        """Return the popular list for each of these users, without what they own."""
        content = in_category = await self._services.reader.popular(self._shown.category)
        if content is None and self._shown.category is not None:
            content = await self._services.reader.popular()
        if content is None:  # there is no model yet, or Redis was emptied
            return [_stale(self._services, user, self._shown, self._n) for user in users]
        popular = orjson.loads(content)
        if in_category is None:  # the other one is for its model and time alone
            popular["items"] = []
        ids = [item["item_id"] for item in popular["items"]]
        known = {} if self._include_purchased else {user: ids for user in users if found[user].revision}
        owned = await self._services.reader.owned_among(known)
        anybody = self._visible(popular["items"], None)
        return [
            _popular(user, popular, self._visible(popular["items"], owned[user]) if owned.get(user) else anybody)
            for user in users
        ]

    def _visible(self, items: list[Listed], owned: frozenset[str] | None) -> list[Listed]:
        if owned:
            items = [item for item in items if item["item_id"] not in owned]
        return self._shown.of(items, self._n)


def _personal(user: str, own: dict[str, Any], items: list[Listed]) -> dict[str, Any]:
    return {
        "user_id": user,
        "source": "personal",
        "stale": False,
        "model": own["model"],
        "revision": own["revision"],
        "generated_at": own["generated_at"],
        "items": items,
    }


def _popular(user: str, popular: dict[str, Any], items: list[Listed], *, stale: bool = False) -> dict[str, Any]:
    return {
        "user_id": user,
        "source": "popular",
        "stale": stale,
        "model": popular["model"],
        "generated_at": popular["generated_at"],
        "items": items,
    }


def _stale(services: Services, user: str, shown: ListFilter, n: int) -> dict[str, Any]:
    """Return the popular list as it was; raise 503 if there never was one."""
    popular = services.live.popular
    if popular is None:
        raise no_lists()
    services.metrics.stale.inc()
    return _popular(user, popular, shown.of(popular["items"], n), stale=True)


@router.get(
    "/users/{user_id}/again",
    response_model=AgainItems,
    responses=problems(304),
    tags=["users"],
    summary="What a user may buy again",
)
async def again(request: Request, user_id: UserId, n: N = 10) -> Response:
    """Return what the user bought often and lately, and what is due; empty if there is nothing like that."""
    services = services_of(request)
    content = await services.reader.again(user_id)
    return tagged(request, _cached(services, content, n, user_id=user_id))


@router.get(
    "/users/{user_id}/history",
    response_model=UserHistory,
    responses=problems(),
    tags=["users"],
    summary="What a user owns",
)
async def history(request: Request, user_id: UserId, n: N = 100) -> Response:
    """Return what the user bought and did not return, what was bought last first; empty for an unknown user."""
    services = services_of(request)
    entries = await services.reader.history(user_id)
    owned = {item: entry for item, entry in entries.items() if entry.units > 0}
    shown = ListFilter((), services.live.catalogue)
    newest = sorted(owned.items(), key=lambda pair: (-pair[1].newest_s, pair[0]))[:n]
    items = [
        {
            "item_id": item,
            "quantity": entry.units / UNITS_PER_QUANTITY,
            "purchases": entry.purchases,
            "first_event": _time(entry.first_s),
            "newest_event": _time(entry.newest_s),
            **shown.about(item),
        }
        for item, entry in newest
    ]
    return answer({"user_id": user_id, "total": len(owned), "items": items})


@router.get(
    "/popular",
    response_model=PopularItems,
    responses=problems(304, 404),
    tags=["items"],
    summary="What everybody buys now",
)
async def popular(request: Request, category: Category = None, n: N = 10) -> Response:
    """Return the popular list, overall or of a category."""
    services = services_of(request)
    content = await services.reader.popular(category)
    if content is None and category is None:
        raise no_lists()
    if content is None and category not in services.live.categories:
        raise ProblemError(Kind.UNKNOWN_CATEGORY, f"no imported item is in category {category!r}")
    of_category = {} if category is None else {"category": category}
    return tagged(request, _cached(services, content, n, **of_category))


@router.get(
    "/items/{item_id}/similar",
    response_model=SimilarItems,
    responses=problems(304, 404),
    tags=["items"],
    summary="The items most like one",
)
async def similar(request: Request, item_id: ItemId, n: N = 10) -> Response:
    """Return the items that are bought by the same people; the score is the cosine of their factors."""
    services = services_of(request)
    content = await services.reader.similar(item_id)
    if content is None:
        services.ensure_known(item_id)
    return tagged(request, _cached(services, content, n, item_id=item_id))


def _cached(services: Services, content: bytes | None, n: int, **about: str) -> dict[str, Any]:
    """Return a cached list as it may be shown; an empty one if there is none."""
    if content is None:
        return {**about, "items": []}
    found = orjson.loads(content)
    shown = ListFilter(services.live.hidden, services.live.catalogue)
    more = {name: found[name] for name in ("model", "revision", "generated_at") if name in found}
    return {**about, **more, "items": shown.of(found["items"], n)}


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
