"""Offsets whose records are done: held back until their lists are known to be of the live model, then committed."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from consumer.rebalance import Assignment, commit_now
from recsys.kafka.clients import ClientError, Consumer, KafkaException, TopicPartition, kafka_unavailable
from recsys.kafka.start_offsets import place_to_commit
from recsys.logger import logger
from recsys.runtime.logs import GrowingIntervals
from recsys.settings import KafkaSettings, Settings

log = logger(__name__)
_REFUSED_FOR_S = 3.0
_LONGEST_HELD_BACK_S = 60.0  # a pointer to a model that is refused must not hold up the commits for ever


class RefusedCommits:
    """Says when brokers refuse the commits of a consumer, again at growing intervals, and when they take them again.

    Its method `answered` is the client's ``on_commit``. A member that is expelled may be refused once or twice.
    """

    def __init__(self, settings: KafkaSettings, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._lines = GrowingIntervals(delay_s=_REFUSED_FOR_S, clock=clock)
        self._is_refused = False
        self._is_said = False

    def answered(self, error: ClientError | None, places: Sequence[TopicPartition]) -> None:
        """Note what a broker has answered to a commit."""
        problem = error or next((place.error for place in places if place.error is not None), None)
        if problem is None or problem.code() == ClientError._NO_OFFSET:
            if self._is_said:
                log.info("commits_taken", "commits are taken again")
            self._is_refused = self._is_said = False
            return
        if not self._is_refused:
            self._is_refused = True
            self._lines.begin_anew()
        if self._lines.are_due():
            self._is_said = True
            log.warning(
                "commits_refused",
                "the offsets of what is done cannot be committed: {error}; nothing is lost, but whoever reads on "
                "after this consumer reads those records again",
                error=kafka_unavailable(self._settings, problem),
                **self._lines.again,
            )


class Commits:
    """What this consumer may commit.

    A consumer that has not yet heard of a new model lists its users with the old one, perhaps after the full refresh
    has passed them. If it ends before it refreshes them, whoever reads their records again will. So offsets are stored
    only when a look at the pointer that began after their batch has found the model still live, or after the swap.
    """

    def __init__(self, consumer: Consumer, assignment: Assignment, settings: Settings) -> None:
        self._consumer = consumer
        self._assignment = assignment
        self._settings = settings.kafka
        self._interval_s = settings.consumer.commit_interval_s
        self._due_at = 0.0
        self._done: deque[tuple[float, Mapping[int, int], Mapping[int, int]]] = deque()

    @property
    def are_due(self) -> bool:
        """Whether it is time to commit again."""
        return time.monotonic() >= self._due_at

    def note(self, after: Mapping[int, int], held: Mapping[int, int]) -> None:
        """Note that a batch is done: the next offset by partition, and the assignments under which it was read."""
        self._done.append((time.monotonic(), after, held))

    def release(self, confirmed_at: float) -> None:
        """Store the offsets of batches that were done before that time, or a long while ago."""
        confirmed_at = max(confirmed_at, time.monotonic() - _LONGEST_HELD_BACK_S)
        while self._done and self._done[0][0] < confirmed_at:
            _, after, held = self._done.popleft()
            for partition, offset in after.items():
                if self._assignment.held.get(partition) == held.get(partition):
                    self._store(partition, offset)

    def commit(self) -> None:
        """Commit what is stored, without waiting for the answer."""
        self._due_at = time.monotonic() + self._interval_s
        try:
            self._consumer.commit(asynchronous=True)
        except KafkaException as error:
            if error.args[0].code() not in (ClientError._NO_OFFSET, ClientError._FATAL):  # the next poll says why
                log.warning("commit_failed", "commit: {error}", error=error.args[0].str())

    def commit_and_wait(self) -> None:
        """Commit what is stored, and wait a while for the answer; not for callbacks."""
        commit_now(self._consumer)

    def _store(self, partition: int, offset: int) -> None:
        try:
            self._consumer.store_offsets(offsets=[place_to_commit(self._assignment.topic, partition, offset)])
        except KafkaException as error:
            # Revoked meanwhile, or the client has failed for good, which the next poll says: the records are read
            # again, and recognized.
            if error.args[0].code() not in (ClientError._STATE, ClientError._FATAL):
                raise kafka_unavailable(self._settings, error) from error
