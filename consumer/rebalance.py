"""What happens when partitions come and go.

Callbacks run inside consume() and close(). An exception that leaves one makes librdkafka drop the records it had
dequeued, so every callback keeps its failure for the loop to raise.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from recsys.errors import RecsysError
from recsys.kafka import Topic, describe_topic, stream_unavailable
from recsys.settings import KafkaSettings

log = logging.getLogger(__name__)

_LONGEST_COMMIT_S = 10.0
_LONGEST_CLOSE_S = 15.0


class Assignment:
    """The partitions of this consumer.

    Attributes
    ----------
    topic : Topic
        As described at the newest assignment; its id is part of every floor.
    partitions : set of int
    paused : bool
        Whether an outage holds the partitions back; new ones are then paused at once.
    """

    def __init__(self, settings: KafkaSettings, topic: Topic) -> None:
        self._settings = settings
        self.topic = topic
        self.partitions: set[int] = set()
        self.paused = False
        self._failure: BaseException | None = None

    def subscribe(self, consumer: Consumer) -> None:
        """Join the group."""
        consumer.subscribe(
            [self.topic.name],
            on_assign=self._kept(self._assign),
            on_revoke=self._kept(self._revoke),
            on_lost=self._kept(self._lose),
        )

    def raise_failure(self) -> None:
        """Raise what went wrong in a callback, if anything did."""
        if self._failure is not None:
            failure, self._failure = self._failure, None
            if isinstance(failure, KafkaException):
                raise stream_unavailable(self._settings, failure) from failure
            raise failure

    def pause(self, consumer: Consumer) -> None:
        """Stop fetching, until `resume`; consume() may go on being called and returns nothing new."""
        self.paused = True
        if self.partitions:
            consumer.pause(self._places(self.partitions))

    def resume(self, consumer: Consumer) -> None:
        """Fetch again."""
        self.paused = False
        if self.partitions:
            consumer.resume(self._places(self.partitions))

    def _places(self, partitions: set[int]) -> list[TopicPartition]:
        return [TopicPartition(self.topic.name, partition) for partition in sorted(partitions)]

    def _kept(
        self, callback: Callable[[Consumer, list[TopicPartition]], None]
    ) -> Callable[[Consumer, list[TopicPartition]], None]:
        def call(consumer: Consumer, places: list[TopicPartition]) -> None:
            try:
                callback(consumer, places)
            except (KafkaException, RecsysError, RuntimeError) as error:
                log.error("rebalance: %s", error)
                self._failure = error

        return call

    def _assign(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        if not places:
            consumer.incremental_assign([])
            return
        self.topic = describe_topic(self._settings, self.topic.name)
        starts = []
        for place in consumer.committed(places, timeout=self._settings.timeout_s):
            if place.error is not None:
                raise KafkaException(place.error)
            offset = place.offset
            if offset < 0:  # nothing committed yet: from the oldest record on
                offset, _ = consumer.get_watermark_offsets(place, timeout=self._settings.timeout_s, cached=False)
            starts.append(TopicPartition(place.topic, place.partition, offset))
        consumer.incremental_assign(starts)
        if self.paused:
            consumer.pause(starts)
        self.partitions |= {place.partition for place in starts}
        log.info("assigned: %s", ", ".join(f"{p.topic}[{p.partition}] from {p.offset}" for p in starts))

    def _revoke(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        if places:
            commit_now(consumer)
            self.partitions -= {place.partition for place in places}
            log.info("revoked: %s", ", ".join(f"{place.topic}[{place.partition}]" for place in places))
        consumer.incremental_unassign(places)

    def _lose(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        # Another member may have them already: committing could move its offsets back.
        self.partitions -= {place.partition for place in places}
        log.warning("lost: %s", ", ".join(f"{place.topic}[{place.partition}]" for place in places))
        consumer.incremental_unassign(places)


def commit_now(consumer: Consumer) -> None:
    """Commit the stored offsets and wait a while; a failure means redelivery, which changes nothing."""

    def commit() -> None:
        try:
            consumer.commit(asynchronous=False)
        except (KafkaException, RuntimeError) as error:
            if not isinstance(error, KafkaException) or error.args[0].code() != KafkaError._NO_OFFSET:
                log.warning("offsets not committed, their records will be read again: %s", error)

    if not _within(_LONGEST_COMMIT_S, commit):
        log.warning("offsets not committed within %g s, their records will be read again", _LONGEST_COMMIT_S)


def close(consumer: Consumer) -> None:
    """Leave the group; a broker that does not answer is left behind without a word."""

    def leave() -> None:
        try:
            consumer.close()
        except RuntimeError as error:  # it was closed already
            log.debug("close: %s", error)

    if not _within(_LONGEST_CLOSE_S, leave):
        log.warning("Kafka does not answer; leaving without saying so")


def _within(seconds: float, action: Callable[[], object]) -> bool:
    """Do something that takes no time-out of its own; return whether it ended in time."""
    thread = threading.Thread(target=action, daemon=True)
    thread.start()
    thread.join(seconds)
    return not thread.is_alive()
