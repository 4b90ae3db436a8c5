"""`python -m trainer`: rounds on a schedule and on request; with `--once`, one round."""

from __future__ import annotations

import argparse
import faulthandler
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import partial
from types import FrameType

from recsys.errors import LockHeld, NotEnoughData, RecsysError, SettingsError, StoreError
from recsys.kafka import describe_topic
from recsys.progress import ProgressReporter
from recsys.readiness import until_ready
from recsys.settings import Settings, load_settings
from recsys.storage import Storage
from recsys.store import Store, open_store
from recsys.store.users import json_time
from recsys.telemetry import configure_logging
from recsys.wall_clock import now, started_again_if_set_back
from trainer.pipeline import Outcome, run_round

log = logging.getLogger("trainer")
_LOOK_EVERY_S = 1.0
_RETRY_S = 10.0
_RETRY_WITHOUT_DATA_S = 30.0
_ALIVE_TTL_S = 15.0
_NICE = 10  # consumers on the same machine go first


class _Terminated(BaseException):
    """SIGTERM or SIGINT: whatever is at work may stop anywhere, the next round goes on from there."""


def main() -> int:
    """Run; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m trainer", description=__doc__.replace("`", ""))
    parser.add_argument("--once", action="store_true", help="do one round and exit")
    once = parser.parse_args().once
    try:
        settings = load_settings()
    except RecsysError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    configure_logging(settings.log.level)
    os.nice(_NICE)

    def terminate(number: int, _: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)
        raise _Terminated

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, terminate)
    try:
        with open_store(settings) as store:
            if once:
                _ensure_ready(settings, store)
                _round(settings, store)
            else:
                _serve(settings, store)
    except RecsysError as error:
        log.error("%s", error)
        return 2 if isinstance(error, SettingsError) else 1
    except _Terminated:
        log.info("stopped before the round was done" if once else "stopped")
        return 1 if once else 0
    return 0


def _ensure_ready(settings: Settings, store: Store) -> None:
    """Raise what is missing: a Redis that can serve, a data_dir that can be written, the topic."""
    store.connection.check()
    Storage(settings.data_dir).check_writable()
    describe_topic(settings.kafka, settings.kafka.topic)


def _serve(settings: Settings, store: Store) -> None:
    """Do rounds until terminated; a failed one is logged and does not end the service."""
    look = threading.Event()  # never set: only a wait that a signal can end
    until_ready(partial(_ensure_ready, settings, store), stop=look, log=log)
    rounds = 0  # when the last one was done here
    next_round = _first_round(settings, store)
    with started_again_if_set_back(), _alive(store):
        log.info("trainer ready; a round every %g s and on request (recsys retrain)", settings.trainer.interval_s)
        while True:
            look.wait(_LOOK_EVERY_S)
            try:
                requested, finished = store.trainer.requests()
                lost = store.trainer.rounds() < rounds
            except StoreError as error:
                log.warning("waiting: %s", error)
                look.wait(_RETRY_S)
                continue
            started = time.monotonic()  # a clock that is set back must not hold up the rounds
            if lost:
                log.error("Redis has lost what the last round wrote; another one brings the lists up to date")
                rounds = 0
            elif started < next_round and requested <= finished:
                continue
            try:
                _round(settings, store)
                rounds = store.trainer.rounds()
                next_round = started + settings.trainer.interval_s
            except NotEnoughData as error:
                log.info("%s", error)
                next_round = started + min(settings.trainer.interval_s, _RETRY_WITHOUT_DATA_S)
            except LockHeld as error:
                log.info("waiting: %s", error)
                look.wait(_RETRY_S)
                next_round = _first_round(settings, store)  # the other one's round may have done
            except RecsysError as error:
                log.error("%s; trying again in %g s", error, _RETRY_S)
                next_round = started + _RETRY_S


def _first_round(settings: Settings, store: Store) -> float:
    """Return when the first round is due, on the monotonic clock.

    At once, unless the live model is young and its round was completed.
    """
    at_once = time.monotonic()
    try:
        pointer = store.shared.model_pointer()
        last = store.trainer.status()
    except RecsysError as error:
        log.warning("cannot tell how old the live model is: %s", error)
        return at_once
    if pointer is None or last.get("state") != "succeeded" or last.get("version") != pointer.version:
        return at_once
    interval_s = settings.trainer.interval_s
    age_s = (now() - datetime.fromisoformat(pointer.published_at)).total_seconds()
    return at_once + min(interval_s, max(0.0, interval_s - age_s))  # a model from the future is one from now


@contextmanager
def _alive(store: Store) -> Iterator[None]:
    """Let `recsys retrain` know that someone takes requests."""
    stop = threading.Event()

    def beat() -> None:
        while True:
            try:
                store.trainer.say_alive(ttl_s=_ALIVE_TTL_S)
            except StoreError as error:
                log.debug("heartbeat: %s", error)
            if stop.wait(_ALIVE_TTL_S / 3):
                return

    thread = threading.Thread(target=beat, name="alive", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        try:
            store.trainer.say_gone()
        except StoreError as error:
            log.debug("heartbeat: %s", error)


def _round(settings: Settings, store: Store) -> Outcome:
    """Do one round under the lock, telling those who wait for it how far it is and how it ended."""
    with store.trainer.lock(ttl_s=settings.trainer.lock_ttl_s) as lock:
        request, _ = store.trainer.requests()
        status: dict[str, object] = {"request": request, "started_at": json_time(now())}

        def tell(stage: str, done: int, total: int | None) -> None:
            try:
                store.trainer.write_status({**status, "state": "running", "stage": stage, "done": done, "total": total})
            except StoreError as error:
                log.debug("status: %s", error)

        try:
            outcome = run_round(settings, store, lock, ProgressReporter(tell), clock=now)
        except (RecsysError, _Terminated) as error:
            reason = "the trainer was stopped" if isinstance(error, _Terminated) else str(error)
            with suppress(StoreError):  # what ended the round is what must be known
                store.trainer.finish(request, {**status, "state": "failed", "error": reason})
            raise
        finished_at = json_time(now())
        store.trainer.finish(
            request, {**status, "state": "succeeded", "finished_at": finished_at, **outcome.as_status()}
        )
    log.info(
        "round done: model %s from %d events; %d lists, %d similar-items lists",
        outcome.version, outcome.events, outcome.lists, outcome.similar,
    )  # fmt: skip
    return outcome


if __name__ == "__main__":
    faulthandler.enable()  # should a library crash, the log says where
    sys.exit(main())
