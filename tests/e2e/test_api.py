"""The HTTP API with everything behind it: Kafka, Redis, consumer, trainer."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from recsys.api_schemas import Retrain
from recsys.client import Client
from recsys.errors import ApiError
from recsys.redis import Store
from tests.api import N_USERS, SOLD_OUT, Asked, asked_by, category_of
from tests.services import Api, Shop, wait_until

pytestmark = pytest.mark.kafka


@pytest.fixture
def client(api: Api) -> Iterator[Client]:
    with asked_by(api, "operate").client() as opened:
        yield opened


def ids(answer: dict[str, Any]) -> list[str]:
    return [item["item_id"] for item in answer["items"]]


def users() -> list[str]:
    return [f"user-{number}" for number in range(N_USERS)]


def test_a_users_list_is_the_one_in_redis_with_titles_and_categories(reader: Asked, api_store: Store) -> None:
    cached = api_store.users.lists(["user-1"])[0]
    assert cached is not None
    answer = reader.json("/v1/users/user-1/recommendations?n=7")
    assert [(item["item_id"], item["score"]) for item in answer["items"]] == [
        (item["item_id"], item["score"]) for item in cached["items"][:7]
    ]
    assert {name: answer[name] for name in ("user_id", "source", "stale", "model", "revision", "generated_at")} == {
        "user_id": "user-1",
        "source": "personal",
        "stale": False,
        **{name: cached[name] for name in ("model", "revision", "generated_at")},
    }
    for item in answer["items"]:
        assert item["title"] == f"Title of {item['item_id']}"
        assert item["category"] == category_of(item["item_id"])


def test_a_user_without_a_list_gets_the_popular_one(reader: Asked, api_store: Store) -> None:
    popular = api_store.item_lists.popular()
    assert popular is not None
    answer = reader.json("/v1/users/nobody/recommendations?n=5")
    assert answer["source"] == "popular"
    assert ids(answer) == ids(popular)[:5]
    assert "revision" not in answer


def test_lists_can_be_narrowed_to_a_category_and_items_left_out(reader: Asked, api_store: Store) -> None:
    whole = reader.json("/v1/users/user-2/recommendations?n=50")
    category = category_of(ids(whole)[0])
    expected = [item for item in ids(whole) if category_of(item) == category]
    assert ids(reader.json(f"/v1/users/user-2/recommendations?n=50&category={category}")) == expected
    first, second, third = ids(whole)[:3]
    left = reader.json(f"/v1/users/user-2/recommendations?n=1&exclude={first}&exclude={second}")
    assert ids(left) == [third]


def test_a_category_without_items_in_the_users_list_is_answered_by_what_is_popular_in_it(
    reader: Asked, api_store: Store
) -> None:
    answer = reader.json("/v1/users/nobody/recommendations?n=3&category=Taste 2")
    popular = api_store.item_lists.popular("Taste 2")
    assert popular is not None
    assert (answer["source"], ids(answer)) == ("popular", ids(popular)[:3])
    assert reader.json("/v1/users/nobody/recommendations?category=no such")["items"] == []


def test_bulk_is_the_same_as_one_by_one_in_order_and_with_duplicates(reader: Asked) -> None:
    wanted = [*users(), "nobody", "user-3", *(f"new-{n}" for n in range(1_000 - N_USERS - 3)), "user-3"]
    assert len(wanted) == 1_000
    results = reader.json("/v1/recommendations", "POST", json={"user_ids": wanted, "n": 4})["results"]
    assert [result["user_id"] for result in results] == wanted
    alone = {user: reader.json(f"/v1/users/{user}/recommendations?n=4") for user in [*users(), "nobody", "new-7"]}
    for result in results:
        assert result == alone.get(result["user_id"], {**alone["nobody"], "user_id": result["user_id"]})
    assert reader("/v1/recommendations", "POST", json={"user_ids": [*wanted, "x"]}).status_code == 422


def test_hidden_items_disappear_at_once_and_come_back(reader: Asked, client: Client) -> None:
    item = ids(reader.json("/v1/users/user-4/recommendations"))[0]
    assert client.hide(item).model_dump() == {"item_id": item, "hidden": True, "known": True}
    path = "/v1/users/user-4/recommendations"  # each request is on a connection of its own, so to either worker
    wait_until(lambda: all(item not in ids(reader.json(path)) for _ in range(10)), "both workers know", 5)
    bulk = reader.json("/v1/recommendations", "POST", json={"user_ids": ["user-4"]})["results"][0]
    assert item not in ids(bulk)
    assert item not in ids(reader.json("/v1/popular?n=240"))
    client.unhide(item)
    wait_until(lambda: all(item in ids(reader.json(path)) for _ in range(10)), "it is back", 5)
    assert not client.hide("no such item").known
    client.unhide("no such item")


def test_what_was_bought_since_the_list_was_made_is_left_out(reader: Asked, api_store: Store, api_shop: Shop) -> None:
    """The consumer has applied a purchase, but the list is not written anew yet."""
    client: Any = api_store.connection.client
    keys = api_store.users._keys
    bought, kept = ids(reader.json("/v1/users/user-5/recommendations"))[:2]
    recs = client.get(keys.recs("user-5"))
    client.hset(keys.history("user-5"), bought, "1|1795000000")
    client.hset(keys.history("user-5"), kept, "-1|1795000000")  # given back before it was bought: not owned
    client.hincrby(keys.applied("user-5"), "revision", 1)
    try:
        assert client.get(keys.recs("user-5")) == recs
        found = ids(reader.json("/v1/users/user-5/recommendations"))
        assert bought not in found
        assert kept in found
        bulk = reader.json("/v1/recommendations", "POST", json={"user_ids": ["user-6", "user-5"]})["results"]
        assert ids(bulk[1]) == found
        for n in (40, 44, 49, 50):  # also where all that was parsed is needed
            assert bought not in ids(reader.json(f"/v1/users/user-5/recommendations?n={n}"))
    finally:
        client.hdel(keys.history("user-5"), bought, kept)
        client.hincrby(keys.applied("user-5"), "revision", -1)


def test_a_purchase_over_http_changes_that_users_list(client: Client) -> None:
    user = f"buyer-{time.time_ns()}"
    assert client.recommendations(user).source == "popular"
    done = client.purchases([{"user_id": user, "item_id": "item-041"}, {"user_id": user, "item_id": "item-042"}])
    assert (done.accepted, done.rejected) == (2, 0)
    wait_until(lambda: client.recommendations(user).source == "personal", "the list is there")
    owned = client.history(user)
    assert {item.item_id for item in owned.items} == {"item-041", "item-042"}
    assert not {item.item_id for item in client.recommendations(user, 50).items} & {"item-041", "item-042"}


def test_times_are_posted_in_any_unit_and_digits_of_a_date_are_none(client: Client, reader: Asked) -> None:
    user = f"unit-{time.time_ns()}"
    written = [1_790_000_000, 1_790_000_000_000, 1_790_000_000_000_000, "2026-09-21T14:13:20Z"]
    client.purchases([{"user_id": user, "item_id": f"item-{n:03d}", "timestamp": at} for n, at in enumerate(written)])
    wait_until(lambda: client.history(user).total == 4, "all are applied")
    assert {item.newest_event for item in client.history(user).items} == {"2026-09-21T14:13:20Z"}
    for at in (20_260_921, 20_260_921_141_320, 20_717, 0):
        with pytest.raises(ApiError) as refused:
            client.purchases([{"user_id": user, "item_id": "item-001", "timestamp": at}])
        assert re.search("is no time from 1990-01-01 to 20[0-9-]{8}, in s, ms", str(refused.value))
    for late in ("9999-12-31T23:59:59Z", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 90_000))):
        with pytest.raises(ApiError, match=r"is in the future: later than .*, a day after it was sent"):
            client.purchases([{"user_id": user, "item_id": "item-001", "timestamp": late}])


def test_query_parameters_that_are_unknown_are_named_and_ignored(reader: Asked) -> None:
    known = reader("/v1/popular?n=3")
    assert "warning" not in known.headers
    more = reader("/v1/popular?n=3&brand=Acme&brand=Other&caf%C3%A9=&" + "x" * 500 + "=1")
    assert more.json() == known.json()
    assert more.headers["warning"] == (
        f'299 recsys "query parameters that are unknown here, and ignored: brand, caf%C3%A9, {"x" * 40}"'
    )
    assert "warning" not in reader("/livez").headers


def test_an_event_that_is_posted_twice_counts_once(client: Client, api: Api) -> None:
    writer = asked_by(api, "write")
    user = f"again-{time.time_ns()}"
    event = {"user_id": user, "item_id": "item-050", "quantity": 2}
    basket = [event, event]  # two lines of one basket are two purchases
    for _ in range(3):
        sent = writer("/v1/purchases", "POST", json=basket, headers={"Idempotency-Key": f"order of {user}"})
        assert sent.status_code == 202
    with_id = {**event, "item_id": "item-051", "event_id": f"{user}:1"}
    for _ in range(2):
        assert writer("/v1/purchases", "POST", json=with_id).status_code == 202
    writer("/v1/purchases", "POST", json={**event, "item_id": "item-052"})
    wait_until(lambda: client.history(user).total == 3, "all are applied")
    quantities = {item.item_id: item.quantity for item in client.history(user).items}
    assert quantities == {"item-050": 4.0, "item-051": 2.0, "item-052": 2.0}


def test_events_that_break_rules_are_told_of_one_by_one_and_the_others_published(api: Api) -> None:
    writer = asked_by(api, "write")
    mixed = writer("/v1/purchases", "POST", json=[{"user_id": "mixed", "item_id": "item-001"}, {"item_id": ""}, 7])
    assert mixed.status_code == 202
    told = mixed.json()
    assert (told["accepted"], told["rejected"]) == (1, 2)
    assert [result["status"] for result in told["results"]] == ["accepted", "rejected", "rejected"]
    assert {rule["field"] for rule in told["results"][1]["errors"]} == {"user_id", "item_id"}

    none = writer("/v1/purchases", "POST", json=[{"user_id": "x", "item_id": "y", "quantity": -1}, {"user_id": "x"}])
    assert none.status_code == 422
    assert {rule["field"] for rule in none.json()["errors"]} == {"body.0.quantity", "body.1.item_id"}
    deep = b'{"user_id": "deep", "item_id": "i", "more": ' + b"[" * 900 + b"]" * 900 + b"}"
    assert writer("/v1/purchases", "POST", content=deep, headers={"Idempotency-Key": "k"}).status_code in (202, 422)
    for body in (b"[", b"[]", b'"text"', json.dumps([{"user_id": "x"}] * 1_001).encode(), b'{"user_id": "\xff"}'):
        refused = writer("/v1/purchases", "POST", content=body)
        assert (refused.status_code, refused.headers["content-type"]) == (422, "application/problem+json")


def test_only_operators_have_users_erased(api: Api, client: Client) -> None:
    forget = [{"user_id": "kept", "type": "forget"}]
    refused = asked_by(api, "write")("/v1/purchases", "POST", json=forget)
    assert refused.status_code == 422
    assert refused.json()["errors"] == [{"field": "body.0.type", "message": "a forget needs the role operate"}]
    assert client.purchases(forget).accepted == 1
    assert ": forget kept: 202" in api.said()


def test_a_basket_of_a_visitor_is_what_the_same_purchases_would_give(client: Client) -> None:
    user = f"same-{time.time_ns()}"
    client.purchases(
        [{"user_id": user, "item_id": "item-081", "quantity": 2}, {"user_id": user, "item_id": "item-085"}]
    )
    wait_until(lambda: client.recommendations(user).source == "personal", "the list is there")
    own = client.recommendations(user, 20)
    popular = client.popular(1).items[0].item_id
    assert popular not in [item.item_id for item in client.basket({"no such": 1, popular: 1}, n=50).items]
    basket = client.basket({"item-081": 2, "item-085": 1, "no such": 3}, n=20)
    assert (basket.source, basket.unknown_items) == ("personal", ["no such"])
    assert [item.item_id for item in basket.items] == [item.item_id for item in own.items]
    assert [item.score for item in basket.items] == pytest.approx([item.score for item in own.items], abs=2e-5)
    more = client.basket({"item-085": 1}, user_id=user, n=20)
    assert not {item.item_id for item in more.items} & {"item-081", "item-085"}
    assert client.basket({"no such": 1}).source == "popular"


def test_the_parts_of_explanations_sum_to_the_scores_of_lists(client: Client) -> None:
    for user in users()[:20]:
        for item in client.recommendations(user, 5).items:
            why = client.explanation(user, item.item_id)
            assert why.score == pytest.approx(item.score, abs=1e-4)
            parts = sum(part.contribution for part in why.contributions) + why.demand + why.habit
            assert parts == pytest.approx(why.score, abs=1e-6)
            assert not why.owned
            assert len(why.contributions) == client.history(user).total
    best = client.recommendations("user-1", 1).items[0].item_id
    whole, largest = client.explanation("user-1", best), client.explanation("user-1", best, top=2)
    assert (whole.others, whole.other_items) == (0, 0)
    assert largest.contributions == whole.contributions[:2]
    assert largest.other_items == len(whole.contributions) - 2 > 0
    assert sum(part.contribution for part in largest.contributions) + largest.others == pytest.approx(
        largest.score - largest.demand - largest.habit, abs=1e-6
    )
    owned = client.history("user-1").items[0].item_id
    assert client.explanation("user-1", owned).owned
    assert client.explanation("user-1", SOLD_OUT).hidden
    assert client.explanation("nobody", "item-001").contributions == []


@pytest.mark.parametrize("top", ["0", "-1", "1001", "few", "2.5", ""])
def test_a_top_that_is_none_is_refused(reader: Asked, top: str) -> None:
    refused = reader(f"/v1/users/user-1/recommendations/item-001/explanation?top={top}")
    assert refused.status_code == 422
    assert [rule["field"] for rule in refused.json()["errors"]] == ["query.top"]


def test_similar_popular_and_again_lists_are_those_in_redis(reader: Asked, api_store: Store) -> None:
    similar, again = api_store.item_lists.similar("item-003"), api_store.users.again_lists(["user-1"])[0]
    assert similar is not None
    assert again is not None
    assert ids(reader.json("/v1/items/item-003/similar?n=20")) == ids(similar)[:20]
    assert ids(reader.json("/v1/users/user-1/again")) == ids(again)
    assert reader.json("/v1/users/nobody/again") == {"user_id": "nobody", "items": []}
    popular = api_store.item_lists.popular("Taste 1")
    assert popular is not None
    assert ids(reader.json("/v1/popular?category=Taste 1&n=40")) == ids(popular)


def test_what_is_not_known_is_said_to_be(reader: Asked) -> None:
    for path, name in (
        ("/v1/items/no-such/similar", "unknown-item"),
        ("/v1/users/user-1/recommendations/no-such/explanation", "unknown-item"),
        ("/v1/popular?category=no such", "unknown-category"),
        ("/v1/nothing", "not-found"),
        ("/v1/users//recommendations", "not-found"),
    ):
        answer = reader(path)
        assert (answer.status_code, answer.json()["type"]) == (404, f"urn:recsys:problem:{name}")
        assert answer.headers["content-type"] == "application/problem+json"
    assert reader("/v1/popular", "PUT").headers["allow"] == "GET"


def test_ids_may_hold_anything_that_events_allow(client: Client, reader: Asked) -> None:
    assert client.recommendations("..").user_id == ".."
    assert client.recommendations(".").user_id == "."
    user = f"a/b?c#d%2F{{é}} ☂ {time.time_ns()}"
    item = "x/y z"
    client.purchases([{"user_id": user, "item_id": "item-001"}, {"user_id": user, "item_id": item}])
    wait_until(lambda: client.history(user).total == 2, "both are applied")
    assert client.recommendations(user).user_id == user
    assert {owned.item_id for owned in client.history(user).items} == {"item-001", item}
    client.hide(item)
    client.unhide(item)
    for wrong in ("a%00b", "a%0Ab", "%FF", "x" * 257):
        assert reader(f"/v1/users/{wrong}/recommendations").status_code == 422


def test_an_etag_saves_what_has_not_changed(reader: Asked) -> None:
    path = "/v1/users/user-9/recommendations?n=3"
    tag = reader(path).headers["etag"]
    same = reader(path, headers={"If-None-Match": f'"other", W/{tag}'})
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)
    assert reader(f"{path}&exclude={ids(reader.json(path))[0]}", headers={"If-None-Match": tag}).status_code == 200
    assert reader(path).headers["cache-control"] == "private, no-cache"
    assert reader("/v1/popular").headers["etag"]
    head = reader(path, "HEAD")
    assert (head.status_code, head.content, head.headers["etag"]) == (200, b"", tag)


def test_operators_retrain_look_roll_back_and_erase(client: Client, api_store: Store, api_shop: Shop) -> None:
    first = next(model.version for model in client.models().models if model.role == "live")
    asked = client.start_retrain(force=True)

    def outcome() -> Retrain | None:
        found = client.retrain(asked.id)
        return None if found.state in ("waiting", "running") else found

    done = wait_until(outcome, "the round is done")
    assert done.state == "succeeded", done
    roles = {model.version: model.role for model in client.models().models}
    assert roles == {done.version: "live", first: "previous"}

    accepted = client.rollback(first)
    assert (accepted.version, accepted.live_before) == (first, done.version)
    wait_until(
        lambda: any(r.kind == "rollback" and r.state == "succeeded" for r in client.models().rounds), "it is done"
    )
    assert {model.version: model.role for model in client.models().models}[first] == "live"
    rollback = client.models().rounds[0]
    assert (rollback.asked_by, rollback.version) == ("operateer", first)

    for missing in (lambda: client.retrain(99), lambda: client.rollback("20200101T000000Z-aaaaaa")):
        with pytest.raises(ApiError) as told:
            missing()
        assert told.value.status == 404

    client.purchases([{"user_id": "erased", "item_id": "item-001"}])
    wait_until(lambda: client.history("erased").total == 1, "it is applied")
    client.forget("erased")
    wait_until(lambda: client.history("erased").total == 0, "all of the user is gone")
    assert api_store.users.lists(["erased"]) == [None]
    api_shop.recsys("verify", "--all")


def test_counts_of_all_workers_are_told_by_any(reader: Asked) -> None:
    def requests() -> float:
        text = reader("/metrics").text
        return sum(
            float(line.split()[-1])
            for line in text.splitlines()
            if line.startswith("recsys_api_requests_total") and "/v1/popular" in line and 'status="200"' in line
        )

    before = requests()
    for _ in range(20):  # each on a connection of its own, so to either worker
        reader.json("/v1/popular")
    assert [requests() for _ in range(5)] == [before + 20] * 5
