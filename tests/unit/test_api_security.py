from __future__ import annotations

import json
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request
from pydantic import SecretStr

import api.security
from api.key_watch import today_utc
from api.problems import Kind, ProblemError
from api.rates import RateLimiter
from api.security import Audit, Caller, Keyring, Role, ensure_may
from recsys.errors import SettingsError
from recsys.runtime.logs import LineFormatter, in_json, in_words
from recsys.settings import ApiSettings, Settings, secrets
from recsys.settings.key_entries import parse_entry, secrets_in_entry
from recsys.settings.section import secrets_of
from tests.builders import give_to_another_user

KEY, OTHER = "a-key-of-twenty-characters", "another-key-of-some-characters"
SECRET = "Zq3xv7Kp1mWn9Rt5Ly2Hc8"  # noqa: S105 - of these tests only


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
        ensure_may(keyring.caller(asked), role)
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
        # those that no list of such names had, and those that somebody will invent
        "Forwarded-For", "Forwarded-Proto", "X-Forward-For", "X-Forwarder-For", "X-Forwarded-Anything",
        "X-Original-Any",
        "X-Coming-From", "X-From", "X-Client", "X-RemoteAddr", "X-Port", "X-Server-Name", "X-Country-Code", "X-Geo",
        "X-Visitor", "X-Origin", "X-Edge-Location", "X-Nginx", "X-LB", "X-Hop", "X-Gateway", "X-Tenant", "Remote-User",
        "True-Client", "Traefik", "Ali-Real", "Tencent-Leakscan", "EagleEye-Id", "Surrogate-Capability", "Any-New-Name",
    ],
)  # fmt: skip
def test_whatever_marks_a_request_as_forwarded_ends_the_rule_of_this_machine(name: str) -> None:
    for value in ("192.0.2.7", "127.0.0.1", ""):
        with pytest.raises(
            ProblemError, match=f"header {name.lower().replace('_', '-')} may be that of a proxy"
        ) as told:
            Keyring([]).caller(request(**{name.lower(): value}))
        assert told.value.kind.status == 403
    assert status(Keyring([f"shop:read:{KEY}"]), request("127.0.0.1", authorization=f"Bearer {KEY}")) == 200


def test_what_programs_of_this_machine_send_of_themselves_is_no_mark() -> None:
    usual = (
        "accept accept-encoding accept-language authorization baggage cache-control connection content-length "
        "content-type cookie dnt expect idempotency-key if-none-match keep-alive pragma priority range referer "
        "sec-ch-ua-platform sec-gpc te traceparent tracestate transfer-encoding upgrade-insecure-requests user-agent "
        "x-correlation-id x-csrf-token x-request-id x-requested-with"
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
        ("shop:read:sha256:abc", "64 hexadecimal digits"),
        (f"shop:read@tomorrow:{KEY}", "is no day"),
        (f"shop:read@2026-02-30:{KEY}", "is no day"),
        (f"shop:read@20270131:{KEY}", "is no day"),
        (f"{SECRET}:read:shop", "fewer than 20"),
        (f"{SECRET}:shop:read", "no such role"),
        (f"shop:{SECRET}:read", "no such role"),
        (f"read:{SECRET}:shop", "no such role"),
        (f"read:shop:{SECRET}", "no such role"),
        (f"shop:read@{SECRET}:{KEY}", "is no day"),
        (SECRET, "cannot be read"),
        (f"{SECRET}:read", "cannot be read"),
    ],
)
def test_a_wrong_entry_is_named_without_any_part_of_it(entry: str, problem: str) -> None:
    with pytest.raises(SettingsError, match=problem) as told:
        Keyring([f"good:read:{KEY}", entry])
    assert "entry 2" in str(told.value)
    for part in (KEY, SECRET, "tooshort"):
        assert part not in str(told.value)
    assert {part for part in (KEY, SECRET) if part in entry} == set(secrets_in_entry(entry)) & {KEY, SECRET}


def test_a_key_ends_with_its_last_day(monkeypatch: pytest.MonkeyPatch) -> None:
    keyring = Keyring([f"shop:read@2026-11-30:{KEY}", f"shop:read:{OTHER}"])
    for day, expected in ((29, 200), (30, 200), (31, 401)):
        today = date(2026, 11, 1) + timedelta(days=day - 1)
        monkeypatch.setattr(api.security, "today_utc", lambda today=today: today)
        assert status(keyring, bearer(KEY)) == expected
        assert status(keyring, bearer(OTHER)) == 200
    with pytest.raises(ProblemError, match="key shop ended with 2026-11-30; ask for a new one") as told:
        keyring.caller(bearer(KEY))
    assert told.value.kind is Kind.EXPIRED_KEY
    assert told.value.headers["WWW-Authenticate"].startswith("Bearer")
    prolonged = Keyring([f"shop:read@2026-11-30:{KEY}", f"shop:write@2027-11-30:{KEY}"])
    assert prolonged.caller(bearer(KEY)).role is Role.WRITE
    assert [(key.place, at_s) for key, at_s in keyring.ends()] == [(1, 1_796_083_200.0)]


def test_a_key_that_is_made_for_some_days_ends_after_them(capsys: pytest.CaptureFixture[str]) -> None:
    from recsys.cli.app import app

    app(["key", "shop", "write", "--days", "30"], standalone_mode=False)
    _, entry = (line.rsplit(" ", 1)[1] for line in capsys.readouterr().out.splitlines())
    made = parse_entry(1, entry)
    assert made.last_day is not None
    assert abs((made.last_day - today_utc()).days - 30) <= 1
    assert (made.name, made.role, made.holds_key) == ("shop", "write", False)


def test_people_are_told_of_keys_that_end(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.security, "today_utc", lambda: date(2026, 11, 28))
    days = {"old": "2026-11-27", "new": "2026-11-28", "soon": "2026-12-12", "later": "2026-12-13"}
    Keyring([f"{name}:read@{day}:{KEY}" for name, day in days.items()]).say_what_to_mend()
    assert [record.getMessage() for record in caplog.records] == [
        "key old (entry 1) ended with 2026-11-27; recsys key old read makes the next one",
        "key new (entry 2) ends with 2026-11-28, in 0 days; recsys key new read makes the next one",
        "key soon (entry 3) ends with 2026-12-12, in 14 days; recsys key soon read makes the next one",
    ]


def test_keys_come_from_a_file_with_comments(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(f"# the shop's\nshop:read:{KEY}  # since May\n\nold:write:{OTHER}#\n")
    keyring = Keyring.of(ApiSettings(keys_file=str(path)))
    assert [keyring.caller(bearer(key)).name for key in (KEY, f"{OTHER}#")] == ["shop", "old"]
    with pytest.raises(SettingsError, match="KEYS_FILE: cannot read"):
        Keyring.of(ApiSettings(keys_file=str(tmp_path / "none")))
    path.write_bytes(b"shop:read:\xff")
    with pytest.raises(SettingsError, match="keys is not UTF-8 text"):
        Keyring.of(ApiSettings(keys_file=str(path)))
    with pytest.raises(ValueError, match="only one of them"):
        ApiSettings.model_validate({"keys": f"shop:read:{KEY}", "keys_file": str(path)})


def test_a_key_may_end_on_the_last_day_there_is() -> None:
    ((_, at_s),) = Keyring([f"shop:read@9999-12-31:{KEY}"]).ends()
    assert at_s == 253_402_300_800.0


@pytest.mark.parametrize("mode", [0o666, 0o620, 0o602])
def test_a_file_of_keys_that_others_can_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "keys"
    path.write_text(f"shop:read:{KEY}")
    path.chmod(mode)
    with pytest.raises(SettingsError, match=f"may write into .*mode {mode:04o}.*chmod 600"):
        Keyring.of(ApiSettings(keys_file=str(path)))


def test_a_file_of_keys_that_belongs_to_another_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for content in (KEY, f"sha256:{'1a' * 32}"):  # whoever writes digests lets keys in as well
        path = tmp_path / "keys"
        path.write_text(f"shop:read:{content}")
        assert len(Keyring.of(ApiSettings(keys_file=str(path)))) == 1
        with monkeypatch.context() as patched:
            give_to_another_user(path, patched)
            with pytest.raises(SettingsError, match=r"KEYS_FILE: .*/keys, .*another user"):
                Keyring.of(ApiSettings(keys_file=str(path)))
        path.unlink()


@pytest.mark.parametrize(
    ("mode", "key", "warned"), [(0o644, KEY, True), (0o640, KEY, False), (0o444, f"sha256:{'1a' * 32}", False)]
)
def test_a_file_of_keys_that_others_can_read_is_warned_of_unless_it_has_digests_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int, key: str, warned: bool
) -> None:
    path = tmp_path / "keys"
    path.write_text(f"shop:read:{key}")
    path.chmod(mode)
    Keyring.of(ApiSettings(keys_file=str(path))).say_what_to_mend()
    assert [str(path) in record.getMessage() for record in caplog.records] == [True] * warned
    assert KEY not in caplog.text


def test_keys_of_a_file_are_hidden_in_what_is_logged(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(f"shop:read:{SECRET}")
    Keyring.of(ApiSettings(keys_file=str(path)))
    assert SECRET not in secrets.hidden_in(f"a library quotes {SECRET}")


def test_every_key_of_the_setting_is_hidden_in_what_is_logged() -> None:
    keys = SecretStr(f"a:read:{KEY} b:read@2030-01-01:{OTHER}\n,c:read:sha256:{'1a' * 32}")
    assert set(secrets_of(Settings(api=ApiSettings(keys=keys)))) >= {KEY, OTHER}
    assert "1a" * 32 not in set(secrets_of(Settings(api=ApiSettings(keys=keys))))


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
    for name in ("", "reader"):  # whoever may do nothing cannot fill the disk
        for _ in range(100):
            audit.note(request(None), Caller(name, Role.READ), 403 if name else 401)
    for number in range(100):
        audit.note(request(), Caller("ops", Role.OPERATE), 202, forgotten=[f"u{number}"])
    first, *others = map(json.loads, path.read_text().splitlines())
    assert (first["key"], first["action"], first["status"]) == ("ops", "GET /v1/popular", 202)
    assert 20 <= sum(line["status"] > 400 for line in others) < 40
    assert [line["action"] for line in others if line["status"] == 202] == [
        f"forget u{number}" for number in range(100)
    ]
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(SettingsError, match="AUDIT_FILE: cannot write"):
        Audit(str(tmp_path / "no folder" / "audit.jsonl"))


def test_how_many_refusals_were_left_out_stands_in_the_next_line(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    audit = Audit(str(path))
    for _ in range(50):
        audit.note(request(), Caller("shop", Role.WRITE), 403, forgotten=["u"])
    audit.note(request(), Caller("shop", Role.WRITE), 202)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert (len(lines) - 1) + lines[-1]["left_out"] == 50


def test_audit_lines_print_nothing_that_could_mislead_a_reader(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "audit.jsonl"
    caplog.set_level("INFO", "api.audit")
    user = "a\u202eb\u2028c\x1b[2J\x9b\x7f\ufeff\u00e9\U000e0001"
    Audit(str(path)).note(request(), Caller("ops", Role.OPERATE), 202, forgotten=[user])
    for text in (path.read_text(), LineFormatter(in_json).format(caplog.records[0])):
        assert text.strip("\n").isprintable()
        assert json.loads(text)["action"] == f"forget {user}"
    in_log = LineFormatter(in_words).format(caplog.records[0])
    assert in_log.isprintable()
    assert "\u00e9" in path.read_text()  # what can be read stays
    assert "\u00e9" in in_log


def test_the_audit_file_is_for_its_owner_and_no_link(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_text("before\n")
    path.chmod(0o666)
    Audit(str(path)).note(request(), Caller("ops", Role.OPERATE), 202)
    assert path.stat().st_mode & 0o777 == 0o640
    assert path.read_text().startswith("before\n{")
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(SettingsError, match="symbolic link"):
        Audit(str(tmp_path / "link"))
    with pytest.raises(SettingsError, match="cannot write"):
        Audit(str(tmp_path))
    with pytest.raises(SettingsError, match="it is no file"):
        Audit("/dev/null")
