from __future__ import annotations

import logging
import resource
from dataclasses import dataclass, field

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge

from api.connections import Connections, allow_open_files, site_of
from recsys.errors import SettingsError
from recsys.settings import ApiSettings


@dataclass(eq=False)
class Client:
    """A connection."""

    waits_for_client: bool = True
    has_ended: bool = field(default=False, init=False)

    def give_way(self) -> None:
        self.has_ended = True


class Book:
    """Connections that are counted."""

    def __init__(self, most: int = 10, most_per_address: int = 10) -> None:
        registry = CollectorRegistry()
        self.now = 0.0
        self.held = Gauge("held", "", registry=registry)
        self.ended = Counter("ended", "", ["reason"], registry=registry)
        self.connections = Connections(most, most_per_address, 20.0, self.held, self.ended, clock=lambda: self.now)

    def count(self, reason: str) -> float:
        return float(self.ended.labels(reason)._value.get())


def test_the_oldest_that_waits_for_its_client_gives_way_to_a_new_one() -> None:
    book = Book(most=3)
    served, first, second, third = Client(waits_for_client=False), Client(), Client(), Client()
    for client, address in ((served, "a"), (first, "b"), (second, "c"), (third, "d")):
        assert book.connections.admit(client, address)
    assert [client.has_ended for client in (served, first, second, third)] == [False, True, False, False]
    assert book.held._value.get() == 3
    assert book.count("gave_way") == 1
    book.connections.leave(first)  # the transport tells of its end later
    assert book.held._value.get() == 3


def test_an_address_that_holds_too_many_loses_its_own() -> None:
    book = Book(most_per_address=2)
    other, *same = Client(), Client(), Client(), Client()
    assert book.connections.admit(other, "192.0.2.1")
    assert all(book.connections.admit(client, "192.0.2.2") for client in same)
    assert [client.has_ended for client in (other, *same)] == [False, True, False, False]


def test_whoever_comes_while_all_are_served_is_refused() -> None:
    book = Book(most=4, most_per_address=2)
    served = [Client(waits_for_client=False) for _ in range(4)]
    assert [book.connections.admit(client, address) for client, address in zip(served, "aabb", strict=True)] == [
        True
    ] * 4
    assert not book.connections.admit(Client(), "a")
    assert not book.connections.admit(Client(), "c")
    assert book.count("too_many") == 2
    book.connections.leave(served[0])
    assert book.connections.admit(Client(), "a")
    assert book.held._value.get() == 4


def test_nothing_is_kept_of_addresses_that_have_gone() -> None:
    book = Book()
    for number in range(100):
        client = Client()
        book.connections.admit(client, f"192.0.2.{number}")
        book.connections.leave(client)
        book.connections.leave(client)
    assert not book.connections._all
    assert not book.connections._of_address
    assert book.held._value.get() == 0


def test_what_is_ended_is_counted_and_said_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    book = Book()
    for _ in range(100):
        book.connections.note_ended("too_slow", "192.0.2.1")
    assert len(caplog.records) == 1
    assert "192.0.2.1: too_slow" in caplog.text
    book.now += 61
    book.connections.note_ended("too_slow", "192.0.2.1")
    assert len(caplog.records) == 2
    assert book.count("too_slow") == 101


@pytest.mark.parametrize(
    ("address", "site"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:aaaa::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:bbbb::2", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("not:an:address", "not:an:address"),
    ],
)
def test_who_has_one_address_of_a_site_has_all_of_them(address: str, site: str) -> None:
    assert site_of(address) == site


def test_connections_need_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: asked.append(limits))
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 4096))
    allow_open_files(ApiSettings(max_connections=800))
    assert asked == [(1000, 4096)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    allow_open_files(ApiSettings(max_connections=800))
    assert len(asked) == 1
    with pytest.raises(SettingsError, match=r"^RECSYS_API__MAX_CONNECTIONS: 5000 connections need 5200 open files"):
        allow_open_files(ApiSettings(max_connections=5000))
