"""The list of a user as an app gets it, made from what is cached: their own one, else the popular one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from api.lists import Listed, ListFilter, parse_list
from api.services import Services, no_lists
from recsys.api_schemas import MOST_ITEMS, Source
from recsys.errors import RedisUnavailable
from recsys.redis.async_reader import UserList

UserAnswer = dict[str, Any]
"""The fields of `recsys.api_schemas.Recommendations`."""
LISTS_PER_TURN = 100
"""After so many lists other requests get their turn: a thousand lists take as long as many requests."""
_SPARE_ITEMS = 6
"""Items of a list that are parsed beyond those asked for, in place of those that may not be shown."""


async def user_lists(services: Services, users: Sequence[str], list_filter: ListFilter, n: int) -> list[UserAnswer]:
    """Return the list of each user, in order: what `GET /v1/users/{user_id}/recommendations` answers.

    Parameters
    ----------
    services : Services
    users : sequence of str
        A user may come more than once.
    list_filter : ListFilter
        What may be shown.
    n : int
        Items per list.

    Raises
    ------
    ProblemError
        When there is not even a popular list.
    """
    reader, metrics = services.reader, services.metrics
    include_purchased = services.settings.ranking.include_purchased
    try:
        # Read: all lists, and the revisions of the users' histories, in one round trip.
        cached = await reader.user_lists(users)
        n_parsed = n + _SPARE_ITEMS if list_filter.category is None else MOST_ITEMS
        lists: list[dict[str, Any] | None] = []
        for one in cached:
            lists.append(_parse(one, n_parsed))
            if len(lists) % LISTS_PER_TURN == 0:
                await asyncio.sleep(0)

        # Freshness: a list that is older than the history may hold what the user has bought since.
        older = {} if include_purchased else _items_of_older_lists(users, cached, lists)
        purchased = await reader.owned_among(older) if older else {}

        # Filter, titles: what is left of the user's own list.
        answers: list[UserAnswer | None] = []
        for user, one, own in zip(users, cached, lists, strict=True):
            items = [] if own is None else _items_to_show(own, one, list_filter, n, purchased.get(user))
            answers.append(None if own is None or not items else _personal_answer(user, own, items))
            if len(answers) % LISTS_PER_TURN == 0:
                await asyncio.sleep(0)

        # Fallback: the popular list, for those who have no list of which anything is left.
        without = [user for user, found in zip(users, answers, strict=True) if found is None]
        revisions = {user: one.revision for user, one in zip(users, cached, strict=True)} if without else {}
        popular = iter(await _popular_answers(services, without, revisions, list_filter, n) if without else ())
        metrics.lists.labels(Source.PERSONAL).inc(len(users) - len(without))
        metrics.lists.labels(Source.POPULAR).inc(len(without))
        return [next(popular) if found is None else found for found in answers]
    except RedisUnavailable:
        return [_stale_answer(services, user, list_filter, n) for user in users]


def _parse(cached: UserList, n_items: int) -> dict[str, Any] | None:
    """Parse as many items of a list as are likely to be needed; all of them if the user's history is newer."""
    own = parse_list(cached.content, n_items)
    if own is None or type(own.get("revision")) is not int:
        return None
    return own if own["revision"] == cached.revision else parse_list(cached.content)


def _items_of_older_lists(
    users: Sequence[str], cached: Sequence[UserList], lists: Sequence[dict[str, Any] | None]
) -> dict[str, list[str]]:
    """Return the items of each list that was made before the newest purchase of its user."""
    return {
        user: [item["item_id"] for item in own["items"]]
        for user, one, own in zip(users, cached, lists, strict=True)
        if own is not None and own["revision"] != one.revision
    }


def _items_to_show(
    own: dict[str, Any], cached: UserList, list_filter: ListFilter, n: int, purchased: frozenset[str] | None
) -> list[Listed]:
    """Return the first n items of a user's list that may be shown."""
    items = list_filter.apply(own["items"], n, owned=purchased)
    if len(items) < n <= len(own["items"]) and cached.content is not None:  # there may be more than were parsed
        items = list_filter.apply((parse_list(cached.content) or own)["items"], n, owned=purchased)
    return items


async def _popular_answers(
    services: Services, users: Sequence[str], revisions: dict[str, int], list_filter: ListFilter, n: int
) -> list[UserAnswer]:
    """Return the popular list, of the category if one is wanted, for each user without what they own.

    A user whose history has no revision owns nothing.
    """
    reader = services.reader
    content = in_category = await reader.popular(list_filter.category)
    if content is None and list_filter.category is not None:
        content = await reader.popular()
    popular = parse_list(content)
    if popular is None or services.live.histories_missing:  # there is no model yet, or Redis was emptied
        return [_stale_answer(services, user, list_filter, n) for user in users]
    if in_category is None:  # the popular list of all categories is read for its model and time only
        popular["items"] = []
    owned: dict[str, frozenset[str]] = {}
    if not services.settings.ranking.include_purchased:
        ids = [item["item_id"] for item in popular["items"]]
        owned = await reader.owned_among({user: ids for user in users if revisions[user]})
    for_anybody = list_filter.apply(popular["items"], n)
    return [
        _popular_answer(
            user,
            popular,
            list_filter.apply(popular["items"], n, owned=owned[user]) if owned.get(user) else for_anybody,
        )
        for user in users
    ]


def _stale_answer(services: Services, user: str, list_filter: ListFilter, n: int) -> UserAnswer:
    """Return the popular list as it was when Redis last answered; raise 503 if there never was one."""
    popular = services.live.popular
    if popular is None:
        raise no_lists()
    services.metrics.stale.inc()
    return _popular_answer(user, popular, list_filter.apply(popular["items"], n), stale=True)


def _personal_answer(user: str, own: dict[str, Any], items: list[Listed]) -> UserAnswer:
    return {
        "user_id": user,
        "source": "personal",
        "stale": False,
        "model": own["model"],
        "revision": own["revision"],
        "generated_at": own["generated_at"],
        "items": items,
    }


def _popular_answer(user: str, popular: dict[str, Any], items: list[Listed], *, stale: bool = False) -> UserAnswer:
    return {
        "user_id": user,
        "source": "popular",
        "stale": stale,
        "model": popular["model"],
        "generated_at": popular["generated_at"],
        "items": items,
    }
