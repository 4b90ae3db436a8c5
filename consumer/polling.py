"""Reading records in micro-batches, and staying in the group while the loop waits for something else."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from consumer.batch import MessageBatch
from consumer.rebalance import Assignment
from recsys.errors import KafkaUnavailable, OffsetsLost
from recsys.kafka.clients import (
    ClientError,
    Consumer,
    KafkaException,
    Message,
    client_failed,
    is_fatal,
    kafka_unavailable,
    lacks_right,
)
from recsys.kafka.decoder import EventDecoder
from recsys.kafka.groups import describe_group
from recsys.kafka.records import location
from recsys.kafka.topics import TopicWatch
from recsys.logger import logger
from recsys.runtime.logs import GrowingIntervals
from recsys.settings import Settings

log = logger(__name__)
_IDLE_S = 0.1
_WITHOUT_PARTITIONS_S = 5.0
_OFFSET_GONE = (ClientError._AUTO_OFFSET_RESET, ClientError.OFFSET_OUT_OF_RANGE)


class Stopped(Exception):
    """A stop was asked for while the loop was waiting out an outage; the batch at hand will be read again."""


class Polling:
    """Reads the records of this member's partitions. One thread uses it, which owns the Kafka consumer.

    Parameters
    ----------
    stop : threading.Event
        Set when the service is to stop.
    """

    def __init__(
        self,
        consumer: Consumer,
        assignment: Assignment,
        watch: TopicWatch,
        decoder: EventDecoder,
        settings: Settings,
        stop: threading.Event,
    ) -> None:
        self.assignment = assignment
        self._consumer = consumer
        self._watch = watch
        self._decoder = decoder
        self._kafka = settings.kafka
        self._batch_size = settings.consumer.batch_size
        self._stop = stop
        self._ahead: MessageBatch | None = None
        self._carried: list[tuple[int | None, Message]] = []
        """Records read while waiting, each with the assignment that brought it; they come after those of `_ahead`."""
        self._without = GrowingIntervals(delay_s=_WITHOUT_PARTITIONS_S)
        self._without_since = time.monotonic()

    @property
    def is_stopping(self) -> bool:
        """Whether a stop was asked for."""
        return self._stop.is_set()

    def subscribe(self, *, before_revoke: Callable[[], None]) -> None:
        """Join the group; ``before_revoke`` is called when there is a last chance to store offsets."""
        self.assignment.subscribe(self._consumer, before_revoke=before_revoke)

    def next_batch(self) -> MessageBatch:
        """Return the batch that was read ahead, else wait a moment for what comes; it may be empty.

        A first record is waited for, then all that are there are taken: few when it is quiet, many under a backlog.

        Raises
        ------
        KafkaError
            When the Kafka client cannot go on, or the topic is no longer the same.
        """
        ahead, self._ahead = self._ahead, None
        batch = self._batch_of(self._poll()) if ahead is None else ahead.without_lost(self.assignment.held)
        self._say_if_without_partitions()
        self._watch.raise_if_changed()
        return batch

    def read_ahead(self, batch: MessageBatch) -> MessageBatch | None:
        """Read the next batch already and return it, if ``batch`` is full: then there is a backlog."""
        if len(batch.messages) >= self._batch_size:
            ahead = self._batch_of(self._consume(self._batch_size, 0))
            self._ahead = ahead if ahead.messages else None
        return self._ahead

    def pause(self) -> None:
        """Fetch nothing more until `resume`."""
        self.assignment.pause(self._consumer)

    def resume(self) -> None:
        """Fetch again."""
        self.assignment.resume(self._consumer)

    def keep_alive(self, seconds: float) -> None:
        """Wait while still serving the group's heartbeat and rebalances.

        Raises
        ------
        Stopped
            When a stop was asked for.
        """
        until = time.monotonic() + seconds
        while True:
            if self.is_stopping:
                raise Stopped
            left = until - time.monotonic()
            if left <= 0:
                return
            # Records that were on their way when the partitions were paused are kept for the next batch.
            messages = self._consume(1000, min(left, 0.1))
            self._carried += [(self.assignment.held.get(message.partition() or 0), message) for message in messages]

    def _batch_of(self, messages: Sequence[Message]) -> MessageBatch:
        held = dict(self.assignment.held)
        # What has been revoked meanwhile is left to its next owner, who reads it again.
        ours = [message for message in messages if message.partition() in held]
        return MessageBatch(ours, held, self.assignment.topic, self._decoder)

    def _poll(self) -> list[Message]:
        held = self.assignment.held
        messages = [message for number, message in self._carried if held.get(message.partition() or 0) == number]
        self._carried = []
        if not messages:
            messages = self._consume(1, _IDLE_S)
        if messages:
            messages += self._consume(self._batch_size - len(messages), 0)
        return messages

    def _consume(self, most: int, timeout_s: float) -> list[Message]:
        if most < 1:
            return []
        try:
            messages = self._consumer.consume(most, timeout_s)
        except (KafkaException, RuntimeError) as error:
            # consume() may have dequeued records that are now gone: only a new consumer is safe.
            raise KafkaUnavailable(f"the Kafka consumer failed: {error}") from error
        records = [message for message in messages if self._is_record(message)]
        self.assignment.raise_failure()
        return records

    def _is_record(self, message: Message) -> bool:
        """Say whether this is a record; it may also be an error of the client."""
        problem = message.error()
        if problem is None:
            return True
        if problem.code() in _OFFSET_GONE:
            self._watch.raise_if_changed(look=True)
            raise OffsetsLost(
                f"{location(message)}: the next offset is no longer in the topic ({problem.str()}); recsys rebuild "
                f"applies what is in the archive; then, to continue from the oldest record that is left: "
                f"kafka-consumer-groups.sh --bootstrap-server {self._kafka.bootstrap_servers} "
                f"--reset-offsets --to-earliest --group {self._kafka.group_id} --topic {self._kafka.topic} --execute"
            )
        if lacks_right(problem):
            raise kafka_unavailable(self._kafka, problem)
        if is_fatal(problem):
            raise client_failed(self._kafka, problem, "consumer")
        log.warning("kafka_problem", "Kafka: {error}", error=problem.str())
        return False

    def _say_if_without_partitions(self) -> None:
        if self.assignment.held:
            self._without.begin_anew()
            self._without_since = time.monotonic()
        elif self._without.are_due():  # in a thread: the answer may take long, and this one must go on polling
            threading.Thread(target=self._say_what_is_waited_for, name="ask-group", daemon=True).start()

    def _say_what_is_waited_for(self) -> None:
        if not (members := describe_group(self._kafka)):
            return  # no broker answers, which is said elsewhere
        log.info(
            "no_partitions",
            "no partitions for {waited_s:.0f} s: group {group} has {members}. More members than topic {topic} "
            "has partitions ({partitions}) stand by; one that was killed keeps its partitions until "
            "session.timeout.ms is over; all members: kafka-consumer-groups.sh --bootstrap-server "
            "{bootstrap_servers} --describe --members --verbose --group {group}",
            waited_s=time.monotonic() - self._without_since,
            group=self._kafka.group_id,
            members=members,
            topic=self._kafka.topic,
            partitions=len(self.assignment.topic.partitions),
            bootstrap_servers=self._kafka.bootstrap_servers,
        )
