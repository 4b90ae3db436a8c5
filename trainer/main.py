"""`python -m trainer`: rounds on a schedule and on request; with `--once`, one round."""

from __future__ import annotations

import argparse
import os
import signal
import threading
import time
from contextlib import AbstractContextManager, suppress
from functools import partial
from importlib import import_module
from typing import NoReturn

from recsys.errors import (
    DamagedKey,
    DataDirError,
    HistoriesMissing,
    LockHeld,
    NotEnoughData,
    NotEnoughNewEvents,
    RecsysError,
    RedisError,
)
from recsys.kafka.cleanup_policy import PolicyWatch
from recsys.kafka.clients import renew_logins
from recsys.kafka.readings import reading_of
from recsys.kafka.topics import describe_topic
from recsys.logger import logger
from recsys.operations.check_watch import CheckWatch, checks_of
from recsys.operations.histories import ensure_histories
from recsys.operations.rollback import roll_back
from recsys.operations.status_watch import shop_watched
from recsys.redis import EvictionWatch, Service, Store, open_store
from recsys.redis.heartbeat import ending_told, heartbeat
from recsys.redis.service_registry import TrainerFacts, told
from recsys.redis.trainer_requests import Requests, RollbackRequest
from recsys.runtime.clock import ended_by_clock_rollback, json_time, now
from recsys.runtime.hangup import at_hangup
from recsys.runtime.metrics_server import serve_metrics
from recsys.runtime.progress import ProgressReporter
from recsys.runtime.service import FAILED, end_late, on_termination, run_service
from recsys.runtime.startup import until_ready
from recsys.settings import Settings, secrets
from recsys.storage.data_dir import DataDir, open_data_dir
from recsys.storage.rounds import RoundRecord
from trainer.aside import AsideUsers
from trainer.hidden import HiddenFollower
from trainer.metrics import TrainerMetrics
from trainer.report import RoundOutcome, RoundReport
from trainer.round import Round
from trainer.schedule import Schedule

log = logger("trainer")
_LOOK_EVERY_S = 1.0
_RETRY_S = 10.0
_RETRY_WITHOUT_DATA_S = 30.0
_LONGEST_STOP_S = 8.0
_REJECTED = 3
"""Exit code when the gate has rejected the model."""


class _Terminated(BaseException):
    """SIGTERM or SIGINT: whatever is at work may stop anywhere, the next round goes on from there."""


def main() -> int:
    """Run; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m trainer", description=__doc__.replace("`", ""))
    parser.add_argument("--once", action="store_true", help="do one round and exit: 3 if the gate rejected the model")
    parser.add_argument("--force", action="store_true", help="with --once: publish the model whatever the gate says")
    arguments = parser.parse_args()
    if arguments.force and not arguments.once:
        parser.error("--force goes with --once; a running trainer is asked by recsys retrain --force")
    return run_service(partial(_do_one_round, force=arguments.force) if arguments.once else _serve, log)


def _do_one_round(settings: Settings, *, force: bool) -> int:
    os.nice(settings.trainer.niceness)
    on_termination(_terminate)
    try:
        data_dir = open_data_dir(settings)
        with open_store(settings) as store:
            _ensure_ready(settings, store, data_dir)
            metrics = TrainerMetrics()
            with _evictions_watched(settings, metrics):
                done = _round(settings, store, data_dir, metrics, asked_by="operator", force=force)
            return 0 if done.published else _REJECTED
    except _Terminated:
        log.info("stopped_in_round", "stopped before the round was done")
        return FAILED


def _serve(settings: Settings) -> int:
    if settings.trainer.tune_every_days:
        import_module("optuna")  # if it is missing, that is said now and not by the first round that tunes
    os.nice(settings.trainer.niceness)
    on_termination(_terminate)
    end_late(_LONGEST_STOP_S, log)  # the next round goes on from there
    at_hangup(partial(renew_logins, settings.kafka))
    signal_request = _SignalRequest()
    signal.signal(signal.SIGUSR1, lambda *_: signal_request.open())
    try:
        data_dir = open_data_dir(settings)
        with open_store(settings) as store, ending_told(store, "trainer"):
            metrics = TrainerMetrics()
            own, variable = settings.trainer, "RECSYS_TRAINER__METRICS_PORT"
            serve_metrics(own.metrics_port, metrics.registry, variable=variable, host=own.metrics_host)
            checks = checks_of(settings, Service.TRAINER, metrics.checks.note)
            rounds = _Rounds(settings, store, data_dir, metrics, signal_request, checks)
            ready = partial(_ensure_ready, settings, store, data_dir)
            asked = f"Redis, {data_dir.url}, or Kafka at {settings.kafka.bootstrap_servers}"
            with heartbeat(store, rounds.facts):  # another one than below: it takes no requests yet
                until_ready(ready, stop=threading.Event(), log=log, asked=asked, on_wait=rounds.note_waiting)
            hidden, evictions = HiddenFollower(settings, store, data_dir), _evictions_watched(settings, metrics)
            policy = PolicyWatch(settings.kafka, metrics.topic_compacted.set)
            with suppress(DataDirError):  # the first round will say so
                metrics.restore(data_dir.rounds)
            shop = shop_watched(settings, store, data_dir, metrics.shop.note)
            with (
                ended_by_clock_rollback(),
                heartbeat(store, rounds.facts),
                hidden.followed(),
                evictions,
                policy,
                checks.running(),
                shop,
            ):
                rounds.do_forever()
    except _Terminated:
        log.info("stopped", "stopped")
        return 0


def _evictions_watched(settings: Settings, metrics: TrainerMetrics) -> AbstractContextManager[object]:
    return EvictionWatch(settings.redis, lambda found: metrics.evictions.note(*found)).running()


def _terminate(number: int) -> NoReturn:
    signal.signal(number, signal.SIG_IGN)
    raise _Terminated


def _ensure_ready(settings: Settings, store: Store, data_dir: DataDir) -> None:
    """Raise what is missing: a mapping that can be read, a Redis that can serve, a data_dir to write to, the topic."""
    reading_of(settings.events)
    store.connection.check()
    store.connection.ensure_rights(Service.TRAINER)
    data_dir.storage.check_writable()
    describe_topic(settings.kafka, settings.kafka.topic)


class _SignalRequest:
    """Whether SIGUSR1 asks for a round: no `threading.Event`, whose own lock its handler could wait for forever."""

    def __init__(self) -> None:
        self.is_open = False

    def open(self) -> None:
        self.is_open = True


class _Rounds:
    """Rounds and rollbacks, one at a time; between them users who are set aside are made again.

    A round is done when the schedule, a request in Redis, or SIGUSR1 wants one, or when Redis has lost what the last
    one wrote; a rollback when the HTTP API wants one.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        data_dir: DataDir,
        metrics: TrainerMetrics,
        signal_request: _SignalRequest,
        checks: CheckWatch,
    ) -> None:
        self._checks = checks
        self._settings = settings
        self._store = store
        self._data_dir = data_dir
        self._metrics = metrics
        self._signal_request = signal_request
        self._reading = reading_of(settings.events).fingerprint
        self._schedule = Schedule(settings.trainer)
        self._aside = AsideUsers(settings, store, data_dir, metrics)
        self._never = threading.Event()  # only a wait that a signal can end
        self._waiting_for = "its first look at what it needs"
        self._done = 0
        """The count of rounds in Redis when the last one was done here."""
        self._owed_to = ""
        """Who asked for a round that has failed."""

    def facts(self) -> TrainerFacts:
        """Return what the trainer tells of itself."""
        return TrainerFacts(
            next_round_at=self._schedule.due_at,
            waiting_for=told(self._waiting_for),
            checks=self._checks.failing(),
            reading=self._reading,
        )

    def note_waiting(self, problem: str) -> None:
        """Note what is missing to do rounds; empty = nothing."""
        self._waiting_for = problem

    def do_forever(self) -> NoReturn:
        """Look for something to do, until terminated; what fails is logged and does not end the service."""
        trainer = self._store.trainer
        self._schedule.begin(self._store)
        log.info(
            "ready",
            "trainer ready; rounds {schedule} and on request (recsys retrain, or SIGUSR1)",
            schedule=self._schedule,
        )
        while True:
            self._never.wait(_LOOK_EVERY_S)
            try:
                requests = trainer.requests()
                is_lost = trainer.rounds() < self._done
                rollback = trainer.rollback_request()
                self._aside.look()
            except DamagedKey as error:
                log.error("round_failed", "{error}", error=error)
                with suppress(RedisError):
                    trainer.delete_damaged(error.key)
                continue
            except RedisError as error:
                log.warning("waiting", "waiting: {error}", error=error)
                self._never.wait(_RETRY_S)
                continue
            if rollback is not None:
                self._try_rollback(rollback)
                continue
            if is_lost:
                log.error(
                    "lists_lost", "Redis has lost what the last round wrote; a round writes the lists again, if it can"
                )
                self._done, self._owed_to = 0, "loss"
            if is_lost or self._signal_request.is_open or requests.are_open or self._schedule.is_due:
                self._try_round(requests)

    def _try_rollback(self, request: RollbackRequest) -> None:
        try:
            _roll_back(self._settings, self._store, self._data_dir, request)
        except LockHeld as error:
            log.info("waiting", "waiting: {error}", error=error)
            self._never.wait(_LOOK_EVERY_S)
        except RecsysError as error:
            log.error("round_failed", "{error}; trying again", error=error)
            self._never.wait(_RETRY_S)

    def _try_round(self, requests: Requests) -> None:
        by_signal = self._signal_request.is_open
        self._signal_request.is_open = False  # before the round: who asks during it wants another one
        asked_by = "signal" if by_signal else "request" if requests.are_open else self._owed_to or "schedule"
        started = time.monotonic()
        try:
            _round(
                self._settings,
                self._store,
                self._data_dir,
                self._metrics,
                asked_by=asked_by,
                scheduled=asked_by == "schedule",
                lost=self._owed_to == "loss",
            )
            self._done, self._owed_to = self._store.trainer.rounds(), ""
            self._schedule.done(started)
        except NotEnoughNewEvents as nothing:
            log.info("nothing_to_do", "{reason}", reason=nothing)
            self._schedule.done(started)
        except NotEnoughData as nothing:
            log.info("nothing_to_do", "{reason}", reason=nothing)
            self._schedule.without_data(started, _RETRY_WITHOUT_DATA_S)
        except HistoriesMissing as error:
            log.error("round_failed", "{error}", error=error)
            self._schedule.without_data(started, _RETRY_WITHOUT_DATA_S)
            self._never.wait(_RETRY_S)
        except LockHeld as error:
            log.info("waiting", "waiting: {error}", error=error)
            self._never.wait(_RETRY_S)
            self._schedule.begin(self._store)  # the other one's round may have done
            self._signal_request.is_open |= by_signal
        except RecsysError as error:
            delay_s = self._schedule.failed()
            self._owed_to = asked_by if asked_by != "schedule" else ""
            log.error("round_failed", "{error}; trying again in {delay_s:g} s", error=error, delay_s=delay_s)


def _roll_back(settings: Settings, store: Store, data_dir: DataDir, request: RollbackRequest) -> None:
    """Do a rollback that the HTTP API was asked for; one that fails is recorded, and given up: rounds must go on.

    Raises
    ------
    LockHeld
        When another trainer or command is at work.
    RedisError, DataDirError
        When that cannot be written.
    """
    with store.trainer_lock.held(ttl_s=settings.trainer.lock_ttl_s, work="the trainer's rollback") as lock:
        started_at = json_time(now())
        try:
            ensure_histories(settings, store, data_dir)
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
            log.info(
                "rolled_back",
                "rolled back to model {model}, requested by {asked_by}",
                model=request.version,
                asked_by=request.asked_by,
            )
        except RecsysError as error:
            log.error("rollback_refused", "no rollback to model {model}: {error}", model=request.version, error=error)
            record = RoundRecord(
                kind="rollback",
                asked_by=request.asked_by,
                started_at=started_at,
                finished_at=json_time(now()),
                state="failed",
                version=request.version,
                error=secrets.hidden_in(str(error)),
            )
            data_dir.rounds.add(record, at=now())
        store.trainer.take_rollback(request)


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
    with store.trainer_lock.held(ttl_s=settings.trainer.lock_ttl_s, work="the trainer's round") as lock:
        requests = store.trainer.requests()
        report = RoundReport(store, data_dir.rounds, metrics, requests, asked_by=asked_by, clock=now)
        progress = ProgressReporter(report.tell)
        round_ = Round(settings, store, data_dir, lock, progress, clock=now)
        try:
            ensure_histories(settings, store, data_dir)
            round_.run(
                force=force or requests.force,
                scheduled=scheduled and not requests.are_open,
                lost=lost,
            )
        except (NotEnoughData, NotEnoughNewEvents, HistoriesMissing) as nothing:
            with suppress(RedisError):
                report.nothing_to_do(str(nothing))
            raise
        except (RecsysError, _Terminated) as error:
            reason = "the trainer was stopped" if isinstance(error, _Terminated) else secrets.hidden_in(str(error))
            with suppress(RedisError):  # what ended the round is what must be known
                report.failed(round_.outcome, progress.durations_s, reason)
            raise
        outcome = round_.outcome
        report.done(outcome, progress.durations_s)
    if outcome.published:
        log.info(
            "round_done",
            "round done: model {model} ({gate}) from {events} events; {lists} lists, {similar_lists} "
            "similar-items lists",
            model=outcome.version,
            gate=outcome.gate.decision if outcome.gate else "",
            events=outcome.counts["events"],
            lists=outcome.lists,
            similar_lists=outcome.similar,
        )
    return outcome
