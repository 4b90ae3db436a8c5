"""What a user gets: their own list, what is left of it after a purchase, or the popular one."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, cast

import orjson
import pytest

from api.lists import ListFilter
from api.metrics import ApiMetrics
from api.problems import ProblemError
from api.services import Services
from api.user_lists import UserAnswer, user_lists
from recsys.errors import RedisUnavailable
from recsys.redis.async_reader import UserList
from recsys.settings import RankingSettings, Settings
from recsys.storage.catalogue import Item

EVERYTHING = ListFilter((), {})
STAMP = {"model": "m1", "generated_at": "2026-11-22T10:15:02.113Z"}


def cached(*items: str, revision: int = 3, history: int = 3) -> UserList:
    """Return a list that was made from a revision of the user's history, which now has another one."""
    listed = [{"item_id": item, "score": 1.0} for item in items]
    return UserList(orjson.dumps({**STAMP, "revision": revision, "items": listed}), history)


class Redis:
    """What Redis holds, for requests; it counts round trips."""

    def __init__(
        self,
        lists: Mapping[str, UserList],
        *,
        owned: Mapping[str, Sequence[str]] | None = None,
        popular: Mapping[str | None, Sequence[str]] | None = None,
        is_away: bool = False,
    ) -> None:
        self._lists = lists
        self._owned = owned or {}
        self._popular = popular or {}
        self._is_away = is_away
        self.asked: list[str] = []

    async def user_lists(self, users: Sequence[str]) -> list[UserList]:
        self.asked.append("lists")
        if self._is_away:
            raise RedisUnavailable("away")
        return [self._lists.get(user, UserList(None, 0)) for user in users]

    async def owned_among(self, items: Mapping[str, Sequence[str]]) -> dict[str, frozenset[str]]:
        if items:
            self.asked.append("owned")
        return {user: frozenset(ids) & frozenset(self._owned.get(user, ())) for user, ids in items.items()}

    async def popular(self, category: str | None = None) -> bytes | None:
        self.asked.append("popular")
        if category not in self._popular:
            return None
        listed = [{"item_id": item, "score": 1.0} for item in self._popular[category]]
        return orjson.dumps({**STAMP, "items": listed})


def answers(
    redis: Redis,
    *users: str,
    list_filter: ListFilter = EVERYTHING,
    n: int = 2,
    last_popular: Sequence[str] | None = None,
    include_purchased: bool = False,
    histories_missing: bool = False,
) -> list[UserAnswer]:
    seen = None if last_popular is None else {**STAMP, "items": [{"item_id": item} for item in last_popular]}
    services: Any = SimpleNamespace(
        reader=redis,
        live=SimpleNamespace(popular=seen, histories_missing=histories_missing),
        metrics=ApiMetrics(),
        settings=Settings(ranking=RankingSettings(include_purchased=include_purchased)),
    )
    return asyncio.run(user_lists(cast(Services, services), users, list_filter, n))


def shown(answer: UserAnswer) -> tuple[str, str]:
    return answer["source"], "".join(item["item_id"] for item in answer["items"])


def test_the_own_list_is_one_round_trip() -> None:
    redis = Redis({"u": cached(*"abc")}, popular={None: "xyz"})
    (answer,) = answers(redis, "u")
    assert answer == {
        "user_id": "u", "source": "personal", "stale": False, "revision": 3, **STAMP,
        "items": [{"item_id": "a", "score": 1.0}, {"item_id": "b", "score": 1.0}],
    }  # fmt: skip
    assert redis.asked == ["lists"]


def test_what_was_bought_since_the_list_was_made_makes_room_for_what_follows() -> None:
    redis = Redis({"u": cached(*"abcd", history=4)}, owned={"u": "ac"})
    assert shown(answers(redis, "u")[0]) == ("personal", "bd")
    assert redis.asked == ["lists", "owned"]


def test_purchased_items_stay_where_the_shop_wants_them() -> None:
    redis = Redis({"u": cached(*"abcd", history=4)}, owned={"u": "ac"})
    assert shown(answers(redis, "u", include_purchased=True)[0]) == ("personal", "ab")
    assert redis.asked == ["lists"]


def test_many_hidden_items_are_made_up_for_by_the_list_s_end() -> None:
    items = [f"{number:02}" for number in range(30)]
    redis = Redis({"u": cached(*items)})
    hidden = ListFilter(items[:20], {})
    assert shown(answers(redis, "u", list_filter=hidden)[0]) == ("personal", "2021")


def test_a_user_without_a_list_gets_the_popular_one_without_what_they_own() -> None:
    redis = Redis({"buyer": UserList(None, 1)}, owned={"buyer": "x", "visitor": "y"}, popular={None: "xyz"})
    found = answers(redis, "buyer", "visitor")
    assert [shown(answer) for answer in found] == [("popular", "yz"), ("popular", "xy")]
    assert "revision" not in found[0]
    assert redis.asked == ["lists", "popular", "owned"]


def test_a_list_of_which_nothing_is_left_is_the_popular_one_of_the_category() -> None:
    fruit = ListFilter((), {"x": Item("", "Fruit"), "z": Item("", "Fruit")}, "Fruit")
    redis = Redis({"u": cached(*"abc")}, popular={None: "xyz", "Fruit": "zx"})
    assert shown(answers(redis, "u", list_filter=fruit)[0]) == ("popular", "zx")


def test_a_category_that_nobody_buys_is_an_empty_list_of_the_newest_model() -> None:
    redis = Redis({}, popular={None: "xyz"})
    (answer,) = answers(redis, "u", list_filter=ListFilter((), {}, "Fruit"))
    assert shown(answer) == ("popular", "")
    assert answer["model"] == "m1"


def test_each_of_many_users_gets_an_answer_in_order_even_one_who_comes_twice() -> None:
    users = [f"{number}" for number in range(150)]
    redis = Redis({user: cached(f"item-{user}") for user in users[::2]}, popular={None: "x"})
    found = answers(redis, *users, users[0])
    assert [answer["user_id"] for answer in found] == [*users, users[0]]
    assert [shown(answer)[1] for answer in found[:3]] == ["item-0", "x", "item-2"]
    assert found[-1] == found[0]


def test_while_redis_is_away_all_get_the_popular_list_as_it_was() -> None:
    found = answers(Redis({}, is_away=True), "u", "v", last_popular="pq", list_filter=ListFilter("p", {}))
    assert [(answer["user_id"], answer["stale"], *shown(answer)) for answer in found] == [
        ("u", True, "popular", "q"),
        ("v", True, "popular", "q"),
    ]


@pytest.mark.parametrize("redis", [Redis({}), Redis({}, is_away=True)])
def test_there_is_a_problem_if_there_never_was_a_popular_list(redis: Redis) -> None:
    with pytest.raises(ProblemError, match="no popular list"):
        answers(redis, "u")


def test_popular_lists_are_stale_while_histories_are_missing() -> None:
    """A part of a cluster was emptied: whoever has a list there lacks it for no reason of theirs."""
    redis = Redis({"kept": cached(*"abc")}, popular={None: "xyz"})
    found = answers(redis, "kept", "lost", last_popular="pqr", histories_missing=True)
    assert [(answer["stale"], *shown(answer)) for answer in found] == [
        (False, "personal", "ab"),
        (True, "popular", "pq"),
    ]


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b"null", b"{}", b"\xff",
        b'{"model": "m1", "generated_at": "x", "items": [], "revision": "abc"}',
        b'{"model": "m1", "generated_at": "x", "items": {}, "revision": 3}',
        b'{"model": "m1", "generated_at": "x", "items": [{"item_id": 5, "score": 1}], "revision": 3}',
        b'{"model": "m1", "generated_at": "x", "items": [{"item_id": "a", "score": "b"}], "revision": 3}',
        b'{"items": [{"item_id": "a"},{"item_id": "b"},{"item_id": "c"',
    ],
)  # fmt: skip
def test_whoever_has_a_damaged_list_gets_the_popular_one_and_nobody_else(content: bytes) -> None:
    redis = Redis({"u": UserList(content, 3), "v": cached("a", "b")}, popular={None: ["p"]})
    found = answers(redis, "u", "v")
    assert [one["source"] for one in found] == ["popular", "personal"]
    assert [[item["item_id"] for item in one["items"]] for one in found] == [["p"], ["a", "b"]]
