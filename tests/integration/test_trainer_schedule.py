"""When the trainer does its first round, as Redis tells it."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest

from recsys.settings import Settings
from recsys.store import Store
from recsys.wall_clock import now
from trainer.__main__ import _first_round

INTERVAL_S = 3600.0
SETTINGS = Settings.model_validate({"trainer": {"interval_s": INTERVAL_S}})


def due_in_s(store: Store) -> float:
    return _first_round(SETTINGS, store) - time.monotonic()


def publish(store: Store, *, age: timedelta, **status: str) -> None:
    store.shared.move_model_pointer("v1", "/models/v1", "aa", seen=b"", at=now() - age)
    store.trainer.finish(0, {"state": "succeeded", "version": "v1", **status})


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
    store.connection.client.set(store.shared._keys.model, b"{")
    assert due_in_s(store) <= 0
