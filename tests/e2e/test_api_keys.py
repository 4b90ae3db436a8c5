"""Keys of the HTTP API tried as somebody would who has none, or one of little power."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from api.key_watch import TRIES_AT_ONCE
from recsys.client import Client
from recsys.errors import ApiError
from tests.api import EXPIRED_KEY, KEY_SETTING, KEYS, PATIENT, Asked
from tests.services import Api, Shop, wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.slow]
OTHER_WRITER = "other-write-key-other-write-key"
EVENT_LIMIT = 2_000
A_FLOOD = 300


@pytest.fixture(scope="module")
def audit_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("audit") / "audit.jsonl"


@pytest.fixture(scope="module")
def one_worker(api_shop: Shop, audit_file: Path) -> Api:
    """An API whose limits are counted in one place."""
    keys = f"{KEY_SETTING['RECSYS_API__KEYS']},other:write:{OTHER_WRITER}"
    settings = {**PATIENT, "RECSYS_API__KEYS": keys, "RECSYS_API__AUDIT_FILE": str(audit_file)}
    return api_shop.start_api(RECSYS_API__EVENT_LIMIT=str(EVENT_LIMIT), **settings)


@pytest.fixture
def writer(one_worker: Api) -> Asked:
    return Asked(one_worker, KEYS["write"])


@pytest.fixture
def other(one_worker: Api) -> Asked:
    return Asked(one_worker, OTHER_WRITER)


@pytest.fixture
def operator(one_worker: Api) -> Iterator[Client]:
    with Asked(one_worker, KEYS["operate"]).client() as opened:
        yield opened


def actions(audit_file: Path) -> list[tuple[str, str, int]]:
    lines = [json.loads(line) for line in audit_file.read_text().splitlines()]
    return [(line["key"], line["action"], line["status"]) for line in lines]


def quantities(client: Client, user: str) -> dict[str, float]:
    return {item.item_id: item.quantity for item in client.history(user).items}


def test_ids_that_a_key_has_used_up_are_still_free_for_all_others(
    writer: Asked, other: Asked, operator: Client, api_shop: Shop
) -> None:
    user = f"scoped-{time.time_ns()}"
    sale = {"user_id": user, "event_id": "order-900:item-001"}
    for who, item in ((writer, "item-001"), (other, "item-002")):
        for _ in range(2):  # a copy from the same key counts once
            sent = who.json("/v1/purchases", "POST", json={**sale, "item_id": item})
            assert sent["results"][0]["event_id"] == "order-900:item-001"
    (api_shop.folder / "real.csv").write_text(
        f"user_id,item_id,quantity,timestamp,event_id\n{user},item-003,1,2026-11-01T10:00:00Z,order-900:item-001\n"
    )
    api_shop.recsys("publish", "real.csv")
    for who, item in ((writer, "item-004"), (other, "item-005")):
        for _ in range(2):
            sent = who.json(
                "/v1/purchases",
                "POST",
                json={"user_id": user, "item_id": item, "timestamp": "2026-11-01T10:00:00Z"},
                headers={"Idempotency-Key": "an order"},
            )
    again = {"user_id": user, "item_id": "item-005", "event_id": sent["results"][0]["event_id"]}
    other.json("/v1/purchases", "POST", json=again)  # the id that was told is the one to send it again with
    other.json("/v1/purchases", "POST", json={"user_id": user, "item_id": "item-006"})
    wait_until(lambda: operator.history(user).total == 6, "all are applied")
    assert quantities(operator, user) == {f"item-00{number}": 1.0 for number in range(1, 7)}


def test_the_same_basket_from_two_keys_with_one_idempotency_key_counts_twice(
    writer: Asked, other: Asked, operator: Client
) -> None:
    user = f"baskets-{time.time_ns()}"
    for who in (writer, other, writer, other):
        who.json(
            "/v1/purchases", "POST", json={"user_id": user, "item_id": "item-001"}, headers={"Idempotency-Key": "x"}
        )
    writer.json("/v1/purchases", "POST", json={"user_id": user, "item_id": "item-002"})
    wait_until(lambda: operator.history(user).total == 2, "all are applied")
    assert quantities(operator, user)["item-001"] == 2.0


def test_whoever_may_not_erase_users_leaves_a_trace_of_the_try(
    one_worker: Api, writer: Asked, operator: Client, audit_file: Path
) -> None:
    user = "kept\u202e\u2028\x9b\x1b[2J"
    forget = {"user_id": user, "type": "forget"}
    assert writer("/v1/purchases", "POST", json=forget).status_code == 422
    mixed = [
        {"user_id": "kept", "item_id": "item-001"},
        *({"user_id": f"kept-{n}", "type": "forget"} for n in range(500)),
    ]
    assert writer("/v1/purchases", "POST", json=mixed).json()["rejected"] == 500
    with pytest.raises(ApiError):
        operator.purchases([{"user_id": "x" * 257, "type": "forget"}])
    operator.purchases([{"user_id": "gone-1", "type": "forget"}, {"user_id": "gone-2", "type": "forget"}])
    operator.forget("gone-3")
    found = actions(audit_file)[-6:]
    assert found[0] == ("writeer", f"forget {user}", 403)
    assert found[1][1].startswith("forget 500 users: kept-0, kept-1, ")
    assert (found[1][0], found[1][2]) == ("writeer", 403)
    assert (found[2][0], found[2][2]) == ("operateer", 422)
    assert found[3:] == [
        ("operateer", "forget gone-1", 202),
        ("operateer", "forget gone-2", 202),
        ("operateer", "DELETE /v1/users/gone-3", 202),
    ]
    assert all(line.isprintable() for text in (audit_file.read_text(), one_worker.said()) for line in text.split("\n"))
    assert audit_file.stat().st_mode & 0o777 == 0o600


def test_a_key_posts_no_more_events_than_its_limit_and_the_client_waits_for_it(
    one_worker: Api, writer: Asked, other: Asked
) -> None:
    broken = [{"user_id": "nobody"}] * 1_000  # those that break a rule are work as well
    statuses = [other("/v1/purchases", "POST", json=broken).status_code for _ in range(EVENT_LIMIT // 1_000 + 1)]
    assert statuses == [422, 422, 429]
    refused = other("/v1/purchases", "POST", json=broken)
    assert refused.json()["type"] == "urn:recsys:problem:too-many-requests"
    assert "2,000 events per minute are allowed" in refused.json()["detail"]
    assert 0 < int(refused.headers["retry-after"]) <= 31
    assert other("/v1/popular").status_code == 200
    sale = {"user_id": f"limited-{time.time_ns()}", "item_id": "item-001"}
    assert writer("/v1/purchases", "POST", json=sale).status_code == 202  # another key
    with other.client() as client:
        assert client.purchases([sale] * 200).accepted == 200


def test_what_a_missing_model_is_answered_with_says_nothing_of_where_models_are(
    operator: Client, one_worker: Api, api_shop: Shop
) -> None:
    with pytest.raises(ApiError) as told:
        operator.rollback("20200101T000000Z-aaaaaa")
    assert told.value.status == 404
    assert "20200101T000000Z-aaaaaa" in str(told.value)
    folder = api_shop.settings().data_dir
    assert folder not in str(told.value)
    assert "/" not in str(told.value).replace("/v1/models", "")
    assert f"there is no model 20200101T000000Z-aaaaaa in {folder}" in one_worker.said()


def test_the_last_use_of_each_key_is_in_the_metrics(one_worker: Api, writer: Asked, other: Asked) -> None:
    before = time.time() - 2
    other("/v1/popular")
    assert Asked(one_worker, EXPIRED_KEY)("/v1/popular").status_code == 401
    text = writer("/metrics").text
    used = dict(re.findall(r'key_last_used_timestamp_seconds\{entry="(\d+)",key="\w+",role="\w+"\} (\S+)', text))
    assert set(used) >= {"2", "5"}  # in the order of the setting: the writer, and the other one
    assert "4" not in used
    assert all(float(used[entry]) > before for entry in ("2", "5"))
    assert 'recsys_api_key_ends_timestamp_seconds{entry="4",key="former",role="operate"} 1.769904e+09' in text
    assert float(re.findall(r'refused_keys_total\{why="expired"\} (\S+)', text)[0]) >= 1
    assert (
        "key former (entry 4) ended with 2026-01-31; recsys key former operate makes the next one" in one_worker.said()
    )
    assert "key other (entry 5) is in use, from 127.0.0.1" in one_worker.said()
    assert OTHER_WRITER not in one_worker.said()


def test_wrong_keys_are_slowed_counted_and_said_in_few_lines_and_shut_nobody_out(api_shop: Shop) -> None:
    api = api_shop.start_api(**PATIENT)
    n_said = len(api.lines())
    reader = Asked(api, KEYS["read"])
    assert reader("/v1/popular").status_code == 200
    statuses = [
        Asked(api, f"guess-{n}-guess-guess-guess")(
            "/v1/popular", headers={"X-Forwarded-For": f"192.0.2.{n % 250}"}
        ).status_code
        for n in range(A_FLOOD)
    ]
    assert statuses[:TRIES_AT_ONCE] == [401] * TRIES_AT_ONCE
    assert statuses.count(429) > A_FLOOD / 2
    assert reader("/v1/popular").status_code == 200
    counted = dict(re.findall(r'refused_keys_total\{why="(\w+)"\} (\S+)', reader("/metrics").text))
    assert float(counted["wrong"]) + float(counted["slowed"]) == A_FLOOD
    for _ in range(A_FLOOD):
        assert Asked(api)("/v1/users/u", "DELETE").status_code == 401  # would be an operator's action
    said = api.lines()[n_said:]
    assert 0 < sum("wrong keys sent so far" in line for line in said) < 10
    assert len(said) < 40
    assert "guess" not in "\n".join(said)


def test_requests_that_are_none_leave_one_short_line_each_kind(api_shop: Shop) -> None:
    api = api_shop.start_api(**PATIENT)
    n_said = len(api.lines())
    host, port = api.url.removeprefix("http://").split(":")
    head = b"GET /v1/popular HTTP/1.1\r\nHost: x\r\n"
    for request in (
        b"\x16\x03\x01\x02\x00",
        b"GET http://[zz]/ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v1/pop\xff?\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        head + b"Origin: http://[zz]\r\n\r\n",
        head + b"Upgrade: websocket\r\nConnection: upgrade\r\n\r\n",
        head + b"Upgrade: h2c\r\nConnection: upgrade\r\n\r\n",
        head + b"Authorization: Bearer \xff\xfe\r\n\r\n",
        head + b"Content-Length: 99999999999999999999\r\n\r\n",
        head + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nzz",
        b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"DELETE /v1/users/%E2%80%AE%1B HTTP/1.1\r\nHost: x\r\n\r\n",
    ):
        for _ in range(20):
            with socket.create_connection((host, int(port)), timeout=30) as connection, suppress(OSError):
                connection.sendall(request)
                assert b" 500 " not in connection.recv(1_000)
    assert Asked(api)("/livez").status_code == 200
    said = api.lines()[n_said:]
    assert len(said) < 20
    assert max(map(len, said)) < 300
    assert "Traceback" not in "\n".join(said)
