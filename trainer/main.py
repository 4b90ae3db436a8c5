"""`python -m trainer`: rounds on a schedule and on request; with `--once`, one round."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from types import FrameType

from recsys.errors import (
    LockHeld,
    NotEnoughData,
    NotEnoughNewEvents,
    RecsysError,
    RedisError,
    SettingsError,
)
from recsys.kafka.topics import describe_topic
from recsys.operations.rollback import roll_back
from recsys.redis import Store, open_store
from recsys.redis.trainer_requests import RollbackRequest
from recsys.runtime.clock import json_time, now, restart_on_clock_rollback
from recsys.runtime.logs import configure_logging
from recsys.runtime.metrics_server import serve_metrics
from recsys.runtime.progress import ProgressReporter
from recsys.runtime.startup import until_ready
from recsys.settings import Settings, load_settings
from recsys.storage.data_dir import DataDir, open_data_dir
from recsys.storage.rounds import RoundRecord
from trainer.metrics import TrainerMetrics
from trainer.report import RoundReport
from trainer.round import Round, RoundOutcome
from trainer.schedule import Schedule

log = logging.getLogger("trainer")
_LOOK_EVERY_S = 1.0
_RETRY_S = 10.0
_RETRY_WITHOUT_DATA_S = 30.0
_ALIVE_TTL_S = 15.0
_REJECTED = 3
"""Exit code when the gate has rejected the model."""


class _Terminated(BaseException):
    """SIGTERM or SIGINT: whatever is at work may stop anywhere, the next round goes on from there."""


@dataclass
class _Asked:
    """Set by SIGUSR1: no `threading.Event`, whose own lock the signal's handler could wait for forever."""

    by_signal: bool = False


def main() -> int:
    """Run; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m trainer", description=__doc__.replace("`", ""))
    parser.add_argument("--once", action="store_true", help="do one round and exit: 3 if the gate rejected the model")
    parser.add_argument("--force", action="store_true", help="with --once: publish the model whatever the gate says")
    arguments = parser.parse_args()
    if arguments.force and not arguments.once:
        parser.error("--force goes with --once; a running trainer is asked by recsys retrain --force")
    try:
        settings = load_settings()
    except RecsysError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    configure_logging(settings.log.level)
    if settings.trainer.tune_every_days and not arguments.once:
        import_module("optuna")  # if it is missing, that is said now and not by the first round that tunes
    os.nice(settings.trainer.niceness)

    def terminate(number: int, _: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)
        raise _Terminated

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, terminate)
    asked = _Asked()
    signal.signal(signal.SIGUSR1, lambda *_: setattr(asked, "by_signal", True))
    try:
        data_dir = open_data_dir(settings)
        with open_store(settings) as store:
            if not arguments.once:
                _serve(settings, store, data_dir, asked)
                return 0
            _ensure_ready(settings, store, data_dir)
            done = _round(settings, store, data_dir, TrainerMetrics(), asked_by="operator", force=arguments.force)
            return 0 if done.published else _REJECTED
    except RecsysError as error:
        log.error("%s", error)
        return 2 if isinstance(error, SettingsError) else 1
    except _Terminated:
        log.info("stopped before the round was done" if arguments.once else "stopped")
        return 1 if arguments.once else 0


def _ensure_ready(settings: Settings, store: Store, data_dir: DataDir) -> None:
    """Raise what is missing: a Redis that can serve, a data_dir that can be written, the topic."""
    store.connection.check()
    data_dir.storage.check_writable()
    describe_topic(settings.kafka, settings.kafka.topic)


def _serve(settings: Settings, store: Store, data_dir: DataDir, asked: _Asked) -> None:
    """Do rounds until terminated; a failed one is logged and does not end the service.

    A round is done when the schedule, a request in Redis, or SIGUSR1 wants one; a rollback when the HTTP API does.
    """
    metrics = TrainerMetrics()
    serve_metrics(settings.trainer.metrics_port, metrics.registry, variable="RECSYS_TRAINER__METRICS_PORT")
    look = threading.Event()  # never set: only a wait that a signal can end
    until_ready(partial(_ensure_ready, settings, store, data_dir), stop=look, log=log)
    rounds = 0  # when the last one was done here
    owed = ""  # by whom a round was asked for that has failed
    schedule = Schedule(settings.trainer)
    schedule.begin(store)
    with restart_on_clock_rollback(), _alive(store):
        log.info("trainer ready; a round %s and on request (recsys retrain, or SIGUSR1)", schedule)
        while True:
            look.wait(_LOOK_EVERY_S)
            try:
                requests = store.trainer.requests()
                lost = store.trainer.rounds() < rounds
                rollback = store.trainer.rollback_request()
            except RedisError as error:
                log.warning("waiting: %s", error)
                look.wait(_RETRY_S)
                continue
            if rollback is not None:
                try:
                    _roll_back(settings, store, data_dir, rollback)
                except LockHeld as error:
                    log.info("waiting: %s", error)
                    look.wait(_LOOK_EVERY_S)
                except RecsysError as error:
                    log.error("%s; trying again", error)
                    look.wait(_RETRY_S)
                continue
            if lost:
                log.error("Redis has lost what the last round wrote; another one brings the lists up to date")
                rounds, owed = 0, "loss"
            elif not (asked.by_signal or requests.are_open or schedule.is_due):
                continue
            by_signal = asked.by_signal
            asked.by_signal = False  # before the round: who asks during it wants another one
            asked_by = "signal" if by_signal else "request" if requests.are_open else owed or "schedule"
            started = time.monotonic()
            try:
                _round(
                    settings,
                    store,
                    data_dir,
                    metrics,
                    asked_by=asked_by,
                    scheduled=asked_by == "schedule",
                    lost=owed == "loss",
                )
                rounds, owed = store.trainer.rounds(), ""
                schedule.done(started)
            except NotEnoughNewEvents as nothing:
                log.info("%s", nothing)
                schedule.done(started)
            except NotEnoughData as nothing:
                log.info("%s", nothing)
                schedule.without_data(started, _RETRY_WITHOUT_DATA_S)
            except LockHeld as error:
                log.info("waiting: %s", error)
                look.wait(_RETRY_S)
                schedule.begin(store)  # the other one's round may have done
                asked.by_signal |= by_signal
            except RecsysError as error:
                delay_s = schedule.failed()
                owed = asked_by if asked_by != "schedule" else ""
                log.error("%s; trying again in %g s", error, delay_s)


def _roll_back(settings: Settings, store: Store, data_dir: DataDir, request: RollbackRequest) -> None:
    """Do a rollback that the HTTP API was asked for; one that fails is recorded, and given up: rounds must go on.

    Raises
    ------
    LockHeld
        When another trainer or command is at work.
    RedisError, DataDirError
        When that cannot be written.
    """
    with store.trainer_lock.held(ttl_s=settings.trainer.lock_ttl_s) as lock:
        started_at = json_time(now())
        try:
            roll_back(
                settings,
                store,
                data_dir,
                lock,
                ProgressReporter(),
                request.version,
                live_before=request.live_before,
                clock=now,
                asked_by=request.asked_by,
            )
            log.info("rolled back to model %s, as %s asked", request.version, request.asked_by)
        except RecsysError as error:
            log.error("no rollback to model %s: %s", request.version, error)
            record = RoundRecord(
                kind="rollback",
                asked_by=request.asked_by,
                started_at=started_at,
                finished_at=json_time(now()),
                state="failed",
                version=request.version,
                error=str(error),
            )
            data_dir.rounds.add(record, at=now())
        store.trainer.take_rollback(request)


@contextmanager
def _alive(store: Store) -> Iterator[None]:
    """Let `recsys retrain` know that someone takes requests."""
    stop = threading.Event()

    def beat() -> None:
        while True:
            try:
                store.trainer.say_alive(ttl_s=_ALIVE_TTL_S)
            except RedisError as error:
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
        except RedisError as error:
            log.debug("heartbeat: %s", error)


def _round(
    settings: Settings,
    store: Store,
    data_dir: DataDir,
    metrics: TrainerMetrics,
    *,
    asked_by: str,
    force: bool = False,
    scheduled: bool = False,
    lost: bool = False,
) -> RoundOutcome:
    """Do one round under the lock, telling those who wait for it how far it is and how it ended."""
    with store.trainer_lock.held(ttl_s=settings.trainer.lock_ttl_s) as lock:
        requests = store.trainer.requests()
        report = RoundReport(store, data_dir.rounds, metrics, requests, asked_by=asked_by, clock=now)
        progress = ProgressReporter(report.tell)
        round_ = Round(settings, store, data_dir, lock, progress, clock=now)
        try:
            round_.run(
                force=force or requests.force,
                scheduled=scheduled and not requests.are_open,
                lost=lost,
            )
        except (NotEnoughData, NotEnoughNewEvents) as nothing:
            with suppress(RedisError):
                report.nothing_to_do(str(nothing))
            raise
        except (RecsysError, _Terminated) as error:
            reason = "the trainer was stopped" if isinstance(error, _Terminated) else str(error)
            with suppress(RedisError):  # what ended the round is what must be known
                report.failed(round_.outcome, progress.durations_s, reason)
            raise
        outcome = round_.outcome
        report.done(outcome, progress.durations_s)
    if outcome.published:
        log.info(
            "round done: model %s (%s) from %d events; %d lists, %d similar-items lists",
            outcome.version, outcome.gate.decision if outcome.gate else "", outcome.counts["events"], outcome.lists,
            outcome.similar,
        )  # fmt: skip
    return outcome
