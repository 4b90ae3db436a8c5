"""Services name themselves in Redis while they run; whatever else stands there is said, and hides nothing."""

from __future__ import annotations

import os
import socket
from typing import Any

import orjson
import pytest

from recsys.errors import RecsysError
from recsys.redis import Store, open_store
from recsys.redis.heartbeat import ending_told, heartbeat
from recsys.redis.service_registry import TTL_S, ApiFacts, ConsumerFacts, Facts, TrainerFacts
from recsys.runtime.clock import now
from recsys.settings import Settings, secrets
from tests.services import wait_until

FACTS: list[Facts] = [
    ConsumerFacts(
        partitions={0: 12.5, 3: 0.0}, records_per_s=12.5, p50_ms=8.0, p99_ms=20.0, model="v1", paused=True,
        kafka_silent_s=2.0, dead_letters={"the record is empty": 3}, checks={"tls-expiry": "warning"},
    ),
    TrainerFacts(next_round_at=now()),
    ApiFacts(missing=["kafka"], model="v1"),
]  # fmt: skip
KINDS = ["consumer", "trainer", "api"]


def keys_of_entries(store: Store) -> list[str]:
    prefix = store.services._keys.service("")
    return [key for keys in store.connection.scan(f"{prefix}*", kind=None) for key in keys]


@pytest.mark.parametrize(("facts", "kind"), list(zip(FACTS, KINDS, strict=True)), ids=KINDS)
def test_a_service_is_there_with_what_it_tells_until_it_stops(
    store: Store, facts: Facts, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recsys.runtime.repeating._LONGEST_WAIT_S", 240.0)  # a busy machine
    begun = now()
    with heartbeat(store, lambda: facts):
        (entry,) = wait_until(lambda: store.services.read().entries, "it has told")
        assert (entry.kind, entry.host, entry.pid) == (kind, socket.gethostname(), os.getpid())
        assert entry.facts == facts
        assert begun <= entry.since <= entry.at <= now()
        (key,) = keys_of_entries(store)
        left_s = store.connection.client.pttl(key) / 1000
        assert 0 < left_s <= TTL_S
        assert store.trainer.is_alive() == (kind == "trainer")  # to which `recsys retrain` looks
    assert not store.services.read().entries
    assert keys_of_entries(store) == []
    assert not store.trainer.is_alive()


def test_what_a_service_tells_is_told_again_and_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recsys.redis.heartbeat.TTL_S", 0.3)
    told = iter(range(1_000_000))
    with heartbeat(store, lambda: ConsumerFacts(records_per_s=next(told))):
        seen = wait_until(lambda: store.services.read().entries, "it has told")[0]
        later = wait_until(
            lambda: [one for one in store.services.read().entries if one.facts != seen.facts], "it tells again"
        )[0]
        assert later.since == seen.since
        assert later.at > seen.at


def test_a_trainer_that_waits_takes_no_requests(store: Store) -> None:
    with heartbeat(store, lambda: TrainerFacts(waiting_for="Kafka is away")):
        (entry,) = wait_until(lambda: store.services.read().entries, "it has told")
        assert entry.facts == TrainerFacts(waiting_for="Kafka is away")
        assert not store.trainer.is_alive()


def test_what_ends_neither_the_heartbeat_nor_the_service(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recsys.redis.heartbeat.TTL_S", 0.3)
    failures = iter([ValueError("nobody thought of it"), None])

    def facts() -> Facts:
        if (failure := next(failures, None)) is not None:
            raise failure
        return ApiFacts()

    with heartbeat(store, facts):
        wait_until(lambda: store.services.read().entries, "it tells after all")


@pytest.mark.parametrize(("facts", "kind"), list(zip(FACTS, KINDS, strict=True))[:2], ids=KINDS[:2])
def test_why_a_service_has_ended_is_there_for_an_hour_or_until_one_of_its_kind_runs_again(
    store: Store, facts: Facts, kind: Any
) -> None:
    hushed = "hunter2-and-more"
    secrets.remember([hushed])
    with pytest.raises(RecsysError), ending_told(store, kind):
        raise RecsysError(f"too many\n{hushed} " + 2_000 * "x")
    (ending,) = store.services.read().endings
    assert (ending.kind, ending.host) == (kind, socket.gethostname())
    assert ending.why.startswith("too many\\n")
    assert hushed not in ending.why
    assert len(ending.why) == 1_000
    assert 3_500 < store.connection.client.ttl(store.services._keys.ending(kind)) <= 3_600
    with pytest.raises(ValueError, match="nobody"), ending_told(store, kind):
        raise ValueError("nobody thought of it")
    (ending,) = store.services.read().endings
    assert ending.why == "unexpected error: ValueError: nobody thought of it"
    with heartbeat(store, lambda: facts):
        wait_until(lambda: store.services.read().entries, "one runs again")
        assert not store.services.read().endings


def test_a_service_that_is_told_to_stop_leaves_nothing(store: Store) -> None:
    with ending_told(store, "consumer"):
        pass
    with pytest.raises(KeyboardInterrupt), ending_told(store, "consumer"):
        raise KeyboardInterrupt
    assert not store.services.read().endings


def test_a_damaged_ending_is_named(store: Store) -> None:
    store.connection.client.set(store.services._keys.ending("consumer"), b'{"kind": "consumer"}')
    found = store.services.read()
    assert not found.endings
    assert "service:consumer:ended is damaged" in found.damaged[0]


def test_names_of_services_that_were_killed_are_removed_by_a_trainer(store: Store) -> None:
    services = store.services
    killed, alive = services.new_name(ConsumerFacts()), services.new_name(ConsumerFacts())
    for name in (killed, alive):
        services.say_alive(name, ConsumerFacts(), since=now(), at=now())
    store.connection.client.pexpire(services._keys.service(killed), 1)
    wait_until(lambda: len(services.read().entries) == 1, "the entry of the killed one expires")
    with heartbeat(store, TrainerFacts):
        wait_until(lambda: len(services._names()) == 2, "its name is removed")
    assert alive in services._names()


def entry(**changed: object) -> bytes:
    """Return an entry of a consumer, with changes; None leaves a field out."""
    at = now().isoformat()
    fields: dict[str, object] = {
        "kind": "consumer", "host": "h", "pid": 1, "version": "0.1.0", "since": at, "at": at, "facts": {},
    }  # fmt: skip
    return orjson.dumps({name: value for name, value in {**fields, **changed}.items() if value is not None})


DAMAGED = [
    b"{", b"[]", b"\xff", b"null", entry(kind="other"), entry(kind=None), entry(host="a\nb"),
    entry(host="h" * 257), entry(pid=-1), entry(pid="1"), entry(at="yesterday"), entry(at="2026-01-01T00:00:00"),
    entry(facts=[]),
    entry(facts={"p99_ms": -1}), entry(facts={"partitions": {"x": 1}}), entry(facts={"partitions": {"0": "fast"}}),
    entry(facts={"dead_letters": {f"reason {number}": 1 for number in range(33)}}),
    entry(facts={"checks": {"tls-expiry": "bad"}}),
    entry(facts={"dead_letters": {"\x1b[31m": 1}}), b'{"a": "' + b"x" * 70_000 + b'"}',
]  # fmt: skip


@pytest.mark.parametrize("value", DAMAGED, ids=range(len(DAMAGED)))
def test_a_damaged_entry_is_named_and_the_others_are_read(store: Store, value: bytes) -> None:
    services, client = store.services, store.connection.client
    services.say_alive(services.new_name(ApiFacts()), ApiFacts(), since=now(), at=now())
    name = "consumer:0123456789ab"
    client.sadd(services._keys.services, name)
    client.set(services._keys.service(name), value)
    found = services.read()
    assert [one.kind for one in found.entries] == ["api"]
    (problem,) = found.damaged
    assert f"{services._keys.service(name)} is damaged" in problem
    assert "delete it" in problem
    assert len(problem) < 600


def test_keys_of_another_kind_and_names_that_are_none_are_named(store: Store) -> None:
    services, client = store.services, store.connection.client
    client.sadd(services._keys.services, "consumer:0123456789ab", "nonsense", b"\xff\xfe", "api:0123456789ab\n")
    client.sadd(services._keys.service("consumer:0123456789ab"), "a set")
    found = services.read()
    assert len(found.entries) == 0
    assert len(found.damaged) == 4
    client.delete(services._keys.services)
    client.set(services._keys.services, "text")
    assert "services is damaged" in services.read().damaged[0]


def test_a_registry_of_very_many_names_is_not_read(store: Store) -> None:
    services = store.services
    store.connection.client.sadd(services._keys.services, *(f"api:{number:012x}" for number in range(1_001)))
    found = services.read()
    assert "it holds 1,001 names" in found.damaged[0]


def test_fields_of_later_releases_are_passed_over(store: Store) -> None:
    services, client = store.services, store.connection.client
    name = "consumer:0123456789ab"
    client.sadd(services._keys.services, name)
    client.set(services._keys.service(name), entry(facts={"new": {"a": 1}}, later="x"))
    assert [one.host for one in services.read().entries] == ["h"]


def test_a_service_goes_on_while_redis_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recsys.redis.heartbeat.TTL_S", 0.3)
    told: list[Facts] = []

    def facts() -> Facts:
        told.append(ApiFacts())
        return told[-1]

    nobody = Settings.model_validate({"redis": {"url": "redis://127.0.0.1:1/0"}})
    with open_store(nobody) as store, heartbeat(store, facts):
        wait_until(lambda: len(told) >= 2, "it tries again")
