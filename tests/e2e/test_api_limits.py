"""Who may do what over HTTP, and how much."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.app import create_app, guarded_routes
from api.security import Role
from recsys.settings import Settings
from tests.api import EXPIRED_KEY, KEY_SETTING, KEYS, PATIENT, Asked, asked_by, prepare
from tests.conftest import opened_shop
from tests.services import IN_CI, NO_AUTHORITIES, Api, KafkaServer, RedisServer, Shop, wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.slow]
_SHOWN_WITHIN_MS = 20_000
_PLACEHOLDERS = {"user_id": "nobody", "item_id": "item-001", "version": "none", "id": "999999"}
_OPEN = {
    "/livez",
    "/readyz",
    "/docs",
    "/docs/start.js",
    "/docs/swagger-ui-bundle.js",
    "/docs/swagger-ui.css",
    "/openapi.json",
}


ROUTES = sorted(guarded_routes())


def test_every_address_needs_a_role_unless_it_is_meant_to_be_open() -> None:
    app = create_app(Settings())
    documented = {(method.upper(), path) for path, methods in app.openapi()["paths"].items() for method in methods}
    undocumented = {("GET", getattr(route, "path", "")) for route in app.routes} - {("GET", "")}
    assert (documented | undocumented) - {(method, path) for method, path, _ in ROUTES} == {
        ("GET", path) for path in _OPEN
    }
    assert len(ROUTES) == 17


@pytest.mark.parametrize(("method", "path", "needed"), ROUTES)
def test_each_role_reaches_what_it_may_and_nothing_else(api: Api, method: str, path: str, needed: Role) -> None:
    address = path.format(**_PLACEHOLDERS)
    body: dict[str, Any] = {"json": {}} if method == "POST" else {}
    for role in Role:
        status = asked_by(api, role.name.lower())(address, method, **body).status_code
        assert (status == 403) == (role < needed), f"{role.name}: {status}"
        assert status not in (401, 500)
    for stranger in (Asked(api), Asked(api, "no-such-key-no-such-key"), Asked(api, "")):
        refused = stranger(address, method, content=b"[" * 100)  # looked at before anything else
        assert refused.status_code == 401
        assert refused.headers["content-type"] == "application/problem+json"
        assert refused.headers["www-authenticate"].startswith("Bearer")
    ended = Asked(api, EXPIRED_KEY)(address, method, content=b"[" * 100)
    assert (ended.status_code, ended.json()["type"]) == (401, "urn:recsys:problem:expired-key")
    assert "former ended with 2026-01-31" in ended.json()["detail"]


def test_what_operators_do_is_written_down(api_shop: Shop, tmp_path: Path) -> None:
    audit = tmp_path / "audit.jsonl"
    api = api_shop.start_api(RECSYS_API__AUDIT_FILE=str(audit), **PATIENT)
    asked_by(api, "operate")("/v1/items/a%2Fb/hidden", "PUT")
    asked_by(api, "read")("/v1/items/a%2Fb/hidden", "DELETE")
    Asked(api)("/v1/users/u", "DELETE")
    asked_by(api, "operate")("/v1/retrains", "POST", json={"force": 7})
    asked_by(api, "operate")("/v1/models")  # looking changes nothing
    lines = [json.loads(line) for line in audit.read_text().splitlines()]
    assert [(line["key"], line["action"], line["status"]) for line in lines] == [
        ("operateer", "PUT /v1/items/a%2Fb/hidden", 200),
        ("reader", "DELETE /v1/items/a%2Fb/hidden", 403),
        ("", "DELETE /v1/users/u", 401),
        ("operateer", "POST /v1/retrains", 422),
    ]
    asked_by(api, "operate")("/v1/items/a%2Fb/hidden", "DELETE")
    assert api.stop() == 0
    assert all(key not in api.said() + audit.read_text() for key in KEYS.values())


def test_without_keys_this_machine_may_read_and_nothing_else(api_shop: Shop) -> None:
    api = api_shop.start_api()
    asked = Asked(api)
    assert asked("/v1/popular").status_code == 200
    for headers in ({"Host": "shop.example"}, {"X-Forwarded-For": "192.0.2.1"}):
        assert asked("/v1/popular", headers=headers).status_code == 403
    posted = asked("/v1/purchases", "POST", json={"user_id": "u", "item_id": "i"})
    assert posted.status_code == 403
    assert "there are no keys" in posted.json()["detail"]
    assert asked("/v1/models").status_code == 403
    assert (
        "there are no keys (RECSYS_API__KEYS): only programs on this machine can call the API, and only read"
        in api.said()
    )


def test_a_key_that_asks_too_often_is_told_to_wait(api_shop: Shop) -> None:
    api = api_shop.start_api(RECSYS_API__RATE_LIMIT="1", **PATIENT)
    reader, writer = asked_by(api, "read"), asked_by(api, "write")
    headers = {"Authorization": f"Bearer {KEYS['read']}"}
    with (
        httpx.Client(base_url=api.url, headers=headers, timeout=60, verify=NO_AUTHORITIES) as http,
        ThreadPoolExecutor(30) as all_at_once,  # however slow the machine is, they come faster than one a second
    ):
        answers = list(all_at_once.map(lambda _: http.get("/v1/popular"), range(30)))
        forbidden = list(all_at_once.map(lambda _: http.delete("/v1/users/u"), range(30)))
    refused = [answer for answer in answers if answer.status_code == 429]
    assert 0 < len(refused) < len(answers)
    assert int(refused[0].headers["retry-after"]) == 1
    assert {answer.status_code for answer in forbidden} <= {403, 429}
    assert 429 in {answer.status_code for answer in forbidden}  # what a key may not do counts as well
    assert refused[0].json()["type"] == "urn:recsys:problem:too-many-requests"
    assert writer("/v1/popular").status_code == 200  # another key
    assert Asked(api)("/livez").status_code == 200
    with reader.client() as client:  # waits and tries again
        assert client.popular().items


def test_a_body_that_is_too_long_is_not_taken_whatever_it_says_of_itself(api_shop: Shop) -> None:
    api = api_shop.start_api(RECSYS_API__MAX_BODY_BYTES="2000", **PATIENT)
    writer = asked_by(api, "write")
    event = {"user_id": "u", "item_id": "i", "more": "x" * 3000}
    answer = writer("/v1/purchases", "POST", json=event)
    assert (answer.status_code, answer.json()["type"]) == (413, "urn:recsys:problem:body-too-large")

    def in_parts() -> Iterator[bytes]:
        for _ in range(100):
            yield b"x" * 100

    for path in ("/v1/purchases", "/v1/recommendations", "/v1/recommendations/basket"):
        refused = writer(path, "POST", content=in_parts())
        assert (refused.status_code, refused.json()["type"]) == (413, "urn:recsys:problem:body-too-large")
    assert asked_by(api, "operate")("/v1/retrains", "POST", content=in_parts()).status_code == 413
    assert writer("/v1/purchases", "POST", json={**event, "more": ""}).status_code == 202


def test_headers_without_end_are_not_held(api_shop: Shop) -> None:
    api = api_shop.start_api(**PATIENT)
    host, port = api.url.removeprefix("http://").split(":")
    for head, more in ((b"GET / HTTP/1.1\r\n", b"x: y\r\n" * 1_000), (b"GET /", b"a" * 10_000)):
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            sent = connection.send(head)
            with suppress(OSError):  # it breaks the connection off
                while sent < 50_000_000:
                    sent += connection.send(more)
            assert sent < 20_000_000
    assert Asked(api)("/livez", headers={"x-large": "y" * 30_000}).status_code == 200
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\nx: " + b"y" * 100_000)
        assert connection.recv(100).startswith(b"HTTP/1.1 431")


def test_a_body_that_stops_coming_ends_the_request(api_shop: Shop) -> None:
    api = api_shop.start_api(RECSYS_API__CLIENT_TIMEOUT_S="1", **PATIENT)
    host, port = api.url.removeprefix("http://").split(":")
    for path in (b"/v1/purchases", b"/v1/recommendations"):  # one reads the body itself, one has it read
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            connection.sendall(
                b"POST " + path + b" HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n"
                b"Authorization: Bearer " + KEYS["write"].encode() + b"\r\n\r\n{"
            )
            answer = b"".join(iter(lambda: connection.recv(10_000), b""))
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"urn:recsys:problem:body-too-slow" in answer


def test_a_client_that_goes_away_is_no_error_of_ours(api_shop: Shop) -> None:
    api = api_shop.start_api(**PATIENT)
    host, port = api.url.removeprefix("http://").split(":")
    for _ in range(5):
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(
                b"POST /v1/purchases HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n"
                b"Authorization: Bearer " + KEYS["write"].encode() + b"\r\n\r\n{"
            )
    assert Asked(api)("/livez").status_code == 200
    assert api.stop() == 0
    assert "Traceback" not in api.said()


def test_more_requests_than_can_be_under_way_are_turned_away_at_once(kafka: KafkaServer, tmp_path: Path) -> None:
    (tmp_path / "redis").mkdir()
    (tmp_path / "shop").mkdir()
    redis = RedisServer(tmp_path / "redis")
    with ExitStack() as stack:
        redis.start()
        stack.callback(redis.kill)
        shop = stack.enter_context(opened_shop(kafka, redis.url, tmp_path / "shop"))
        prepare(shop)
        limits = {"RECSYS_API__MAX_CONCURRENCY": "3", "RECSYS_API__REDIS_TIMEOUT_MS": "60000"}
        api = shop.start_api(**KEY_SETTING, **limits)
        reader = asked_by(api, "read")
        assert reader("/v1/popular").status_code == 200
        redis.freeze()
        stack.callback(redis.thaw)
        with ThreadPoolExecutor(10) as all_at_once:
            asked = [all_at_once.submit(reader, "/v1/popular") for _ in range(10)]
            wait_until(lambda: sum(one.done() for one in asked) == 7, "all but three are refused")
            for answer in (one.result() for one in asked if one.done()):
                assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
                assert answer.json()["type"] == "urn:recsys:problem:overloaded"
            assert reader("/livez").status_code == 200
            redis.thaw()
            assert sorted(one.result().status_code for one in asked) == [200] * 3 + [503] * 7
        assert reader("/v1/popular").status_code == 200


def test_many_at_once_are_all_answered(api: Api) -> None:
    async def ask() -> set[tuple[int, str]]:
        headers = {"Authorization": f"Bearer {KEYS['read']}"}
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=api.url, headers=headers, timeout=60, limits=limits) as client:
            paths = [f"/v1/users/user-{number % 50}/recommendations" for number in range(150)]
            answers = await asyncio.gather(*map(client.get, paths))
        return {(answer.status_code, answer.json()["source"]) for answer in answers}

    assert asyncio.run(ask()) == {(200, "personal")}


def test_pages_of_named_origins_may_read_and_no_others(api_shop: Shop) -> None:
    api = api_shop.start_api(RECSYS_API__CORS_ORIGINS='["https://shop.example"]', **PATIENT)
    reader = asked_by(api, "read")
    allowed = reader("/v1/popular", headers={"Origin": "https://shop.example"})
    assert allowed.headers["access-control-allow-origin"] == "https://shop.example"
    assert (
        "access-control-allow-origin" not in reader("/v1/popular", headers={"Origin": "https://other.example"}).headers
    )
    asking = {"Origin": "https://shop.example", "Access-Control-Request-Method": "GET"}
    assert reader("/v1/popular", "OPTIONS", headers=asking).status_code == 200


def test_headers_say_how_answers_may_be_used(api: Api) -> None:
    page = Asked(api)("/docs")
    assert page.status_code == 200
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "http" not in page.text.replace("http-equiv", "")  # nothing comes from elsewhere
    assert Asked(api)("/docs/swagger-ui-bundle.js").status_code == 200
    for answer in (page, Asked(api)("/v1/popular"), Asked(api)("/none"), Asked(api)("/livez")):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "server" not in answer.headers


def test_a_service_without_purchases_says_so(api_shop: Shop) -> None:
    api = api_shop.start_api(RECSYS_API__PURCHASES="false", RECSYS_KAFKA__BOOTSTRAP_SERVERS="127.0.0.1:1", **PATIENT)
    answer = asked_by(api, "write")("/v1/purchases", "POST", json={"user_id": "u", "item_id": "i"})
    assert (answer.status_code, answer.json()["type"]) == (403, "urn:recsys:problem:purchases-disabled")
    assert asked_by(api, "operate")("/v1/users/u", "DELETE").status_code == 403


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"RECSYS_API__KEYS": "shop:read:short"}, "RECSYS_API__KEYS: entry 1: the key has fewer than 20"),
        ({"RECSYS_API__KEYS": "short-Zq3xv7Kp1mWn9Rt5:read:shop"}, "RECSYS_API__KEYS: entry 1: the key has fewer"),
        ({"RECSYS_API__KEYS": "shop:short-Zq3xv7Kp1mWn9Rt5:read"}, "RECSYS_API__KEYS: entry 1: there is no such role"),
        ({"RECSYS_API__AUDIT_FILE": "/dev/null"}, "RECSYS_API__AUDIT_FILE: cannot write /dev/null: it is no file"),
        ({"RECSYS_API__AUDIT_FILE": "/no such folder/audit"}, "RECSYS_API__AUDIT_FILE: cannot write"),
        ({"RECSYS_API__KEYS_FILE": "/no such file"}, "RECSYS_API__KEYS_FILE: cannot read"),
        ({"RECSYS_API__WORKERS": "0"}, "RECSYS_API__WORKERS"),
        ({"RECSYS_API__CORS_ORIGINS": "https://shop.example"}, "RECSYS_API__CORS_ORIGINS: must be a JSON array"),
    ],
)
def test_a_wrong_setting_ends_it_with_one_line(api_shop: Shop, settings: dict[str, str], said: str) -> None:
    done = api_shop.run("api", expect=2, **settings)
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "short" not in done.stderr


def test_a_port_that_is_taken_is_named(api_shop: Shop, api: Api) -> None:
    port = api.url.rpartition(":")[2]
    done = api_shop.run("api", expect=2, RECSYS_API__PORT=port)
    assert f"RECSYS_API__PORT: cannot listen on 127.0.0.1:{port}: Address already in use" in done.stderr


@pytest.fixture(scope="module")
def browser() -> str:
    """Chromium."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        if IN_CI:
            pytest.fail("Chromium is required in CI; apt-get install chromium")
        pytest.skip("Chromium is not installed (apt-get install chromium)")
    return path


def test_the_docs_page_shows_every_address_and_breaks_no_rule_of_its_own(
    api: Api, browser: str, tmp_path: Path
) -> None:
    command = [
        browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        f"--user-data-dir={tmp_path / 'profile'}", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        "--enable-logging=stderr", "--log-level=0", f"--virtual-time-budget={_SHOWN_WITHIN_MS}", "--dump-dom",
        f"{api.url}/docs",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    page = done.stdout
    for shown in (
        "Recommendations for a user",
        "Publish purchases",
        "Make an earlier model live again",
        "/v1/popular",
    ):
        assert shown in page, done.stderr[-2000:]
    said = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert not [line for line in said if "Content Security Policy" in line or "Refused" in line], said
