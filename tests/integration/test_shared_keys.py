"""The model pointer, the shared lists and the trainer's lock in a real Redis."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from recsys.errors import InvalidModel, LockHeld, LockLost, RedisUnsuitable
from recsys.lists.encoding import as_json
from recsys.recommend.user_lists import RankedList
from recsys.redis import HeldLock, ModelStamp, Store, open_store
from recsys.redis.lock_holder import LockHolder
from recsys.redis.trainer_requests import Requests, RollbackRequest
from recsys.settings import Settings
from tests.services import wait_until

NOW = datetime(2026, 11, 22, 10, 15, tzinfo=UTC)
POINTER = '{"version": "v1", "sequence": 1, "uri": "/models/v1", "manifest_sha256": "aa", "published_at": "%s"}'


def test_pointer_moves_and_its_sequence_grows_whatever_the_clock_says(store: Store) -> None:
    assert store.pointer.read() is None
    first = store.pointer.move("v1", "/models/v1", "aa", seen=b"", at=NOW)
    second = store.pointer.move(
        "v2", "/models/v2", "bb", seen=store.pointer.value(), at=datetime(2001, 1, 1, tzinfo=UTC)
    )
    assert first is not None
    assert second is not None
    assert second.sequence > first.sequence
    assert store.pointer.read() == second


def test_pointer_that_someone_else_moved_stays(store: Store) -> None:
    seen = store.pointer.value()
    theirs = store.pointer.move("v1", "/models/v1", "aa", seen=seen, at=NOW)
    assert store.pointer.move("v2", "/models/v2", "bb", seen=seen, at=NOW) is None
    assert store.pointer.read() == theirs


def test_damaged_pointer_is_replaced(store: Store) -> None:
    store.connection.client.set(store.pointer._keys.model, b"garbage")
    seen = store.pointer.value()
    pointer = store.pointer.move("v1", "/models/v1", "aa", seen=seen, at=NOW)
    assert store.pointer.read() == pointer


def test_lost_pointer_does_not_bring_the_sequence_back(store: Store) -> None:
    first = store.pointer.move("v1", "/models/v1", "aa", seen=b"", at=datetime.now(UTC))
    store.connection.client.delete(store.pointer._keys.model)
    wait_until(lambda: first is not None and int(time.time()) > first.sequence, "a second has passed")
    again = store.pointer.move("v2", "/models/v2", "bb", seen=b"", at=datetime.now(UTC))
    assert first is not None
    assert again is not None
    assert again.sequence > first.sequence


@pytest.mark.parametrize(
    "damaged", ['{"version": 3', "null", "\xff", POINTER % "never", POINTER % "2026-11-22T10:15:00"]
)
def test_damaged_pointer_is_named(store: Store, damaged: str) -> None:
    store.connection.client.set(store.pointer._keys.model, damaged.encode("latin-1"))
    with pytest.raises(InvalidModel, match="model is damaged"):
        store.pointer.read()


def test_popular_and_similar_lists_have_the_form_of_the_contract(store: Store) -> None:
    stamp = ModelStamp("v1", 1)
    items = RankedList(("a", "b"), (3.0, 2.0))
    store.item_lists.write_popular(as_json(items), stamp, at=NOW)
    store.item_lists.write_similar(["x"], [as_json(items)], stamp, at=NOW, ttl_s=60)
    listed = [{"item_id": "a", "score": 3.0}, {"item_id": "b", "score": 2.0}]
    at = "2026-11-22T10:15:00.000Z"
    assert store.item_lists.popular() == {"model": "v1", "generated_at": at, "items": listed}
    assert store.item_lists.similar("x") == {"item_id": "x", "model": "v1", "generated_at": at, "items": listed}
    assert store.item_lists.similar("y") is None


def test_hidden_items_are_what_operators_wrote(store: Store) -> None:
    store.connection.client.sadd(store.catalogue._keys.hidden, "sku-1", "sku-ü")
    assert store.catalogue.hidden() == {"sku-1", "sku-ü"}


def test_second_trainer_is_turned_away_until_the_first_is_done(store: Store) -> None:
    with store.trainer_lock.held(ttl_s=60) as held:
        held.ensure_held()
        with pytest.raises(LockHeld), store.trainer_lock.held(ttl_s=60):
            pass
    with store.trainer_lock.held(ttl_s=60):
        pass


@pytest.mark.parametrize("interrupted", ["stop", "__init__"])
def test_a_signal_while_it_is_taken_or_given_back_leaves_no_lock_behind(
    store: Store, monkeypatch: pytest.MonkeyPatch, interrupted: str
) -> None:
    usual = getattr(HeldLock, interrupted)

    def interrupt(*arguments: object) -> None:
        monkeypatch.setattr(HeldLock, interrupted, usual)  # once: the handler ignores further signals
        raise KeyboardInterrupt

    monkeypatch.setattr(HeldLock, interrupted, interrupt)
    with pytest.raises(KeyboardInterrupt), store.trainer_lock.held(ttl_s=60):
        pass
    with store.trainer_lock.held(ttl_s=60):
        pass


def test_who_is_turned_away_is_told_by_whom_and_for_how_long(store: Store) -> None:
    with store.trainer_lock.held(ttl_s=60, work="recsys rebuild"):
        with pytest.raises(LockHeld) as raised, store.trainer_lock.held(ttl_s=60):
            pass
    words = (
        rf"recsys rebuild \(process {os.getpid()} on {re.escape(socket.gethostname())}, since 2\S+Z\) holds the lock"
    )
    assert re.search(rf"^{words} .*; if it has died, the lock expires in (60|59|[1-5]\d) s$", str(raised.value))


def holder_elsewhere(**changed: Any) -> LockHolder:
    """Return a process that has been killed here, as it would look to others."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        started = (Path("/proc") / str(process.pid) / "stat").read_text().rpartition(")")[2].split()[19]
        process.kill()
    here = LockHolder.this_process("recsys rebuild", "token")
    return replace(here, **{"pid": process.pid, "started": started, **changed})


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="only Linux tells which process it was")
@pytest.mark.parametrize("changed", [{}, {"pid": os.getpid(), "started": "1"}], ids=["gone", "id given out again"])
def test_lock_of_a_process_that_has_ended_here_is_taken_over(
    store: Store, caplog: pytest.LogCaptureFixture, changed: dict[str, Any]
) -> None:
    client, key = store.connection.client, store.trainer._keys.trainer_lock
    client.set(key, holder_elsewhere(**changed).packed(), px=3_600_000)
    with store.trainer_lock.held(ttl_s=60) as held:
        held.ensure_held()
    assert re.search(r"recsys rebuild \(process .* has ended without giving its lock back", caplog.text)


@pytest.mark.parametrize(
    "value",
    [
        "5f0c1d1e4b7c4d0a9d7d0b5c9e6f7a8b",
        holder_elsewhere(system="another boot").packed(),
        LockHolder.this_process("recsys import", "token").packed(),
    ],
    ids=["of an earlier release", "on another machine", "of a process that runs"],
)
def test_lock_of_a_process_that_may_live_is_respected(store: Store, value: str) -> None:
    store.connection.client.set(store.trainer._keys.trainer_lock, value, px=3_600_000)
    with pytest.raises(LockHeld, match=r"holds the lock .* expires in 3\d\d\d s"), store.trainer_lock.held(ttl_s=60):
        pass


def test_lock_outlives_its_expiry_while_it_is_held(store: Store) -> None:
    with store.trainer_lock.held(ttl_s=0.6) as held:
        until = time.monotonic() + 1.5
        wait_until(lambda: time.monotonic() > until, "more than twice its expiry has passed")
        held.ensure_held()


def test_lost_lock_is_noticed(store: Store) -> None:
    with store.trainer_lock.held(ttl_s=60) as held:
        store.connection.client.delete(store.trainer._keys.trainer_lock)
        with pytest.raises(LockLost):
            held.ensure_held()


def test_requests_share_the_round_that_starts_after_them(store: Store) -> None:
    assert store.trainer.requests() == Requests()
    assert not store.trainer.requests().are_open
    store.trainer.request()
    newest = store.trainer.request()
    open_ = store.trainer.requests()
    assert (open_.are_open, open_.force, open_.requested) == (True, False, newest)
    store.trainer.request(force=True)
    forced = store.trainer.requests()
    store.trainer.finish(open_, {"state": "succeeded"})  # of a round that began before
    assert store.trainer.requests().are_open
    assert store.trainer.requests().force
    store.trainer.finish(forced, {"state": "succeeded"})
    assert not store.trainer.requests().are_open
    assert not store.trainer.requests().force
    assert store.trainer.status() == {"state": "succeeded"}


def test_wrong_password_is_said_without_showing_it(redis_url: str) -> None:
    host = redis_url.removeprefix("redis://")
    settings = Settings.model_validate({"redis": {"url": f"redis://someone:hunter2@{host}"}})
    with open_store(settings) as store, pytest.raises(RedisUnsuitable) as caught:
        store.connection.check()
    assert "hunter2" not in str(caught.value)


def test_usable_server_passes_the_check(store: Store) -> None:
    store.connection.check()


def test_a_rollback_waits_until_it_is_taken_and_a_newer_one_takes_its_place(store: Store) -> None:
    assert store.trainer.rollback_request() is None
    first, second = RollbackRequest("a", "b", "ops"), RollbackRequest("c", "", "ops")
    store.trainer.request_rollback(first)
    store.trainer.request_rollback(second)
    assert store.trainer.rollback_request() == second
    store.trainer.take_rollback(first)  # another one came meanwhile
    assert store.trainer.rollback_request() == second
    store.trainer.take_rollback(second)
    assert store.trainer.rollback_request() is None
    assert store.trainer.requests() == Requests()


def test_hidden_items_and_the_stamp_of_the_catalogue(store: Store) -> None:
    assert [store.catalogue.hide("a"), store.catalogue.hide("a"), store.catalogue.hide("b")] == [True, False, True]
    assert store.catalogue.hidden() == {"a", "b"}
    assert [store.catalogue.unhide("a"), store.catalogue.unhide("a")] == [True, False]
    stamps = [store.catalogue.stamp()]
    for _ in range(2):
        store.catalogue.write({"a": "A"}, ["b"])
        stamps.append(store.catalogue.stamp())
    assert stamps[0] == b""
    assert len(set(stamps)) == 3
