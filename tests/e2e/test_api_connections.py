"""What a connection may cost before anyone has shown a key: bytes, time, places. Tried as an attacker would."""

from __future__ import annotations

import itertools
import re
import select
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from api.app import guarded_routes
from api.protocol import MOST_HEADERS, MOST_PIPELINED
from api.security import Role
from tests.api import KEYS, PATIENT, Asked, asked_by
from tests.services import Api, Shop, wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.slow]
_LARGE = b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n\r\n"
_SMALL = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
_KEY = b"Authorization: Bearer " + KEYS["write"].encode() + b"\r\n"
_MB = 1_000_000


@pytest.fixture(scope="module")
def impatient(api_shop: Shop) -> Api:
    """An API that gives its clients two seconds, and has three places."""
    return api_shop.start_api(RECSYS_API__CLIENT_TIMEOUT_S="2", RECSYS_API__MAX_CONCURRENCY="3", **PATIENT)


@contextmanager
def connected(api: Api, *, source: str = "127.0.0.1") -> Iterator[socket.socket]:
    host, port = api.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=240, source_address=(source, 0)) as connection:
        yield connection


def post(*lines: bytes, path: bytes = b"/v1/purchases") -> bytes:
    head = [b"POST " + path + b" HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n", *lines]
    return b"".join(head) + b"\r\n"


def rest_of(connection: socket.socket) -> bytes:
    """Return all that comes until the other side ends the connection."""
    found = b""
    with suppress(ConnectionError):
        while part := connection.recv(65_536):
            found += part
    return found


def drip(connection: socket.socket, part: bytes) -> bytes:
    """Send a part now and then, until the other side ends the connection; return what it has answered."""
    connection.settimeout(0.3)
    found = b""
    with suppress(ConnectionError):
        while True:
            with suppress(TimeoutError):
                if not (answered := connection.recv(65_536)):
                    break
                found += answered
            connection.sendall(part)
    return found


def answered(connections: Sequence[socket.socket]) -> list[socket.socket]:
    """Return the connections on which there is something to read."""
    return select.select(connections, [], [], 0)[0]


def sent_until_it_ends(connection: socket.socket, part: bytes, most: int) -> int:
    """Send a part again and again; return how many bytes the other side has taken before it ended the connection."""
    sent = 0
    with suppress(ConnectionError):
        while sent < most:
            sent += connection.send(part)
    return sent


def resident_bytes(api: Api) -> int:
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{api.process.pid}/status").read_text())
    assert found
    return int(found[1]) * 1024


def ended(api: Api, reason: str) -> float:
    """Return how many connections a budget has ended."""
    text = asked_by(api, "read")("/metrics").text
    found = re.search(rf'^recsys_api_connections_ended_total{{reason="{reason}"}} (\S+)$', text, flags=re.MULTILINE)
    return float(found[1]) if found else 0.0


def held(api: Api) -> int:
    found = re.search(r"^recsys_api_connections (\S+)$", asked_by(api, "read")("/metrics").text, flags=re.MULTILINE)
    assert found
    return int(float(found[1]))


@pytest.mark.parametrize("key", [b"", _KEY], ids=["stranger", "key"])
@pytest.mark.parametrize(
    ("start", "more"),
    [
        (b"0\r\n", (b"x-trailer: " + b"y" * 1000 + b"\r\n") * 60),
        (b"0\r\nx-trailer: ", b"y" * 60_000),
        (b"1;extension=", b"y" * 60_000),
    ],
    ids=["trailers", "one trailer", "chunk extension"],
)
def test_what_stands_beside_the_body_is_bounded(api: Api, key: bytes, start: bytes, more: bytes) -> None:
    with connected(api) as connection:
        connection.sendall(post(key, b"Transfer-Encoding: chunked\r\n") + start)
        assert sent_until_it_ends(connection, more, 100 * _MB) < 50 * _MB  # most of it waits in buffers of the system


def test_trailers_are_not_kept_in_memory_and_are_no_headers(impatient: Api) -> None:
    chunked = post(b"Transfer-Encoding: chunked\r\n", path=b"/v1/recommendations")
    before = resident_bytes(impatient)
    with ExitStack() as stack:
        for _ in range(20):
            connection = stack.enter_context(connected(impatient))
            connection.sendall(chunked + b"0\r\n")
            sent_until_it_ends(connection, (b"x-trailer: " + b"y" * 1000 + b"\r\n") * 60, 20 * _MB)
        assert resident_bytes(impatient) - before < 50 * _MB
    with connected(impatient) as connection:
        connection.sendall(chunked + b'12\r\n{"user_ids":["u"]}\r\n0\r\n' + _KEY + b"\r\n")
        assert rest_of(connection).startswith(b"HTTP/1.1 401")


def test_a_head_that_does_not_come_to_its_end_is_not_waited_for(impatient: Api) -> None:
    before = ended(impatient, "too_slow")
    with connected(impatient) as silent, connected(impatient) as half, connected(impatient) as dripping:
        half.sendall(b"GET /livez HTTP/1.1\r\n")
        dripping.sendall(b"GET /livez HTTP/1.1\r\n")
        assert b"HTTP/1.1 200" not in drip(dripping, b"x: y\r\n")
        assert rest_of(half).startswith(b"HTTP/1.1 408")
        assert rest_of(silent) == b""
    assert ended(impatient, "too_slow") - before == 3
    with connected(impatient) as second:
        second.sendall(_SMALL + b"GET /livez")
        assert rest_of(second).count(b"HTTP/1.1 200") == 1


def test_slow_bodies_keep_nobody_from_being_served(api_shop: Shop) -> None:
    limits = {"RECSYS_API__MAX_CONCURRENCY": "5", "RECSYS_API__CLIENT_TIMEOUT_S": "3600"}
    api = api_shop.start_api(**limits, **PATIENT)
    reader = asked_by(api, "read")
    paths = (b"/v1/recommendations", b"/v1/recommendations/basket", b"/v1/purchases")
    with ExitStack() as stack:
        slow = [stack.enter_context(connected(api)) for _ in range(12)]
        for number, connection in enumerate(slow):
            connection.sendall(post(_KEY, b"Content-Length: 1000\r\n", path=paths[number % 3]) + b"{")
        # one address may have three of five: half of them, as of connections
        wait_until(lambda: ended(api, "body_gave_way") == 9, "the oldest bodies give way")
        wait_until(lambda: len(answered(slow)) == 9, "they are told so")
        for connection in answered(slow):
            assert rest_of(connection).startswith(b"HTTP/1.1 503")
        for _ in range(10):
            assert reader("/v1/popular").status_code == 200
        for _ in range(10):
            assert reader("/v1/recommendations", "POST", json={"user_ids": ["u"]}).status_code == 200
        assert reader("/livez").status_code == 200


@pytest.mark.parametrize(("method", "path", "needed"), [found for found in guarded_routes() if found[0] != "GET"])
def test_no_body_is_waited_for_from_whoever_may_not_send_it(api: Api, method: str, path: str, needed: Role) -> None:
    address = re.sub(r"{\w+}", "1", path)
    for role in (None, *(role for role in Role if role < needed)):
        key = b"" if role is None else f"Authorization: Bearer {KEYS[role.name.lower()]}\r\n".encode()
        with connected(api) as connection:
            connection.sendall(f"{method} {address} HTTP/1.1\r\nHost: x\r\n".encode() + key)
            connection.sendall(b"Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{")
            answer = rest_of(connection)
        assert answer.startswith(b"HTTP/1.1 401" if role is None else b"HTTP/1.1 403"), role


def test_a_body_that_comes_byte_by_byte_is_waited_for_a_while_only(impatient: Api) -> None:
    before = ended(impatient, "too_slow")
    for path in (b"/v1/purchases", b"/v1/recommendations"):
        with connected(impatient) as connection:
            connection.sendall(post(_KEY, b"Content-Length: 1000\r\n", path=path))
            answer = drip(connection, b" ")
        assert b"HTTP/1.1 408" in answer
        assert b"urn:recsys:problem:body-too-slow" in answer
    assert ended(impatient, "too_slow") - before == 2
    with connected(impatient) as stranger:
        stranger.sendall(post(b"Content-Length: 1000\r\n"))
        answer = drip(stranger, b" ")
    assert answer.startswith(b"HTTP/1.1 401")
    assert answer.count(b"HTTP/1.1") == 1


def test_answers_that_nobody_reads_keep_nobody_else_from_theirs(impatient: Api) -> None:
    before = ended(impatient, "not_read")
    with ExitStack() as stack:
        for _ in range(10):
            connection = stack.enter_context(connected(impatient))
            connection.sendall(_LARGE * MOST_PIPELINED)
        for _ in range(10):
            assert asked_by(impatient, "read")("/v1/popular").status_code == 200
        wait_until(lambda: ended(impatient, "not_read") - before == 10, "they are ended")
        wait_until(lambda: held(impatient) <= 1, "nothing is kept of them")


def test_a_client_that_reads_slowly_but_reads_gets_all_of_it(api_shop: Shop) -> None:
    timeout_s = 8.0
    api = api_shop.start_api(RECSYS_API__CLIENT_TIMEOUT_S=str(timeout_s), **PATIENT)
    size = len(Asked(api)("/docs/swagger-ui-bundle.js").content)
    asked = 1 + MOST_PIPELINED
    with connected(api) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        connection.sendall(_LARGE * asked)
        began, read = time.monotonic(), 0
        while read < asked * size:
            part = connection.recv(65_536)
            assert part, f"cut off after {read:,} of {asked * size:,} bytes"
            read += len(part)
            pause_s = began + read / (asked * size) * 1.5 * timeout_s - time.monotonic()
            time.sleep(max(0.0, pause_s))  # all of it takes longer than one answer may take, each a fraction
    assert ended(api, "not_read") == 0


def test_requests_that_wait_behind_one_are_bounded_and_answered_in_order(api: Api) -> None:
    paths = [b"/livez", b"/v1/popular", b"/none"] * 3
    assert len(paths) == 1 + MOST_PIPELINED
    with connected(api) as connection:
        connection.sendall(b"".join(b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n\r\n" for path in paths))
        connection.sendall(b"")
        answers = rest_of(connection)  # until the connection has been idle for a while
    assert re.findall(rb"HTTP/1.1 (\d+)", answers) == [b"200", b"401", b"404"] * 3
    before = ended(api, "too_many_requests")
    with connected(api) as connection:
        connection.sendall(_SMALL * 1000)
        assert rest_of(connection).count(b"HTTP/1.1 200") == 1 + MOST_PIPELINED
    wait_until(lambda: ended(api, "too_many_requests") > before, "it is counted")


def test_a_request_is_answered_also_if_what_follows_it_is_none(api: Api) -> None:
    for behind in (b"{}\r\n\r\n", b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 200 + b"\r\n"):
        with connected(api) as connection:
            connection.sendall(_SMALL + behind)
            answers = rest_of(connection)
        assert answers.count(b"HTTP/1.1") == 1
        assert b'{"alive":true}' in answers


def test_whoever_holds_connections_open_keeps_nobody_out_of_their_own_address_or_another(api_shop: Shop) -> None:
    limits = {"RECSYS_API__MAX_CONNECTIONS_PER_ADDRESS": "10", "RECSYS_API__MAX_CONNECTIONS": "25"}
    api = api_shop.start_api(**limits, **PATIENT)
    with ExitStack() as stack:
        opened = {
            source: [stack.enter_context(connected(api, source=source)) for _ in range(30)]
            for source in ("127.0.0.2", "127.0.0.3", "127.0.0.4")
        }
        newest = opened["127.0.0.4"][-1]
        newest.sendall(_SMALL)
        assert newest.recv(12) == b"HTTP/1.1 200"
        assert rest_of(opened["127.0.0.2"][0]) == b""  # the oldest gave way
        for _ in range(5):
            assert asked_by(api, "read")("/v1/popular").status_code == 200
        assert held(api) <= 25
    assert ended(api, "gave_way") >= 65


def test_headers_have_a_number(api: Api) -> None:
    for number, expected in ((MOST_HEADERS - 1, b"200"), (MOST_HEADERS, b"431")):  # beside Host
        with connected(api) as connection:
            connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * number + b"\r\n")
            assert connection.recv(12) == b"HTTP/1.1 " + expected


def test_a_stranger_who_sends_much_is_told_why_it_is_refused(api: Api) -> None:
    for size in (10_000, 900_000):
        answer = Asked(api)("/v1/purchases", "POST", content=b"x" * size)
        assert (answer.status_code, answer.json()["type"]) == (401, "urn:recsys:problem:missing-key")
    with connected(api) as connection:  # the rest is not waited for
        connection.sendall(post(b"Content-Length: 1000000\r\n") + b"x")
        assert rest_of(connection).startswith(b"HTTP/1.1 401")


def test_clients_that_speak_no_http_or_go_away_fill_no_log(api_shop: Shop) -> None:
    api = api_shop.start_api(**PATIENT)
    before = len(api.lines())
    for number in range(40):
        with connected(api) as connection:
            connection.sendall(
                (b"\x16\x03\x01" * 10, b"GET [ HTTP/1.1\r\n\r\n", b"CONNECT a:1 HTTP/1.1\r\n\r\n")[number % 3]
            )
            rest_of(connection)
        with connected(api) as connection:
            connection.sendall(_LARGE * MOST_PIPELINED)
            connection.recv(1)
    wait_until(lambda: held(api) <= 1, "they are gone")
    said = api.lines()[before:]
    assert "Traceback (most recent call last):" not in said
    assert len(said) <= 2
    assert ended(api, "no_http") > 20
    assert api.stop() == 0


def test_an_offer_to_speak_another_protocol_is_passed_over(api: Api) -> None:
    for offer in (
        b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\n",
        b"Upgrade: websocket\r\nConnection: upgrade\r\n",
    ):
        with connected(api) as connection:
            for _ in range(2):
                connection.sendall(_SMALL[:-2] + offer + b"\r\n")
                answer = b""
                while not answer.endswith(b'{"alive":true}'):  # head and body may come one after the other
                    part = connection.recv(65_536)
                    assert part, answer
                    answer += part


_HOSTILE = [
    "", " ", "http://[zz]", "[", "::", "-1", "9" * 5000, "\u00ff\u00fe", 'a=b;c="', ";=,\\", "bytes=9-1", "*", 'W/"',
    "%zz%00", 'for="[zz]:x"', "text/html;q=zz", "multipart/form-data", "charset=no-such", "Thu, 99 Foo", "1" * 30_000,
]  # fmt: skip
_PARSED = [
    "Accept", "Accept-Charset", "Accept-Encoding", "Accept-Language", "Access-Control-Request-Headers",
    "Access-Control-Request-Method", "Authorization", "Connection", "Content-Encoding", "Content-Length",
    "Content-Type", "Cookie", "Date", "Expect", "Forwarded", "Host", "Idempotency-Key", "If-Match", "If-Modified-Since",
    "If-None-Match", "If-Range", "Origin", "Range", "Referer", "Sec-Fetch-Site", "TE", "Traceparent",
    "Transfer-Encoding", "Upgrade", "User-Agent", "X-Forwarded-For",
]  # fmt: skip
_PATHS = (b"GET /v1/popular", b"POST /v1/recommendations", b"OPTIONS /v1/popular")


@pytest.mark.parametrize("keys", [{}, pytest.param(PATIENT, marks=pytest.mark.slow)], ids=["without keys", "with keys"])
def test_no_header_is_an_error_of_ours_whatever_it_holds(api_shop: Shop, keys: dict[str, str]) -> None:
    api = api_shop.start_api(RECSYS_API__CORS_ORIGINS='["https://shop.example"]', **keys)
    key = _KEY if keys else b""
    for number, (name, value) in enumerate(itertools.product(_PARSED, _HOSTILE)):
        length = b"" if name in ("Content-Length", "Transfer-Encoding") else b"Content-Length: 2\r\n"
        line = f"{name}: {value}\r\n".encode("latin-1")
        with connected(api) as connection:
            connection.sendall(_PATHS[number % 3] + b" HTTP/1.1\r\nHost: localhost\r\n" + key + length + line)
            connection.sendall(b"\r\n{}")
            assert re.match(rb"HTTP/1.1 [1-4]", connection.recv(12)), (name, value)
    assert "Traceback" not in api.said()
    assert api.stop() == 0
