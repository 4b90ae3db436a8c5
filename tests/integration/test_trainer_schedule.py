"""When the trainer does its first round, as Redis tells it."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest

from recsys.redis import Store
from recsys.redis.trainer_requests import Requests
from recsys.runtime.clock import now
from recsys.settings import Settings
from trainer.schedule import Schedule

INTERVAL_S = 3600.0
SETTINGS = Settings.model_validate({"trainer": {"interval_s": INTERVAL_S}})


def due_in_s(store: Store) -> float:
    schedule = Schedule(SETTINGS.trainer)
    schedule.begin(store)
    return schedule.due - time.monotonic()


def publish(store: Store, *, age: timedelta, **status: str) -> None:
    store.pointer.move("v1", "/models/v1", "aa", seen=b"", at=now() - age)
    store.trainer.finish(Requests(), {"state": "succeeded", "version": "v1", **status})


def test_at_once_without_a_model(store: Store) -> None:
    assert due_in_s(store) <= 0


@pytest.mark.parametrize(
    ("age", "due_s"),
    [
        (timedelta(0), INTERVAL_S),
        (timedelta(minutes=20), INTERVAL_S - 1200),
        (timedelta(hours=2), 0.0),
        (timedelta(days=-1), INTERVAL_S),  # the clock was set back since: a day and an hour would be too long
    ],
)
def test_an_interval_after_the_live_model_and_no_more_than_that_from_now(
    store: Store, age: timedelta, due_s: float
) -> None:
    publish(store, age=age)
    assert due_in_s(store) == pytest.approx(due_s, abs=30)


@pytest.mark.parametrize("status", [{"state": "running"}, {"state": "failed"}, {"version": "v2"}])
def test_at_once_if_the_round_of_the_live_model_was_not_completed(store: Store, status: dict[str, str]) -> None:
    publish(store, age=timedelta(0), **status)
    assert due_in_s(store) <= 0


def test_at_once_if_the_pointer_is_damaged(store: Store) -> None:
    publish(store, age=timedelta(0))
    store.connection.client.set(store.pointer._keys.model, b"{")
    assert due_in_s(store) <= 0


def test_a_round_that_was_rejected_was_completed_as_well(store: Store) -> None:
    store.pointer.move("v1", "/models/v1", "aa", seen=b"", at=now() - timedelta(days=9))
    status = {"state": "rejected", "version": "v2", "live_before": "v1", "finished_at": (now()).isoformat()}
    store.trainer.finish(Requests(), status)
    assert due_in_s(store) == pytest.approx(INTERVAL_S, abs=30)
    store.trainer.finish(Requests(), {**status, "live_before": "v0"})
    assert due_in_s(store) <= 0


def test_a_cron_expression_says_when(store: Store) -> None:
    schedule = Schedule(Settings.model_validate({"trainer": {"cron": "*/10 * * * *"}}).trainer)
    schedule.begin(store)
    assert schedule.due <= time.monotonic()  # there is no model yet
    schedule.done(time.monotonic())
    left_s = 600 - now().timestamp() % 600
    assert schedule.due - time.monotonic() == pytest.approx(left_s, abs=5)
    publish(store, age=timedelta(hours=2))
    schedule.begin(store)
    assert schedule.due <= time.monotonic()  # one was missed meanwhile
    publish_again = Schedule(Settings.model_validate({"trainer": {"cron": "0 0 1 1 *"}}).trainer)
    publish_again.begin(store)
    assert not publish_again.is_due
    assert str(publish_again) == "at 0 0 1 1 * (cron, UTC)"


def test_each_failure_waits_longer_until_one_succeeds(store: Store) -> None:
    schedule = Schedule(SETTINGS.trainer)
    assert [schedule.failed() for _ in range(8)] == [10, 20, 40, 80, 160, 320, 600, 600]
    assert not schedule.is_due
    schedule.done(time.monotonic())
    assert schedule.failed() == 10
