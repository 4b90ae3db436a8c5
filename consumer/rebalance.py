"""What happens when partitions come and go.

Callbacks run inside consume() and close(). An exception that leaves one makes librdkafka drop the records it had
dequeued, so every callback keeps its failure for the loop to raise.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping

from recsys.errors import KafkaUnavailable, RecsysError
from recsys.kafka.clients import (
    ClientError,
    Consumer,
    KafkaException,
    TopicPartition,
    is_fatal,
    kafka_unavailable,
)
from recsys.kafka.start_offsets import place_to_commit, start_offsets
from recsys.kafka.topics import Topic, describe_topic
from recsys.logger import logger
from recsys.redis import AppliedOffsets
from recsys.runtime import fail_points
from recsys.settings import KafkaSettings

log = logger(__name__)
# Together with what else a stop takes they are less than `consumer.main` gives it, and supervisors do.
_LONGEST_COMMIT_S = 3.5
_LONGEST_CLOSE_S = 3.5


class Assignment:
    """The partitions of this consumer.

    Attributes
    ----------
    topic : Topic
        As described at the newest assignment; its id is part of every low-water mark.
    held : dict of int → int
        The partitions, each with the number of the assignment that brought it: what was read under another
        assignment of the same partition may be from before records that are to be read again.
    paused : bool
        Whether an outage holds the partitions back; new ones are then paused at once.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        topic: Topic,
        marks: AppliedOffsets,
        *,
        before_read: Callable[[Topic, Mapping[int, int]], None] = lambda topic, unapplied: None,
    ) -> None:
        self._settings = settings
        self._before_read = before_read
        self._marks = marks
        self.topic = topic
        self.held: dict[int, int] = {}
        self._assignments = 0
        self.paused = False
        self._failure: BaseException | None = None
        self._before_revoke: Callable[[], None] = lambda: None

    def subscribe(self, consumer: Consumer, *, before_revoke: Callable[[], None]) -> None:
        """Join the group; ``before_revoke`` is called when there is a last chance to store offsets."""
        self._before_revoke = before_revoke
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
                raise kafka_unavailable(self._settings, failure) from failure
            if isinstance(failure, RecsysError):
                raise failure
            raise KafkaUnavailable(f"a rebalance failed: {failure!r}") from failure

    def pause(self, consumer: Consumer) -> None:
        """Stop fetching, until `resume`; consume() may go on being called and returns nothing new."""
        self.paused = True
        if self.held:
            consumer.pause(self._places(self.held))

    def resume(self, consumer: Consumer) -> None:
        """Fetch again."""
        self.paused = False
        if self.held:
            consumer.resume(self._places(self.held))

    def still_held(self, held: Mapping[int, int], offsets: Mapping[int, int]) -> dict[str, int]:
        """Return the offsets, by source, of those partitions that are still held as they were: by the same assignment.

        Of partitions that have gone and perhaps come back reading may have begun again at an earlier place.
        """
        ours = (partition for partition in offsets if self.held.get(partition) == held.get(partition))
        return {self.topic.source(partition): offsets[partition] for partition in ours}

    def _places(self, partitions: Iterable[int]) -> list[TopicPartition]:
        return [TopicPartition(self.topic.name, partition) for partition in sorted(partitions)]

    def _kept(
        self, callback: Callable[[Consumer, list[TopicPartition]], None]
    ) -> Callable[[Consumer, list[TopicPartition]], None]:
        def call(consumer: Consumer, places: list[TopicPartition]) -> None:
            try:
                fail_points.reach("in-rebalance")
                callback(consumer, places)
            except (KafkaException, RecsysError) as error:
                log.error("rebalance_failed", "rebalance: {error}", error=error)
                problem = error if isinstance(error, KafkaException) else error.__cause__
                if isinstance(problem, KafkaException) and is_fatal(problem.args[0]):
                    return  # why the client has failed for good is said by its next message, and by nothing else
                self._failure = error
            except Exception as error:  # none may leave a callback: records already fetched would be gone
                log.exception("unexpected_error", "rebalance: unexpected error")
                self._failure = error

        return call

    def _assign(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        if not places:
            consumer.incremental_assign([])
            return
        self.topic = describe_topic(self._settings, self.topic.name)
        partitions = [place.partition for place in places]
        marks = self._marks.read(self.topic.sources(partitions))
        decided = start_offsets(consumer, self._settings, self.topic, partitions, marks=marks)
        self._marks.follow({self.topic.source(p): (start.offset, start.mark) for p, start in decided.items()})
        self._before_read(self.topic, {p: start.mark or 0 for p, start in decided.items()})
        starts = [TopicPartition(self.topic.name, partition, start.offset) for partition, start in decided.items()]
        consumer.incremental_assign(starts)
        # Said at once, before anything is read: from now on a mark must be there, and an operator's reset is used up.
        ours = [place_to_commit(self.topic, partition, start.offset) for partition, start in decided.items()]
        consumer.commit(offsets=ours, asynchronous=True)
        if self.paused:
            consumer.pause(starts)
        else:  # one that was taken away while it was paused comes back paused
            consumer.resume(starts)
        self._assignments += 1
        self.held.update({place.partition: self._assignments for place in starts})
        log.info(
            "partitions_assigned",
            "assigned: {partitions}",
            partitions=", ".join(f"{p.topic}[{p.partition}] from {p.offset}" for p in starts),
        )

    def _revoke(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        if places:
            self._before_revoke()
            _commit_in_passing(consumer)
            self._give_up(places)
            log.info(
                "partitions_revoked",
                "revoked: {partitions}",
                partitions=", ".join(f"{place.topic}[{place.partition}]" for place in places),
            )
        consumer.incremental_unassign(places)

    def _lose(self, consumer: Consumer, places: list[TopicPartition]) -> None:
        # Another member may have them already: committing could move its offsets back.
        self._give_up(places)
        log.warning(
            "partitions_lost",
            "lost: {partitions}",
            partitions=", ".join(f"{place.topic}[{place.partition}]" for place in places),
        )
        consumer.incremental_unassign(places)

    def _give_up(self, places: list[TopicPartition]) -> None:
        for place in places:
            self.held.pop(place.partition, None)
        self._marks.leave(self.topic.sources(place.partition for place in places))


def _commit_in_passing(consumer: Consumer) -> None:
    """Commit the stored offsets from within a callback.

    The client gives partitions up only when the commits under way are answered, so there is nothing to wait for here.
    """
    try:
        consumer.commit(asynchronous=True)
    except KafkaException as error:
        if error.args[0].code() != ClientError._NO_OFFSET:
            raise


def commit_now(consumer: Consumer) -> None:
    """Commit the stored offsets and wait a while; a failure means redelivery, which changes nothing.

    Not for callbacks: it commits in a thread, which would wait for the consume() or close() that called them to end.
    """

    def commit() -> None:
        try:
            consumer.commit(asynchronous=False)
        except (KafkaException, RuntimeError) as error:
            if not isinstance(error, KafkaException) or error.args[0].code() != ClientError._NO_OFFSET:
                log.warning(
                    "offsets_not_committed",
                    "offsets not committed, their records will be read again: {error}",
                    error=error,
                )

    if not _within(_LONGEST_COMMIT_S, commit):
        log.warning(
            "offsets_not_committed",
            "offsets not committed within {after_s:g} s, their records will be read again",
            after_s=_LONGEST_COMMIT_S,
        )


def close(consumer: Consumer) -> None:
    """Leave the group; a broker that does not answer is left behind without a word."""

    def leave() -> None:
        try:
            consumer.close()
        except RuntimeError as error:  # it was closed already
            log.debug("close_failed", "close: {error}", error=error)

    if not _within(_LONGEST_CLOSE_S, leave):
        log.warning("left_without_goodbye", "Kafka does not answer; ending without leaving the group")


def _within(seconds: float, action: Callable[[], object]) -> bool:
    """Do something that takes no time-out of its own; return whether it ended in time."""
    thread = threading.Thread(target=action, daemon=True)
    thread.start()
    thread.join(seconds)
    return not thread.is_alive()
