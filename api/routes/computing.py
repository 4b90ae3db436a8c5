"""What is computed when it is asked for, with the model in this process: baskets and explanations."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any, TypeVar

import anyio
from fastapi import APIRouter, Query, Request, Response

from api.lists import Listed, ListFilter, parse_list
from api.problems import Kind, ProblemError
from api.routes.common import ItemId, UserId, answer, problems
from api.security import Role, guarded
from api.services import Services, no_lists, services_of
from recsys.api_schemas import MOST_ITEMS, BasketRecommendations, BasketRequest, ScoreExplanation, Source
from recsys.data.event import UNITS_PER_QUANTITY
from recsys.data.history import Entry, History
from recsys.recommend.explain import explain
from recsys.recommend.user_lists import refresh
from recsys.runtime.clock import json_time

T = TypeVar("T")
_DECIMALS = 5
"""As cached lists have them."""
Top = Annotated[
    int | None,
    Query(ge=1, le=MOST_ITEMS, description="Only so many contributions, the largest; default: all.", examples=[3]),
]
router = APIRouter(prefix="/v1", route_class=guarded(Role.READ))


async def _computed(services: Services, work: Callable[[], T]) -> T:
    """Do work in a thread, so that other requests are answered meanwhile."""
    return await anyio.to_thread.run_sync(work, limiter=services.computing)


@router.post(
    "/recommendations/basket",
    response_model=BasketRecommendations,
    responses=problems(413),
    tags=["users"],
    summary="What goes with a basket",
)
async def basket(request: Request, wanted: BasketRequest) -> Response:
    """Fold in what is in a basket, of a visitor or on top of a user's history, and rank with the model.

    Items of the basket are not recommended. Owned items are not, unless lists include already purchased items. Nothing
    is stored.
    """
    services = services_of(request)
    live = services.model()
    entries = {} if wanted.user_id is None else await services.reader.history(wanted.user_id)
    now_s = int(time.time())
    units: dict[str, int] = {}
    for line in wanted.items:
        units[line.item_id] = units.get(line.item_id, 0) + max(1, round(line.quantity * UNITS_PER_QUANTITY))
    for item, count in units.items():
        bought = Entry.of_event(count, now_s)
        entries[item] = entries[item] + bought if item in entries else bought
    rules = services.settings.ranking
    ranked = await _computed(
        services,
        lambda: refresh(
            [History.of(entries)],
            live.model,
            n=wanted.n,
            hidden=services.live.hidden | units.keys(),
            include_purchased=rules.include_purchased,
        )[0],
    )
    rows = live.model.items.find(units)
    about: dict[str, Any] = {
        "source": Source.PERSONAL,
        "model": live.stamp.version,
        "generated_at": json_time(datetime.now(UTC)),
        "unknown_items": [item for item, row in zip(units, rows.tolist(), strict=True) if row < 0],
    }
    items: list[Listed]
    if len(ranked):
        items = [
            {"item_id": item, "score": round(score, _DECIMALS)}
            for item, score in zip(ranked.item_ids, ranked.scores, strict=True)
        ]
        list_filter = ListFilter(services.live.hidden, services.live.catalogue)
    else:
        content = await services.reader.popular()
        popular = parse_list(content) or services.live.popular
        if popular is None:
            raise no_lists()
        about |= {"source": Source.POPULAR, "model": popular["model"], "generated_at": popular["generated_at"]}
        items = popular["items"]
        owned = () if rules.include_purchased else (item for item, entry in entries.items() if entry.units > 0)
        list_filter = ListFilter(services.live.hidden, services.live.catalogue, excluded={*units, *owned})
    return answer({**about, "items": list_filter.apply(items, wanted.n)})


@router.get(
    "/users/{user_id}/recommendations/{item_id}/explanation",
    response_model=ScoreExplanation,
    responses=problems(404),
    tags=["users"],
    summary="Why an item has its score for a user",
)
async def explanation(request: Request, user_id: UserId, item_id: ItemId, top: Top = None) -> Response:
    """Return how much each owned item, and the item's recent demand, contribute to the score.

    It works for any item that the model knows, also if it is not in the user's list. With `top`, only the largest
    contributions come one by one; `others` is what the remaining ones add together.
    """
    services = services_of(request)
    live = services.model()
    entries = await services.reader.history(user_id)
    include_purchased = services.settings.ranking.include_purchased
    work = partial(explain, History.of(entries), live.model, item_id, include_purchased=include_purchased)
    try:
        found = await _computed(services, work)
    except KeyError:
        raise ProblemError(Kind.UNKNOWN_ITEM, f"the model knows no item {item_id!r}") from None
    list_filter = ListFilter((), services.live.catalogue)
    if top is not None:
        found = found.largest(top)
    body = asdict(found) | {
        "user_id": user_id,
        "item_id": item_id,
        **list_filter.about(item_id),
        "model": live.stamp.version,
        "hidden": item_id in services.live.hidden,
        "contributions": [
            {"item_id": item, "contribution": part, **list_filter.about(item)} for item, part in found.contributions
        ],
    }
    return answer(body)
