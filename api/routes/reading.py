"""The cached lists: of users, of all, of items."""

from __future__ import annotations

from contextlib import nullcontext
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from api.lists import ListFilter, parse_list
from api.problems import Kind, ProblemError
from api.routes.common import Category, ItemId, N, UserId, answer, answer_with_etag, problems
from api.security import Role, guarded
from api.services import Services, no_lists, services_of
from api.user_lists import LISTS_PER_TURN, user_lists
from recsys.api_schemas import (
    MOST_EXCLUDED,
    AgainItems,
    BulkRecommendations,
    BulkRequest,
    PopularItems,
    Recommendations,
    SimilarItems,
    UserHistory,
)
from recsys.data.event import UNITS_PER_QUANTITY, Identifier
from recsys.errors import RedisUnavailable

router = APIRouter(prefix="/v1", route_class=guarded(Role.READ))


@router.get(
    "/users/{user_id}/recommendations",
    response_model=Recommendations,
    responses=problems(304),
    tags=["users"],
    summary="Recommendations for a user",
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
            description="An item to leave out, such as one that the page already shows; repeat the parameter for more.",
        ),
    ] = None,
) -> Response:
    """Return the user's list; the popular one for a user who has none, or none of this category.

    Hidden items, and items that the user has bought since the list was made, are left out. While Redis is unavailable
    the answer is the last known popular list, marked `stale`.
    """
    services = services_of(request)
    list_filter = ListFilter(services.live.hidden, services.live.catalogue, category, frozenset(exclude or ()))
    (found,) = await user_lists(services, [user_id], list_filter, n)
    return answer_with_etag(request, found)


@router.post(
    "/recommendations",
    response_model=BulkRecommendations,
    responses=problems(413),
    tags=["users"],
    summary="Recommendations for many users",
)
async def bulk_recommendations(request: Request, wanted: BulkRequest) -> Response:
    """Return the lists of up to 1,000 users, one result per id, in order; see the list of one user."""
    services = services_of(request)
    list_filter = ListFilter(services.live.hidden, services.live.catalogue)
    # Many lists at a time are work that smaller requests must not wait behind.
    async with services.large if len(wanted.user_ids) > LISTS_PER_TURN else nullcontext():
        return answer({"results": await user_lists(services, wanted.user_ids, list_filter, wanted.n)})


@router.get(
    "/users/{user_id}/again",
    response_model=AgainItems,
    responses=problems(304),
    tags=["users"],
    summary="What a user may buy again",
)
async def again(request: Request, user_id: UserId, n: N = 10) -> Response:
    """Return items that the user buys regularly and is likely to buy again now; empty if there are none."""
    services = services_of(request)
    content = await services.reader.again(user_id)
    return answer_with_etag(request, _cached(services, content, n, user_id=user_id))


@router.get(
    "/users/{user_id}/history",
    response_model=UserHistory,
    responses=problems(),
    tags=["users"],
    summary="The items that a user owns",
)
async def history(request: Request, user_id: UserId, n: N = 100) -> Response:
    """Return the items that the user bought and did not return, the newest first; empty for an unknown user."""
    services = services_of(request)
    entries = await services.reader.history(user_id)
    owned = {item: entry for item, entry in entries.items() if entry.units > 0}
    list_filter = ListFilter((), services.live.catalogue)
    newest = sorted(owned.items(), key=lambda pair: (-pair[1].newest_s, pair[0]))[:n]
    items = [
        {
            "item_id": item,
            "quantity": entry.units / UNITS_PER_QUANTITY,
            "purchases": entry.purchases,
            "first_event": _time(entry.first_s),
            "newest_event": _time(entry.newest_s),
            **list_filter.about(item),
        }
        for item, entry in newest
    ]
    return answer({"user_id": user_id, "total": len(owned), "items": items})


@router.get(
    "/popular",
    response_model=PopularItems,
    responses=problems(304, 404),
    tags=["items"],
    summary="Popular items",
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
    return answer_with_etag(request, _cached(services, content, n, **of_category))


@router.get(
    "/items/{item_id}/similar",
    response_model=SimilarItems,
    responses=problems(304, 404),
    tags=["items"],
    summary="Items similar to an item",
)
async def similar(request: Request, item_id: ItemId, n: N = 10) -> Response:
    """Return the items that the same people buy; the score is the cosine of their factors."""
    services = services_of(request)
    content = await services.reader.similar(item_id)
    if content is None:
        services.ensure_known(item_id)
    return answer_with_etag(request, _cached(services, content, n, item_id=item_id))


def _cached(services: Services, content: bytes | None, n: int, **about: str) -> dict[str, Any]:
    """Return a cached list as it may be shown; an empty one if there is none."""
    if content is None:
        return {**about, "items": []}
    if (found := parse_list(content)) is None:
        raise RedisUnavailable("a list in Redis is damaged; the next model writes it again")
    list_filter = ListFilter(services.live.hidden, services.live.catalogue)
    more: dict[str, Any] = {name: found[name] for name in ("model", "revision", "generated_at") if name in found}
    return {**about, **more, "items": list_filter.apply(found["items"], n)}


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
