"""The loop: poll, decode, apply, refresh, publish, commit.

Delivery: at least once from Kafka, exactly once in effect in Redis. The steps for one batch, in this order:

1. poll     up to `consumer.batch_size` records
2. decode   each into an event; malformed ones are queued for the dead-letter topic, unless they are too many; under a
            backlog already while the batch before is being applied
3. apply    each user's events to the history in Redis (one call per user, idempotent)
4. refresh  those users' lists: one solve per user, however many events
5. publish  each list, unless a fresher one is there (compare-and-set)
6. commit   once the dead letters are acknowledged: move the marks in Redis, store the offsets, commit them every second

A crash between any two steps makes Kafka deliver the batch again, and steps 3 and 5 recognize it. While Redis or
the dead-letter topic is away the batch is kept, its partitions are paused, and the step is tried again.
"""

from __future__ import annotations

import gc
import logging
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

import numpy as np

from consumer.batch import Batch
from consumer.ceiling import Ceiling
from consumer.commits import Commits
from consumer.dead_letters import DeadLetters
from consumer.metrics import ConsumerMetrics
from consumer.rebalance import Assignment, commit_now
from recsys.errors import OffsetsLost, StoreError, StreamUnavailable, WritesLost
from recsys.kafka.clients import ClientError, Consumer, KafkaException, Message
from recsys.kafka.records import location
from recsys.kafka.topics import TopicWatch
from recsys.lists.live_model import LiveModel, LoadedModel
from recsys.lists.refresh import Listing, compute_lists, list_users
from recsys.redis import PublishOutcome, Store, UserState
from recsys.runtime import fail_points, threads
from recsys.runtime.clock import now
from recsys.settings import Settings

log = logging.getLogger(__name__)
T = TypeVar("T")
_IDLE_S = 0.1
_LAST_LOOK_S = 2.0
_LONGEST_CONFIRM_S = 1.0
_LONGEST_BACKOFF_S = 2.0
_SAID_AGAIN_EVERY_S = 30.0
_WITHOUT_PARTITIONS_S = 5.0
_LOST = (ClientError._AUTO_OFFSET_RESET, ClientError.OFFSET_OUT_OF_RANGE)


class Stopped(Exception):
    """A stop was asked for while the loop was waiting out an outage; the batch at hand will be read again."""


class Loop:
    """Runs in one thread, which owns the Kafka consumer.

    Parameters
    ----------
    stop : threading.Event
        Set it to make `run` return after the batch at hand.
    """

    def __init__(
        self,
        consumer: Consumer,
        assignment: Assignment,
        store: Store,
        live: LiveModel,
        dead_letters: DeadLetters,
        watch: TopicWatch,
        metrics: ConsumerMetrics,
        settings: Settings,
        stop: threading.Event,
    ) -> None:
        self._consumer = consumer
        self._assignment = assignment
        self._store = store
        self._live = live
        self._dead_letters = dead_letters
        self._watch = watch
        self._metrics = metrics
        self._settings = settings
        self._stop = stop
        self._ceiling = Ceiling(settings)
        self._commits = Commits(consumer, assignment, settings.kafka)
        self._ahead: Batch | None = None
        """What was read while the batch before it was at work."""
        self._carried: list[tuple[int | None, Message]] = []
        """Records read while waiting, each with the assignment that brought it; they come after those of `_ahead`."""
        self._next_commit = 0.0
        self._say_at = time.monotonic() + _WITHOUT_PARTITIONS_S
        self._served_sequence = live.current.stamp.sequence if live.current else -1
        metrics.model_sequence.set(self._served_sequence)
        metrics.partitions.set_function(lambda: len(assignment.held))

    def run(self) -> None:
        """Loop until stopped; commit and return.

        Raises
        ------
        StreamError
            When the Kafka client cannot go on; a new one can.
        WritesLost
            When Redis has lost writes; a new Kafka client reads them again.
        TooManyMalformed
            When a person has to look; the batch at hand is read again at the next start.
        """
        _spare_collections()
        self._assignment.subscribe(self._consumer, before_revoke=self._release_confirmed)
        try:
            while not self._stop.is_set():
                batch = self._next_batch()
                self._say_if_without_partitions()
                self._watch.raise_if_changed()
                if batch.messages:
                    self._process(batch)
                self._swap_model()
                self._commit()
            self._live.look_and_wait(_LAST_LOOK_S)
            self._swap_model()
        except Stopped:
            log.info("stopped while waiting; the records at hand will be read again")
        self._commits.release(self._live.confirmed_at)
        # Not left to the rebalance that close() brings: a clean stop shall leave nothing to be read twice.
        commit_now(self._consumer)

    # poll ------------------------------------------------------------------------------------------------------

    def _next_batch(self) -> Batch:
        """Return what was read ahead, else what comes."""
        if self._ahead is None:
            return self._batch_of(self._poll())
        ahead, self._ahead = self._ahead, None
        return ahead.without_lost(self._assignment.held)

    def _batch_of(self, messages: Sequence[Message]) -> Batch:
        """Make a batch of records just read."""
        held = dict(self._assignment.held)
        # What has been revoked meanwhile is left to its next owner, who reads it again.
        ours = [message for message in messages if message.partition() in held]
        return Batch(ours, held, self._assignment.topic, self._store.users.ensure_can_hold)

    def _read_ahead(self, batch: Batch) -> None:
        """Read the next batch already if there is a backlog: it is decoded while Redis applies this one."""
        if len(batch.messages) >= self._settings.consumer.batch_size:
            ahead = self._batch_of(self._consume(self._settings.consumer.batch_size, 0))
            self._ahead = ahead if ahead.messages else None

    def _poll(self) -> list[Message]:
        """Wait for a first record and take all that are there: few when it is quiet, many when there is a backlog."""
        held = self._assignment.held
        messages = [
            message for assignment, message in self._carried if held.get(message.partition() or 0) == assignment
        ]
        self._carried = []
        if not messages:
            messages = self._consume(1, _IDLE_S)
        if messages:
            messages += self._consume(self._settings.consumer.batch_size - len(messages), 0)
        return messages

    def _say_if_without_partitions(self) -> None:
        now = time.monotonic()
        if self._assignment.held:
            self._say_at = now + _WITHOUT_PARTITIONS_S
        elif now > self._say_at:
            self._say_at = float("inf")
            log.info(
                "no partitions yet: group %s has enough members, or waits until the session of one that is gone ends",
                self._settings.kafka.group_id,
            )

    def _consume(self, most: int, timeout_s: float) -> list[Message]:
        if most < 1:
            return []
        try:
            messages = self._consumer.consume(most, timeout_s)
        except (KafkaException, RuntimeError) as error:
            # consume() may have dequeued records that are now gone: only a new consumer is safe.
            raise StreamUnavailable(f"the Kafka consumer failed: {error}") from error
        self._assignment.raise_failure()
        records = []
        for message in messages:
            problem = message.error()
            if problem is None:
                records.append(message)
            elif problem.code() in _LOST:
                self._watch.raise_if_changed(look=True)
                raise OffsetsLost(
                    f"{location(message)}: the next offset is no longer in the topic ({problem.str()}); recsys rebuild "
                    f"applies what is in the archive; then, to go on from the oldest record left: "
                    f"kafka-consumer-groups.sh --bootstrap-server {self._settings.kafka.bootstrap_servers} "
                    f"--reset-offsets --to-earliest --group {self._settings.kafka.group_id} "
                    f"--topic {self._settings.kafka.topic} --execute"
                )
            elif problem.fatal():
                raise StreamUnavailable(f"the Kafka consumer failed for good: {problem.str()}")
            else:
                log.warning("Kafka: %s", problem.str())
        return records

    # the batch -------------------------------------------------------------------------------------------------

    def _process(self, batch: Batch) -> None:
        self._metrics.records.inc(len(batch.messages))
        fail_points.reach("polled")
        self._send_dead_letters(batch)
        fail_points.reach("decoded")
        self._read_ahead(batch)
        self._on_one_server(partial(self._carry_out, batch))
        fail_points.reach("marked")
        self._metrics.latency.observe(np.maximum(0.0, time.time() - batch.decoded.timestamps_ms / 1000))
        self._commits.note(batch.decoded.after, batch.held)

    def _carry_out(self, batch: Batch) -> None:
        """Apply, refresh, publish, and say in Redis how far that is; all of it may be done again."""
        early = _Early(self._settings, self._live, self._ahead)
        states = self._outlasting("apply", lambda: self._store.users.apply(batch.decoded.events, meanwhile=early))
        fail_points.reach("applied")
        self._live.note_served(states)
        self._metrics.applied.inc(sum(state.applied for state in states.values()))
        self._metrics.duplicates.inc(sum(state.duplicates for state in states.values()))
        self._outlasting("refresh", lambda: self._refresh(states, early.listing))
        fail_points.reach("published")
        self._outlasting(
            "dead letters", lambda: self._dead_letters.confirm(_LONGEST_CONFIRM_S), what="the dead-letter topic"
        )
        fail_points.reach("dead-letter-sent")
        # Not of partitions that have gone and perhaps come back: reading may have begun again before this batch.
        topic, held_now = self._assignment.topic, self._assignment.held
        marks = {topic.source(p): end for p, end in batch.decoded.after.items() if held_now.get(p) == batch.held.get(p)}
        self._outlasting("mark", lambda: self._store.marks.advance(marks))

    def _on_one_server(self, action: Callable[[], None]) -> None:
        """Do an idempotent action, again if another server answers meanwhile.

        One that has taken over may lack what the one before had acknowledged since the marks last moved.
        """
        while True:
            epoch = self._store.connection.epoch
            action()
            if self._store.connection.epoch == epoch:
                return
            log.info("another Redis server answers now; what the one before acknowledged last is written again")

    def _send_dead_letters(self, batch: Batch) -> None:
        """Queue the malformed records, unless they are too many."""
        malformed = batch.decoded.malformed
        for place in range(len(batch.messages)):
            self._ceiling.note(malformed.get(place))
        for place, problem in malformed.items():
            self._dead_letters.send(batch.messages[place], problem)
            self._metrics.dead_letters.inc()

    def _refresh(self, states: Mapping[str, UserState], ready: Listing | None = None) -> None:
        """Recompute and publish the lists of these users, until each list is that of its newest history."""
        pending = dict(states)
        while pending and (live := self._live.current) is not None:
            stale = _stale(pending, live)
            outcomes = list_users(
                self._store.users,
                stale,
                live,
                self._settings.ranking,
                hidden=self._live.hidden,
                at=now(),
                ready=ready,
            )
            ready = None
            self._metrics.solves.inc(len(stale))
            published = list(outcomes.values()).count(PublishOutcome.PUBLISHED)
            self._metrics.published.inc(published)
            self._metrics.rejected.inc(len(outcomes) - published)
            if PublishOutcome.MODEL_OLDER in outcomes.values():
                self._live.look_now()  # these users are among those whom the swap refreshes
            again = [user for user, outcome in outcomes.items() if outcome is PublishOutcome.REVISION_MOVED]
            pending = self._store.users.read(again) if again else {}

    # offsets and model -----------------------------------------------------------------------------------------

    def _release_confirmed(self) -> None:
        """Store the offsets of all that is done, if the model is still live: the next owner shall not read it again."""
        self._live.look_and_wait(_LAST_LOOK_S)
        self._commits.release(self._live.confirmed_at)

    def _commit(self) -> None:
        now = time.monotonic()
        if now < self._next_commit:
            return
        self._next_commit = now + self._settings.consumer.commit_interval_s
        self._outlasting("mark", lambda: self._store.marks.advance({}))  # Redis may lose writes while nothing comes
        self._dead_letters.serve()
        fail_points.reach("before-commit")
        self._commits.release(self._live.confirmed_at)
        self._commits.commit()

    def _swap_model(self) -> None:
        """Between two batches: take a newly published model and refresh those whom its sweep may have missed."""
        self._live.take_newest()
        users = self._live.served_unconfirmed()
        live = self._live.current
        if live is None or live.stamp.sequence == self._served_sequence:
            return
        self._metrics.model_sequence.set(live.stamp.sequence)
        _spare_collections()
        log.info("model %s is live; refreshing %d users served since the last look", live.stamp.version, len(users))
        size = self._settings.consumer.batch_size
        fail_points.reach("in-model-swap")
        many = len(users) > size  # as after a model that was refused for long
        if many:
            self._assignment.pause(self._consumer)
        for start in range(0, len(users), size):
            part = users[start : start + size]
            self._on_one_server(partial(self._outlasting, "refresh", partial(self._read_and_refresh, part)))
            if many:
                self._keep_alive(0.01)
        if many:
            self._assignment.resume(self._consumer)
        self._served_sequence = live.stamp.sequence
        self._commits.release(time.monotonic())

    def _read_and_refresh(self, users: Sequence[str]) -> None:
        self._refresh(self._store.users.read(users))

    # outages ---------------------------------------------------------------------------------------------------

    def _outlasting(self, step: str, action: Callable[[], T], *, what: str = "Redis") -> T:
        """Do an idempotent step, again and again while what it needs is away; meanwhile stay in the group, paused."""
        started = said = time.monotonic()
        attempt = 0
        while True:
            try:
                result = action()
            except WritesLost:
                raise
            except (StoreError, StreamUnavailable) as error:
                if attempt == 0:
                    self._metrics.outages.inc()
                    log.warning("%s: %s; partitions paused, nothing is dropped", step, error)
                    self._assignment.pause(self._consumer)
                elif time.monotonic() - said > _SAID_AGAIN_EVERY_S:
                    log.warning("%s: still waiting after %.0f s: %s", step, time.monotonic() - started, error)
                    said = time.monotonic()
                attempt += 1
                longest = min(_LONGEST_BACKOFF_S, 0.05 * 2**attempt)
                self._keep_alive(random.uniform(longest / 2, longest))  # noqa: S311 - jitter
                continue
            if attempt:
                log.info("%s: %s is back after %.1f s and %d tries", step, what, time.monotonic() - started, attempt)
                self._assignment.resume(self._consumer)
            return result

    def _keep_alive(self, seconds: float) -> None:
        """Wait while still serving the group's heartbeat and rebalances.

        Raises
        ------
        Stopped
            When a stop was asked for.
        """
        until = time.monotonic() + seconds
        while True:
            if self._stop.is_set():
                raise Stopped
            left = until - time.monotonic()
            if left <= 0:
                return
            # Records that were on their way when the partitions were paused are kept for the next batch.
            messages = self._consume(1000, min(left, 0.1))
            self._carried += [(self._assignment.held.get(message.partition() or 0), message) for message in messages]


class _Early:
    """What is done while Redis applies a batch: decoding the next one, listing the first users of this one."""

    def __init__(self, settings: Settings, live: LiveModel, ahead: Batch | None) -> None:
        self._settings = settings
        self._live = live
        self._ahead = ahead
        self.listing: Listing | None = None

    def at_once(self) -> None:
        """Decode."""
        if self._ahead is not None:
            self._ahead.decoded  # noqa: B018 - kept

    def with_first(self, states: Mapping[str, UserState]) -> None:
        """Compute the lists of the first users, on one core: Redis is on another."""
        if (live := self._live.current) is not None:
            with threads.only(1):
                rules, hidden = self._settings.ranking, self._live.hidden
                self.listing = compute_lists(_stale(states, live), live, rules, hidden=hidden)


def _stale(states: Mapping[str, UserState], live: LoadedModel) -> dict[str, UserState]:
    """Return the users whose list is not that of this state and model."""
    return {user: state for user, state in states.items() if state.listed_sequence != live.stamp.sequence}


def _spare_collections() -> None:
    """Let garbage collections be few, and none look at what lives long: libraries and model."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)  # a batch makes some 10,000 objects that reference counting frees
