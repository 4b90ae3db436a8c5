"""Malformed records go to the dead-letter topic, byte for byte where it takes them, with headers that say why."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import count
from types import TracebackType

from consumer.malformed_limit import MalformedLimit, reason_in_log
from consumer.metrics import ConsumerMetrics
from recsys.errors import KafkaUnavailable, MalformedEvent, TooManyMalformed
from recsys.kafka.clients import (
    ClientError,
    KafkaException,
    Message,
    explained,
    fatal_error_of,
    is_fatal,
    lacks_right,
    open_producer,
)
from recsys.kafka.letters import Letter
from recsys.kafka.topics import Topic, create_topic_if_missing, describe_topic
from recsys.logger import logger
from recsys.runtime.logs import RepeatsLeftOut
from recsys.settings import Settings

log = logger(__name__)
logging.getLogger(__name__).addFilter(
    RepeatsLeftOut(every_s=30.0)
)  # a flood shows each kind of reason, not each record
_MAX_BYTES = 100_000_000  # the topic sets the limit, not this client
_MISSING = (ClientError.UNKNOWN_TOPIC_OR_PART, ClientError._UNKNOWN_TOPIC, ClientError._UNKNOWN_PARTITION)
_TOO_LARGE = (ClientError.MSG_SIZE_TOO_LARGE, ClientError.RECORD_LIST_TOO_LARGE)
_CUT_TO = (983_040, 245_760, 61_440, 15_360, 4_096, 1_024)
"""Bytes of a letter that is too large, one after the other: the first is what topics take by default."""


class DeadLetters:
    """Produces to the dead-letter topic.

    At least once: a record's offset may be committed only after `confirm` has returned. What is not acknowledged is
    kept and sent again, for ever. What is too large for the topic is cut, so that the stream goes on. Use it as a
    context manager: the producer is made on entry.

    Parameters
    ----------
    settings : Settings
    metrics : ConsumerMetrics
    topic : Topic
        Where the records come from; the dead-letter topic gets as many partitions, should it have to be created again.
    """

    def __init__(self, settings: Settings, metrics: ConsumerMetrics, topic: Topic) -> None:
        self._settings = settings.kafka
        self._metrics = metrics
        self._limit = MalformedLimit(settings)
        self._topic = topic
        self._numbers = count()
        self._letters: dict[int, Letter] = {}
        """Not acknowledged yet."""
        self._cut: dict[int, Letter] = {}
        """Of these, those that were too large, as they are sent instead."""
        self._unsent: deque[int] = deque()
        """Of these, those that the producer has not taken yet."""
        self._one_by_one = False
        """Whether a refusal is to tell which letter is too large."""
        self._refusal: ClientError | None = None
        """Why the producer sends no more; of one that has failed for good only its poll() tells the cause."""
        self._is_reported = False
        """Whether `confirm` has raised because of it."""
        self._flood: TooManyMalformed | None = None

    def __enter__(self) -> DeadLetters:
        self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close()

    def within_limit(self, messages: Sequence[Message], malformed: Mapping[int, MalformedEvent]) -> int:
        """Return how many of these records come before one that is malformed and one too many; all if none is."""
        for place, message in enumerate(messages):
            try:
                self._limit.note(malformed.get(place), partition=message.partition() or 0, offset=message.offset() or 0)
            except TooManyMalformed as error:
                self._flood = error
                return place
        return len(messages)

    def raise_flood(self) -> None:
        """Raise `TooManyMalformed` if `within_limit` has met a record that is one too many."""
        if self._flood is not None:
            raise self._flood

    def send(self, messages: Sequence[Message], malformed: Mapping[int, MalformedEvent]) -> None:
        """Send those of a batch's records that are malformed, each with the reason, now or when `confirm` is called."""
        for place, error in malformed.items():
            self._send(messages[place], error)
            self._metrics.note_malformed(error.reason)

    def _send(self, message: Message, error: MalformedEvent) -> None:
        log.warning(
            "dead_letter",
            "dead letter: {topic}[{partition}] {offset}: {reason}",
            topic=message.topic(),
            partition=message.partition(),
            offset=message.offset(),
            reason=reason_in_log(error.reason),
        )
        number = next(self._numbers)
        self._letters[number] = Letter.of(message, error, topic_id=self._topic.id, group=self._settings.group_id)
        self._unsent.append(number)
        self._produce_unsent()

    def serve(self) -> None:
        """Let the producer report what happened, such as a lost connection; call it now and then."""
        self._serve(0)

    def _serve(self, seconds: float) -> None:
        failure = fatal_error_of(partial(self._producer.poll, seconds))
        if failure is not None:
            self._refusal = failure

    def confirm(self, timeout_s: float) -> None:
        """Return when everything sent so far has been acknowledged; otherwise call it again.

        Raises
        ------
        KafkaUnavailable
            When the topic refuses a record, or ``timeout_s`` has passed. Nothing is lost.
        """
        if self._refusal is not None and self._is_reported:
            self._start_again(self._refusal)
        until = time.monotonic() + timeout_s
        while self._letters:
            self._produce_unsent()
            self._serve(0.1)
            if self._refusal is not None:
                if self._refusal.code() not in _TOO_LARGE or not self._made_smaller():
                    self._is_reported = True
                    raise KafkaUnavailable(self._explained(self._refusal))
                self._start_again(self._refusal)
                until = time.monotonic() + timeout_s  # this is another try
            if self._letters and time.monotonic() > until:
                raise KafkaUnavailable(f"the dead-letter topic {self._settings.dead_letters} does not acknowledge")
        self._one_by_one = False

    def _made_smaller(self) -> bool:
        """Do something about letters that were refused for their size; return whether there was something to do.

        Letters that go together may be too large together: then one goes after the other. One that is refused alone is
        cut. If nothing is left to cut, all begin again whole: somebody may have enlarged the topic meanwhile.
        """
        if not self._one_by_one:
            self._one_by_one = True
            return True
        number, whole = next(iter(self._letters.items()))
        refused = self._cut.get(number, whole)
        for most in _CUT_TO:
            cut = whole.cut_to(most)
            if most < refused.size and cut.size < refused.size:
                self._cut[number] = cut
                return True
        self._cut.clear()
        self._one_by_one = False
        return False

    def _open(self) -> None:
        self._producer = open_producer(
            self._settings,
            message_timeout_ms=0,
            linger_ms=0,
            message_max_bytes=_MAX_BYTES,
            topic_metadata_propagation_max_ms=1000,  # a topic that is gone is created again, not waited for
        )

    def _close(self) -> None:
        self._producer.purge()
        fatal_error_of(partial(self._producer.flush, 1.0))

    def _start_again(self, refusal: ClientError) -> None:
        """Send all again with a new producer: a refusal may have been the old one's last word on the topic.

        One that has failed for good sends nothing more, and does not say what of its records arrived.
        """
        if refusal.code() in _MISSING:
            self._create_topic()
        elif lacks_right(refusal):
            self.ensure_writable()
        self._close()
        self._open()
        self._refusal, self._is_reported = None, False
        self._unsent = deque(self._letters)

    def _create_topic(self) -> None:
        topic = self._settings.dead_letters
        try:
            if create_topic_if_missing(
                self._settings, topic, partitions=len(self._topic.partitions), for_records_of=self._settings.topic
            ):
                log.warning(
                    "dead_letter_topic_created",
                    "the dead-letter topic {topic} was deleted and has been created again",
                    topic=topic,
                )
        except KafkaUnavailable as error:
            raise KafkaUnavailable(
                f"the dead-letter topic {topic} was deleted and cannot be created: {error}"
            ) from error

    def _produce_unsent(self) -> None:
        while self._unsent and self._refusal is None:
            if self._one_by_one and len(self._unsent) < len(self._letters):
                return  # the one before is on its way
            number = self._unsent[0]
            letter = self._cut.get(number, self._letters[number])
            try:
                self._producer.produce(
                    self._settings.dead_letters,
                    value=letter.value,
                    key=letter.key,
                    headers=[*letter.headers, *letter.about],
                    on_delivery=partial(self._delivered, number),
                )
            except BufferError:  # the queue is full: deliveries will make room
                return
            except KafkaException as error:
                self._refusal = error.args[0]
                return
            self._unsent.popleft()

    def _delivered(self, number: int, error: ClientError | None, _: Message) -> None:
        if error is not None:
            if self._refusal is None:  # the first one says why; what follows may only say that the producer is closing
                self._refusal = error
            return
        whole, cut = self._letters.pop(number, None), self._cut.pop(number, None)
        if whole is not None and cut is not None:
            self._metrics.cut_letters.inc()
            topic, left_out = self._settings.dead_letters, cut.left_out
            log.warning(
                "dead_letter_too_large",
                "dead letter: {bytes} bytes are too large for {topic}; left out: {left_out}",
                bytes=whole.size,
                topic=topic,
                left_out=left_out,
            )

    def ensure_writable(self) -> None:
        """Make sure that this service may write to the topic.

        Raises
        ------
        KafkaUnavailable
            When it may not, or no broker answers.
        """
        topic = self._settings.dead_letters
        try:
            describe_topic(self._settings, topic, right="WRITE")
        except KafkaUnavailable as error:
            raise KafkaUnavailable(f"the dead-letter topic {topic} refuses: {error}") from error

    def _explained(self, refusal: ClientError) -> str:
        if lacks_right(refusal):
            topic = self._settings.dead_letters
            why = explained(self._settings, refusal, right="WRITE", topic=topic)
            return f"the dead-letter topic {topic} refuses: {why}"
        if is_fatal(refusal):
            return f"the producer of dead letters has failed for good, a new one is made: {refusal.str()}"
        return (
            f"the dead-letter topic {self._settings.dead_letters} refuses a record: {refusal.str()}; make sure that it "
            f"exists, that this service may write to it, and that its max.message.bytes is 64 KiB above that of "
            f"{self._settings.topic}"
        )
