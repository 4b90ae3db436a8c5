"""The loop: poll, decode, apply, refresh, publish, commit.

Delivery: at least once from Kafka, exactly once in effect in Redis. The steps for one batch, in this order:

1. poll     up to `consumer.batch_size` records
2. decode   each into events; malformed ones are queued for the dead-letter topic, unless they are too many; under a
            backlog already while the batch before is being applied
3. apply    each user's events to the history in Redis (one call per user, idempotent), once it is noted how they were
            read: whoever reads them again reads them so
4. refresh  those users' lists: one solve per user, however many events
5. publish  each list, unless a fresher one is there (compare-and-set)
6. commit   once the dead letters are acknowledged: move the applied offsets in Redis, store the offsets, commit them
            every second

A crash between any two steps makes Kafka deliver the batch again, and steps 3 and 5 recognize it. While Redis or
the dead-letter topic is away the batch is kept, its partitions are paused, and the step is tried again.
"""

from __future__ import annotations

import time

import numpy as np

from consumer.batch import DecodedBatch, MessageBatch
from consumer.commits import Commits
from consumer.dead_letters import DeadLetters
from consumer.metrics import ConsumerMetrics
from consumer.model_swap import ModelSwap, spare_collections
from consumer.outages import Outages, on_one_server
from consumer.polling import Polling, Stopped
from consumer.refresher import Refresher
from recsys.errors import KafkaUnavailable
from recsys.kafka.shared_reading import SharedReading
from recsys.logger import logger
from recsys.redis import Store
from recsys.runtime import fail_points, threads
from recsys.runtime.clock import now

log = logger(__name__)
_LAST_LOOK_S = 2.0
_LONGEST_CONFIRM_S = 1.0


class Loop:
    """Runs in one thread, which owns the Kafka consumer. Its parts know how; it knows what comes after what."""

    def __init__(
        self,
        polling: Polling,
        outages: Outages,
        store: Store,
        refresher: Refresher,
        swap: ModelSwap,
        dead_letters: DeadLetters,
        commits: Commits,
        reading: SharedReading,
        metrics: ConsumerMetrics,
    ) -> None:
        self._polling = polling
        self._outages = outages
        self._store = store
        self._refresher = refresher
        self._live = refresher.live
        self._swap = swap
        self._dead_letters = dead_letters
        self._commits = commits
        self._reading = reading
        self._metrics = metrics
        metrics.partitions.set_function(lambda: len(polling.assignment.held))

    def run(self) -> None:
        """Loop until stopped; commit and return.

        Raises
        ------
        KafkaError
            When the Kafka client cannot go on; a new one can.
        WritesLost
            When Redis has lost writes; a new Kafka client reads them again.
        TooManyMalformed
            When a person has to look; what comes before the record that is one too many is done.
        """
        spare_collections()
        self._polling.subscribe(before_revoke=self._release_confirmed)
        try:
            while not self._polling.is_stopping:
                if (batch := self._polling.next_batch()).messages:
                    self.step(batch)
                self._take_newest_model()
                if self._commits.are_due:
                    self._commit()
            self._live.look_and_wait(_LAST_LOOK_S)
            self._take_newest_model()
        except Stopped:
            log.info("stopped_waiting", "stopped while waiting; the records of this batch will be read again")
        self._commits.release(self._live.confirmed_at)
        # Not left to the rebalance that closing brings: a clean stop shall leave nothing to be read twice.
        self._commits.commit_and_wait()

    def step(self, batch: MessageBatch) -> None:
        """Carry out one batch. Whatever is done again after an outage or a failover is idempotent."""
        users, live, refresher, retry = self._store.users, self._live.current, self._refresher, self._outages.retry
        fail_points.reach("polled")
        for attempt in retry("decode", needs="the schema registry"):
            with attempt:
                decoded = batch.decode()
        batch, decoded = self._within_limit(batch, decoded)
        self._metrics.records.inc(len(batch.messages))
        self._metrics.note_decoded(decoded)
        self._dead_letters.send(batch.messages, decoded.malformed)
        fail_points.reach("decoded")
        ahead = self._polling.read_ahead(batch)
        for _ in on_one_server(self._store.connection):
            self._claim(batch, decoded)
            for attempt in retry("apply"):
                with attempt, users.applying(decoded.events) as applying:  # sent: from here on Redis is at work
                    if ahead is not None:
                        ahead.decode_early()
                    first_states = applying.first_states()
                    if live is not None:
                        with threads.limit(1):  # Redis needs the other cores
                            first = refresher.compute(first_states, live)
                    states = applying.states()
            fail_points.reach("applied")
            self._live.note_served(states)
            self._metrics.note_applied(states.values())
            for attempt in retry("refresh"):
                with attempt:
                    if live is None:
                        continue  # there is no model yet: the first one's full refresh makes the lists
                    with users.publishing(live.stamp, at=now()) as publishing:
                        first = refresher.still_right(first, live)
                        publishing.send(first.revisions, first.encoded())  # Redis writes while the rest is computed
                        rest = refresher.compute(states, live, besides=first)
                        publishing.send(rest.revisions, rest.encoded())
                        outcomes = publishing.outcomes()
                    refresher.settle(outcomes)
            fail_points.reach("published")
            for attempt in retry("dead letters", needs="the dead-letter topic"):
                with attempt:
                    self._dead_letters.confirm(_LONGEST_CONFIRM_S)
            fail_points.reach("dead-letter-sent")
            for attempt in retry("mark"):
                with attempt:
                    users.let_reserved_expire(states)
                    self._store.applied_offsets.advance(
                        self._polling.assignment.still_held(batch.held, decoded.next_offsets)
                    )
        fail_points.reach("marked")
        if live is not None:  # else no list was written
            self._metrics.latency.observe(np.maximum(0.0, time.time() - decoded.timestamps_ms / 1000))
        self._commits.note(decoded.next_offsets, batch.held)
        self._dead_letters.raise_flood()

    def _within_limit(self, batch: MessageBatch, decoded: DecodedBatch) -> tuple[MessageBatch, DecodedBatch]:
        """Leave out the record that is malformed and one too many, and all that come after it."""
        passing = self._dead_letters.within_limit(batch.messages, decoded.malformed)
        if passing == len(batch.messages):
            return batch, decoded
        batch = batch.first(passing)
        for attempt in self._outages.retry("decode", needs="the schema registry"):
            with attempt:
                decoded = batch.decode()
        return batch, decoded

    def _claim(self, batch: MessageBatch, decoded: DecodedBatch) -> None:
        """Note which records are about to be applied.

        Raises
        ------
        KafkaUnavailable
            When another consumer reads them in another way by now: this one was held up for long, and has lost them.
        """
        if decoded.events:
            ends = self._polling.assignment.still_held(batch.held, decoded.next_offsets)
            for attempt in self._outages.retry("claim"):
                with attempt:
                    lost = self._reading.claim_to_apply(ends)
            if lost:
                raise KafkaUnavailable(f"another consumer reads {lost} by now, with other settings of events")

    def _take_newest_model(self) -> None:
        if self._swap.swap():
            self._commits.release(time.monotonic())

    def _release_confirmed(self) -> None:
        """Store the offsets of all that is done, if the model is still live: the next owner shall not read it again."""
        self._live.look_and_wait(_LAST_LOOK_S)
        self._commits.release(self._live.confirmed_at)

    def _commit(self) -> None:
        for attempt in self._outages.retry("mark"):
            with attempt:
                self._store.applied_offsets.advance({})  # Redis may lose writes while nothing comes
        self._dead_letters.serve()
        fail_points.reach("before-commit")
        self._commits.release(self._live.confirmed_at)
        self._commits.commit()
