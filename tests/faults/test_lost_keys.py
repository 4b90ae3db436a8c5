"""Scenario 16: Redis loses single keys and fields of users, as by eviction or by hand, while purchases arrive."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import redis

from tests.faults.conftest import Report, rounds
from tests.faults.ledger import Ledger
from tests.faults.test_members import start

pytestmark = pytest.mark.real_kafka


def lose(ledger: Ledger, user: str, what: str, chance: random.Random) -> None:
    """Lose a key of a user, or fields of one."""
    client: Any = ledger.store.connection.client
    keys = ledger.store.users._keys
    history, applied, seen, _, _ = keys.of_user(user)
    kind = chance.choice(["history", "applied", "seen", "two", "fields"]) if what == "any" else what
    if kind == "fields":
        fields = client.hkeys(history)
        client.hdel(history, *chance.sample(fields, min(len(fields), 2)) or ["none"])
    elif kind == "two":
        client.delete(*chance.sample([history, applied, seen], 2))
    else:
        client.delete({"history": history, "applied": applied, "seen": seen}[kind])


@contextmanager
def damaged_under_load(ledger: Ledger, chance: random.Random, damage: Callable[[str], None]) -> Iterator[int]:
    """Damage users while they buy, with consumer and trainer at work; yield how often, then check and stop these."""
    trainer = ledger.shop.start_trainer(RECSYS_TRAINER__INTERVAL_S="86400")
    consumer = start(ledger)
    ledger.publish(200)
    ledger.await_counted()
    faults = rounds(12, 200)
    with ledger.load(per_second=60):
        for _ in range(faults):
            damage(chance.choice(ledger._buying))
            time.sleep(0.1)
    ledger.send(ledger.one_of_each())  # whoever has lost something is met again
    yield faults
    consumer.ensure_running()
    trainer.ensure_running()
    assert trainer.stop() == 0
    assert consumer.stop() == 0


@pytest.mark.parametrize(
    "what", [*(pytest.param(key, marks=pytest.mark.slow) for key in ("history", "applied", "seen")), "any"]
)
def test_users_whose_keys_are_lost_are_made_again(ledger: Ledger, report: Report, what: str) -> None:
    chance = random.Random(what)
    with damaged_under_load(ledger, chance, lambda user: lose(ledger, user, what, chance)) as faults:
        if what == "any":  # two losses of one user, one after the other, may be all that there was
            ledger.flush()
            ledger.await_made_again()
            ledger.shop.recsys("rebuild")
        recovery_s = ledger.await_counted()
        ledger.await_made_again()
        tally = ledger.check()
    report(16, f"Keys of users are lost under load: {what}", tally, faults=faults, recovery_s=recovery_s)


def write_nonsense(ledger: Ledger, user: str, chance: random.Random) -> None:
    """Write into a key of a user what this project never writes."""
    client: Any = ledger.store.connection.client
    history, applied, seen, recs, _ = ledger.store.users._keys.of_user(user)
    kind = chance.choice(["kind", "revision", "mark", "field", "seen", "list"])
    if kind == "kind":
        key = chance.choice([history, applied, seen, recs])
        client.delete(key)
        client.rpush(key, "x")
    elif kind == "revision":
        client.hset(applied, chance.choice(["revision", "listed", "sequence"]), chance.choice(["abc", "-1", "nan"]))
    elif kind == "mark":
        client.hset(applied, "holds", "x")
    elif kind == "field":
        client.hset(history, chance.choice(["new", *map(bytes.decode, client.hkeys(history))]), "x|1")
    elif kind == "seen":
        client.set(seen, b"\xc1")
    else:
        client.set(recs, "no list")


@pytest.mark.slow
def test_users_whose_keys_hold_nonsense_are_made_again_and_the_others_served(ledger: Ledger, report: Report) -> None:
    chance = random.Random(19)

    def damage(user: str) -> None:
        with suppress(redis.ResponseError):  # the key holds nonsense already
            write_nonsense(ledger, user, chance)

    with damaged_under_load(ledger, chance, damage) as faults:
        ledger.flush()
        ledger.await_made_again()
        ledger.shop.recsys("rebuild")
        recovery_s = ledger.await_counted()
        tally = ledger.check()
    report(19, "Keys of users hold nonsense under load", tally, faults=faults, recovery_s=recovery_s)


@pytest.mark.slow
def test_rebuild_brings_back_whoever_lost_all_or_a_part(ledger: Ledger, report: Report) -> None:
    """No trainer runs, and most of them buy nothing more."""
    chance = random.Random(16)
    consumer = start(ledger)
    ledger.publish(rounds(300, 3000))
    ledger.await_counted()
    ledger.shop.run("trainer", "--once")
    ledger.publish(100)  # beyond the archive
    ledger.await_counted()
    with ledger.load(per_second=60):
        victims = chance.sample(ledger.users, len(ledger.users) // 2)
        for user in victims[::2]:
            ledger.store.users.remove([user])
        for user in victims[1::2]:
            lose(ledger, user, "any", chance)
        time.sleep(1)
        ledger.shop.recsys("rebuild")
    recovery_s = ledger.await_counted()
    tally = ledger.check()
    assert consumer.stop() == 0
    report(16, "Users lost in whole or in part, rebuilt under load", tally, faults=len(victims), recovery_s=recovery_s)
