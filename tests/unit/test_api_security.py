from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request

from api.problems import ProblemError
from api.security import Audit, Caller, Keyring, RateLimiter, Role
from recsys.errors import SettingsError
from recsys.settings import ApiSettings

KEY, OTHER = "a-key-of-twenty-characters", "another-key-of-some-characters"


def request(address: str | None = "127.0.0.1", **headers: str) -> Request:
    names = {"host": "localhost:8000", **{name.replace("_", "-"): value for name, value in headers.items()}}
    scope: dict[str, Any] = {
        "type": "http",
        "method": "GET",
        "path": "/v1/popular",
        "client": None if address is None else (address, 1234),
        "headers": [(name.encode(), value.encode()) for name, value in names.items()],
        "app": FastAPI(),
    }
    return Request(scope)


def bearer(key: str) -> Request:
    return request("192.0.2.7", authorization=f"Bearer {key}")


def status(keyring: Keyring, asked: Request, role: Role = Role.READ) -> int:
    try:
        keyring.authorize(asked, role)
    except ProblemError as error:
        return error.kind.status
    return 200


def test_each_role_may_do_what_those_before_it_may() -> None:
    keyring = Keyring([f"{role.name}:{role.name.lower()}:{KEY}-{role.name}" for role in Role])
    for own in Role:
        for needed in Role:
            assert status(keyring, bearer(f"{KEY}-{own.name}"), needed) == (200 if own >= needed else 403)


def test_a_key_is_replaced_while_both_are_valid() -> None:
    keyring = Keyring([f"shop:read:{KEY}", f"shop:read:{OTHER}"])
    assert keyring.caller(bearer(KEY)) == keyring.caller(bearer(OTHER)) == Caller("shop", Role.READ)


def test_an_entry_need_not_hold_the_key_itself(capsys: pytest.CaptureFixture[str]) -> None:
    from recsys.cli.app import app

    app(["key", "shop", "write"], standalone_mode=False)
    key, entry = (line.rsplit(" ", 1)[1] for line in capsys.readouterr().out.splitlines())
    assert key not in entry
    assert Keyring([entry]).caller(bearer(key)) == Caller("shop", Role.WRITE)
    assert status(Keyring([entry]), bearer(entry.rpartition(":")[2])) == 401  # the digest is no key


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", f"Basic {KEY}", KEY, f"Bearer {KEY}x", "Bearer é"])
def test_whoever_has_no_valid_key_is_told_to_send_one(header: str) -> None:
    keyring = Keyring([f"shop:read:{KEY}"])
    asked = request(authorization=header) if header else request()
    with pytest.raises(ProblemError) as told:
        keyring.caller(asked)
    assert told.value.kind.status == 401
    assert told.value.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (request(), 200),
        (request("::1", host="[::1]:8000"), 200),
        (request("192.0.2.7"), 403),
        (request(None), 403),
        (request("not an address"), 403),
        (request(x_forwarded_for="192.0.2.7"), 403),
        (request(forwarded="for=192.0.2.7"), 403),
        (request(sec_fetch_site="same-origin"), 200),  # the page at /docs
        (request(sec_fetch_site="cross-site"), 403),
        (request(host="shop.example"), 403),  # a page of a browser on this machine, by DNS rebinding
    ],
)
def test_without_keys_only_programs_on_this_machine_may_read(asked: Request, expected: int) -> None:
    keyring = Keyring([])
    assert status(keyring, asked) == expected
    assert status(keyring, asked, Role.WRITE) == 403


@pytest.mark.parametrize(
    "name",
    [
        "Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Port",
        "X-Forwarded-Server", "X-Forwarded", "X_Forwarded_For", "X-Real-IP", "X-Client-IP", "Client-IP",
        "True-Client-IP", "X-Cluster-Client-IP", "Fastly-Client-IP", "CF-Connecting-IP", "CF-Connecting-IPv6", "CF-Ray",
        "CDN-Loop", "X-Original-URL", "X-Original-Host", "X-Original-Forwarded-For", "X-Rewrite-URL", "X-Host",
        "X-Remote-IP", "X-Remote-Addr", "X-ProxyUser-Ip", "Proxy-Connection", "X-Envoy-External-Address",
        "X-Amzn-Trace-Id", "X-Azure-ClientIP", "X-Sucuri-ClientIP", "X-Nf-Client-Connection-Ip", "Fly-Client-IP",
        "X-Scheme", "X-Url-Scheme", "Front-End-Https", "SSL-Client-Cert", "X-Varnish", "X-HTTP-Host-Override",
        "Max-Forwards", "X-Cloud-Trace-Context", "Akamai-Origin-Hop", "X-AppEngine-User-IP",
    ],
)  # fmt: skip
def test_whatever_marks_a_request_as_forwarded_ends_the_rule_of_this_machine(name: str) -> None:
    for value in ("192.0.2.7", "127.0.0.1", ""):
        assert status(Keyring([]), request(**{name.lower(): value})) == 403, value
    assert status(Keyring([f"shop:read:{KEY}"]), request("127.0.0.1", authorization=f"Bearer {KEY}")) == 200


def test_what_programs_of_this_machine_send_of_themselves_is_no_mark() -> None:
    usual = (
        "accept accept-encoding accept-language authorization baggage cache-control connection content-length "
        "content-type cookie dnt expect idempotency-key if-none-match keep-alive pragma priority range referer "
        "sec-ch-ua-platform sec-gpc te traceparent tracestate transfer-encoding upgrade-insecure-requests user-agent "
        "x-correlation-id x-csrf-token x-request-id x-requested-with x-schemathesis-testcaseid"
    )
    assert status(Keyring([]), request(**dict.fromkeys(usual.split(), "x"))) == 200


@pytest.mark.parametrize(
    "origin", ["http://[zz]", "http://[::1", "null", "", "http://", "//[", "https://shop.example", "http://a@[v1.x]"]
)
def test_an_origin_that_is_none_of_this_machine_is_refused_also_if_it_cannot_be_read(origin: str) -> None:
    assert status(Keyring([]), request(origin=origin)) == 403


@pytest.mark.parametrize("name", ["host", "origin", "sec-fetch-site"])
def test_a_header_that_comes_twice_must_be_right_twice(name: str) -> None:
    asked = request(origin="http://localhost:3000", sec_fetch_site="same-origin")
    assert status(Keyring([]), asked) == 200
    asked.scope["headers"].append((name.encode(), b"http://shop.example"))
    assert status(Keyring([]), Request(asked.scope)) == 403


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ("shop", "cannot be read"),
        ("shop:read", "cannot be read"),
        ("sh op:read:x", "cannot be read"),
        (f"shop:admin:{KEY}", "no such role"),
        ("shop:read:tooshort", "fewer than 20"),
        ("shop:read:sha256:abc", "fewer than 20"),
    ],
)
def test_a_wrong_entry_is_named_without_its_key(entry: str, problem: str) -> None:
    with pytest.raises(SettingsError, match=problem) as told:
        Keyring([f"good:read:{KEY}", entry])
    assert "entry 2" in str(told.value)
    assert KEY not in str(told.value)
    assert "tooshort" not in str(told.value)


def test_keys_come_from_a_file_with_comments(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(f"# the shop's\nshop:read:{KEY}  # since May\n\nold:write:{OTHER}#\n")
    keyring = Keyring.of(ApiSettings(keys_file=str(path)))
    assert [keyring.caller(bearer(key)).name for key in (KEY, f"{OTHER}#")] == ["shop", "old"]
    with pytest.raises(SettingsError, match="KEYS_FILE: cannot read"):
        Keyring.of(ApiSettings(keys_file=str(tmp_path / "none")))
    with pytest.raises(ValueError, match="only one of them"):
        ApiSettings.model_validate({"keys": f"shop:read:{KEY}", "keys_file": str(path)})


def is_allowed(rates: RateLimiter, name: str) -> bool:
    try:
        rates.spend(name)
    except ProblemError:
        return False
    return True


def test_a_key_has_its_rate_and_a_second_s_worth_at_once() -> None:
    now = [0.0]
    rates = RateLimiter(5, clock=lambda: now[0])

    def allowed(name: str) -> int:
        return sum(is_allowed(rates, name) for _ in range(100))

    assert allowed("a") == 5
    assert allowed("b") == 5  # keys do not share
    now[0] += 0.6
    assert allowed("a") == 3
    now[0] += 100
    assert allowed("a") == 5


def test_a_slow_rate_says_how_long_to_wait() -> None:
    rates = RateLimiter(0.1, clock=lambda: 0.0)
    rates.spend("a")
    with pytest.raises(ProblemError) as told:
        rates.spend("a")
    assert told.value.headers["Retry-After"] == "11"


def test_no_rate_is_no_limit() -> None:
    rates = RateLimiter(0)
    for _ in range(1_000):
        rates.spend("a")


def test_the_audit_file_gets_a_line_for_each_action(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    audit = Audit(str(path))
    audit.note(request(), Caller("ops", Role.OPERATE), 202)
    for _ in range(100):  # whoever has no key cannot fill the disk
        audit.note(request(None), Caller("", Role.READ), 401)
    audit.note(request(), Caller("ops", Role.OPERATE), 202, "forget u")
    first, second, *more = map(json.loads, path.read_text().splitlines())
    assert (first["key"], first["action"], first["status"]) == ("ops", "GET /v1/popular", 202)
    assert second["status"] == 401
    assert len(more) < 20
    assert more[-1]["action"] == "forget u"
    with pytest.raises(SettingsError, match="AUDIT_FILE: cannot write"):
        Audit(str(tmp_path / "no folder" / "audit.jsonl"))
