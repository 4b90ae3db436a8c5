"""Keys that are sent: right ones, wrong ones, and floods of them."""

from __future__ import annotations

import logging
from collections import Counter

import pytest

import api.key_watch
from api.key_watch import TRIES_AT_ONCE, KeyWatch
from api.problems import ProblemError
from api.security import Keyring
from tests.unit.test_api_security import KEY, OTHER, request

HOUR_S = 3600.0


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Watched:
    """A keyring with two keys, and what its watch tells."""

    def __init__(self, *entries: str) -> None:
        self.clock, self.refused, self.used = Clock(), Counter[str](), Counter[int]()
        self.watch = KeyWatch(
            on_use=lambda entry: self.used.update([entry.place]),
            on_refused=lambda why: self.refused.update([why]),
            clock=self.clock,
        )
        self.keyring = Keyring(entries or [f"shop:read:{KEY}", f"shop:read:{OTHER}"], watch=self.watch)

    def status(self, key: str, host: str = "192.0.2.7", **headers: str) -> int:
        try:
            self.keyring.caller(request(host, authorization=f"Bearer {key}", **headers))
        except ProblemError as error:
            self.problem = error
            return error.kind.status
        return 200


def test_an_address_that_tries_wrong_keys_must_wait_and_no_other() -> None:
    watched = Watched()
    assert [watched.status(f"wrong-{n}") for n in range(TRIES_AT_ONCE)] == [401] * TRIES_AT_ONCE
    assert [watched.status(f"wrong-{n}") for n in range(1000)] == [429] * 1000
    assert watched.problem.headers["Retry-After"] == "4"
    assert watched.status(KEY) == 429  # not looked at, so that what is answered says nothing of it
    assert watched.status(KEY, "192.0.2.8") == 200
    watched.clock.now += 4
    assert watched.status(KEY) == 200
    assert watched.refused == {"wrong": TRIES_AT_ONCE, "slowed": 1001}


def test_headers_that_name_another_address_change_nothing() -> None:
    watched = Watched()
    statuses = [watched.status(f"wrong-{n}", x_forwarded_for=f"198.51.100.{n}") for n in range(TRIES_AT_ONCE + 5)]
    assert statuses[TRIES_AT_ONCE:] == [429] * 5


def test_wrong_keys_shut_no_client_out_who_shares_the_address() -> None:
    watched = Watched()
    assert watched.status(KEY) == 200  # it is a proxy, with clients behind it
    assert [watched.status(f"wrong-{n}") for n in range(TRIES_AT_ONCE + 5)][-5:] == [429] * 5
    assert watched.status(KEY) == watched.status(OTHER) == 200
    watched.clock.now += HOUR_S - 1
    assert [watched.status(f"wrong-{n}") for n in range(TRIES_AT_ONCE + 1)][-1] == 429
    assert watched.status(KEY) == 200
    watched.clock.now += HOUR_S + 1
    assert [watched.status(f"wrong-{n}") for n in range(TRIES_AT_ONCE + 1)][-1] == 429
    assert watched.status(KEY) == 429  # for more than an hour no right key had come from there


def test_a_whole_network_of_ipv6_counts_as_one_address() -> None:
    watched = Watched()
    for n in range(TRIES_AT_ONCE):
        watched.status(f"wrong-{n}", f"2001:db8:1:2::{n:x}")
    assert watched.status("wrong", "2001:db8:1:2:ffff::1") == 429
    assert watched.status("wrong", "2001:db8:1:3::1") == 401
    for n in range(TRIES_AT_ONCE):
        watched.status(f"wrong-{n}", f"::ffff:192.0.2.{n}")
    assert watched.status("wrong", "::ffff:192.0.2.200") == 401


def test_floods_from_many_addresses_are_not_all_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.rates._MOST_NAMES", 100)
    monkeypatch.setattr("api.key_watch._MOST_ADDRESSES", 100)
    watched = Watched()
    for n in range(1000):
        watched.status("wrong", f"10.0.{n // 256}.{n % 256}")
        watched.status(KEY, f"10.0.{n // 256}.{n % 256}")
    assert len(watched.watch._tries._buckets) == len(watched.watch._known) == 100


def test_a_flood_of_wrong_keys_is_said_in_few_lines(caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched()
    for n in range(6000):  # ten a second, for ten minutes
        watched.status(f"wrong-{n}")
        watched.clock.now += 0.1
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == "wrong keys sent so far: 1, the last one from 192.0.2.7"
    assert 4 <= len(lines) <= 8
    assert not any("wrong-" in line for line in lines)
    watched.clock.now += HOUR_S
    watched.status("wrong")
    assert caplog.records[-1].getMessage().startswith("wrong keys sent so far: 6001,")


def test_requests_without_a_key_are_counted_and_use_up_no_tries(caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched()
    for n in range(100):
        with pytest.raises(ProblemError) as told:
            watched.keyring.caller(request("192.0.2.7", authorization=("Basic abc", "Bearer ", "")[n % 3]))
        assert told.value.kind.status == 401
    assert watched.refused == {"missing": 100}
    assert watched.status(KEY) == 200
    assert all(record.levelno < logging.WARNING for record in caplog.records)


def test_the_last_use_of_each_key_is_noted_and_said_once_an_hour(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    watched = Watched()
    for _ in range(7201):  # a request a second, for two hours
        watched.status(OTHER)
        watched.status(OTHER)
        watched.clock.now += 1
    assert [record.getMessage() for record in caplog.records] == ["key shop (entry 2) is in use, from 192.0.2.7"] * 3
    assert watched.used == {2: 7201}


def test_a_key_that_ends_soon_is_warned_of_while_it_is_used(caplog: pytest.LogCaptureFixture) -> None:
    day = api.key_watch.today_utc().isoformat()
    watched = Watched(f"shop:read@{day}:{KEY}", f"old:read@2026-01-31:{OTHER}")
    for _ in range(3):
        assert watched.status(KEY) == 200
        assert watched.status(OTHER) == 401
    warned = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warned == [
        f"key shop (entry 1) ends with {day}, in 0 days; recsys key shop read makes the next one",
        "key old (entry 2) ended with 2026-01-31 and is still sent, from 192.0.2.7; "
        "recsys key old read makes the next one",
    ]
    assert watched.refused == {"expired": 3}
