"""Events on their way from a request to Kafka."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from hashlib import blake2b

from pydantic import ValidationError

from api.problems import Kind, ProblemError
from recsys.api_schemas import LARGEST_INTEGER, BrokenRule
from recsys.data.broken_rules import broken_rules
from recsys.data.event import LONGEST_EVENT_ID, Event, EventReading, EventType
from recsys.errors import KafkaError, KafkaUnavailable, MalformedEvent, RightMissing, TopicMissing
from recsys.kafka.clients import (
    ClientError,
    KafkaException,
    Message,
    Producer,
    explained,
    fatal_error_of,
    lacks_right,
    open_producer,
)
from recsys.kafka.producer import OWN_HEADERS, encode
from recsys.kafka.silence import Silence
from recsys.kafka.topics import LOOK_WITHIN_S, describe_topic
from recsys.logger import logger
from recsys.redis.users import UserStore
from recsys.runtime.logs import LastingProblem
from recsys.settings import KafkaSettings

log = logger(__name__)
_LOOK_EVERY_S = 2.0
_LAST_DELIVERIES_S = 1.0
_MOST_WAITING = 50
"""Requests that wait for Kafka at a time: others must go on while it is slow."""
_DIGEST_BYTES = 12
_ID_DIGEST_BYTES = 16
_WHOLE = frozenset({"user_id", "item_id", "event_id", "timestamp"})


class RejectedEventError(Exception):
    """An event breaks a rule."""

    def __init__(self, errors: list[BrokenRule]) -> None:
        super().__init__(str(errors))
        self.errors = errors


def read_event(
    fields: object,
    users: UserStore,
    *,
    reading: EventReading,
    now_ms: int,
    idempotency_key: str,
    place: int,
    may_forget: bool,
) -> Event:
    """Return the event that a client has posted.

    Parameters
    ----------
    fields : object
        As parsed from JSON.
    users : UserStore
    reading : EventReading
    now_ms : int
        The time of the request: that of an event that says none. No event is later than a day after it.
    idempotency_key : str
        Of the request; gives an event without event_id one that is the same whenever this event is sent with this key.
    place : int
        Of the event in the request.
    may_forget : bool
        Whether the client may have users erased.

    Raises
    ------
    RejectedEventError
    """
    if not isinstance(fields, dict):
        raise RejectedEventError([BrokenRule(field="", message="must be a JSON object")])
    given = {name: _whole(name, value) for name, value in fields.items() if value is not None}
    is_timed = "timestamp" in given
    given.setdefault("timestamp", now_ms)
    try:
        if type(given["timestamp"]) is int:
            given["timestamp"] = reading.integer_timestamp(given, sent_ms=now_ms)
        event = reading.ensure_bounds(Event.model_validate(given), sent_ms=now_ms)
        users.ensure_can_hold(event.user_id)
    except ValidationError as error:
        raise RejectedEventError(
            # The only rule that concerns no single field is that of the item.
            [BrokenRule(field=field or "item_id", message=message) for field, message in broken_rules(error)]
        ) from None
    except MalformedEvent as error:
        field, _, message = error.reason.partition(": ")
        raise RejectedEventError([BrokenRule(field=field, message=message)]) from None
    if event.type is EventType.FORGET and not may_forget:
        raise RejectedEventError([BrokenRule(field="type", message="a forget needs the role operate")])
    if idempotency_key and event.event_id is None:
        content = event.model_dump_json(exclude=set() if is_timed else {"timestamp"})
        parts = (idempotency_key, content)
        key, digest = (blake2b(part.encode(), digest_size=_DIGEST_BYTES).hexdigest() for part in parts)
        event = event.model_copy(update={"event_id": f"http:{key}:{place}:{digest}"})
    return event


def scoped(event: Event, client: str) -> Event:
    """Return an event as it is published: the event_id that a client gave it in the name space of that client's key.

    So no client can use up the ids of another, nor those of the shop's own producers, whose ids do not begin with
    ``http:``. One that would be too long is replaced by its digest.

    Parameters
    ----------
    event : Event
    client : str
        Name of the key.
    """
    if event.event_id is None:
        return event
    whole = f"http:{client}/{event.event_id}"
    if len(whole) > LONGEST_EVENT_ID:
        digest = blake2b(event.event_id.encode(), digest_size=_ID_DIGEST_BYTES).hexdigest()
        whole = f"http:{client}#{digest}"  # a name holds neither / nor #
    return event.model_copy(update={"event_id": whole})


def _whole(name: str, value: object) -> object:
    """Read an id or a time that is written 42.0 as 42: JSON has one kind of numbers."""
    if name not in _WHOLE or isinstance(value, bool) or not isinstance(value, int | float):
        return value
    if abs(value) > LARGEST_INTEGER:
        raise RejectedEventError([BrokenRule(field=name, message="an integer of this size must be sent as a string")])
    return int(value) if isinstance(value, float) and value.is_integer() else value


class PurchaseSink:
    """Delivers events to Kafka, with acks=all. A thread serves the producer, another looks whether the topic is there.

    A producer that has failed for good is replaced.

    Parameters
    ----------
    settings : KafkaSettings
    on_silence : callable
        Takes the seconds since a broker last answered, 0 while they do.

    Attributes
    ----------
    is_ready : bool
        Whether a broker answered the last look, and this service may write to the topic.
    """

    def __init__(self, settings: KafkaSettings, *, on_silence: Callable[[float], None] = lambda _: None) -> None:
        self._settings = settings
        self._silence = Silence(settings, log, on_silence)
        self._awaited: set[asyncio.Future[None]] = set()
        """Of each request that waits for Kafka, what ends its wait."""
        self._stopped = threading.Event()
        self._look = threading.Event()
        self._waiting = 0
        self._is_broken = False
        """Whether the producer was refused what it does not ask for again."""
        self.is_ready = False

    @contextmanager
    def opened(self) -> Iterator[PurchaseSink]:
        """Open the producer; the block may deliver."""
        self._producer = self._new_producer()
        threads = [
            threading.Thread(target=self._serve, name="deliveries", daemon=True),
            threading.Thread(target=self._watch, name="topic-look", daemon=True),
        ]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._stopped.set()
            self._look.set()
            threads[0].join()
            fatal_error_of(partial(self._producer.flush, _LAST_DELIVERIES_S))  # no request waits for them any more

    def _new_producer(self) -> Producer:
        timeout_ms = int(self._settings.timeout_s * 1000)
        return open_producer(self._settings, linger_ms=2, compression_type="zstd", message_timeout_ms=timeout_ms)

    async def deliver(self, events: Sequence[Event]) -> list[bool]:
        """Return for each event whether Kafka has confirmed it, on all replicas.

        Raises
        ------
        KafkaUnavailable
            When no broker answered last; nothing was sent.
        ProblemError
            503, when too many requests wait already; nothing was sent.
        """
        if not self.is_ready:
            raise KafkaUnavailable(f"Kafka at {self._settings.bootstrap_servers} is unavailable")
        if self._waiting >= _MOST_WAITING:
            raise ProblemError(Kind.OVERLOADED, "too many events wait for Kafka; try again in a moment")
        self._waiting += 1
        try:
            delivered = await self._delivered(events)
        finally:
            self._waiting -= 1
        if not all(delivered):
            self.is_ready = False  # until a look finds a broker: no other request has to wait for the time-out
            self._look.set()
        return delivered

    async def _delivered(self, events: Sequence[Event]) -> list[bool]:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        delivered = [False] * len(events)
        left = len(events)

        def settle(place: int, is_there: bool) -> None:
            nonlocal left
            delivered[place] = is_there
            left -= 1
            if not left and not done.done():
                done.set_result(None)

        for place, event in enumerate(events):

            def on_delivery(error: ClientError | None, _: Message, place: int = place) -> None:
                if error is not None:
                    self._note(error)
                loop.call_soon_threadsafe(settle, place, error is None)

            try:
                self._producer.produce(
                    self._settings.topic,
                    encode(event),
                    event.user_id.encode(),
                    headers=OWN_HEADERS,
                    on_delivery=on_delivery,
                )
            except BufferError as error:
                log.warning(
                    "purchase_not_queued",
                    "an event was not queued for {topic}: {error}",
                    topic=self._settings.topic,
                    error=error,
                )
                settle(place, False)
            except KafkaException as error:
                self._note(error.args[0])
                settle(place, False)
        if left:
            self._awaited.add(done)
            try:
                await done
            finally:
                self._awaited.discard(done)
        return delivered

    def _note(self, error: ClientError) -> None:
        """Say why an event was not delivered; what the producer was refused it goes on refusing, so it is replaced."""
        log.warning(
            "purchase_not_delivered",
            "an event was not delivered to {topic}: {error}",
            topic=self._settings.topic,
            error=self._explained(error),
        )
        self._is_broken = self._is_broken or lacks_right(error)  # poll() tells if it has failed for good

    def _explained(self, error: ClientError) -> str:
        return explained(self._settings, error, right="WRITE")

    def _serve(self) -> None:
        while not self._stopped.is_set():
            failure = fatal_error_of(partial(self._producer.poll, 0.1))
            if failure is not None:  # it will deliver nothing more
                self._note_broken(failure)
                self._stopped.wait(_LOOK_EVERY_S / 4)

    def _note_broken(self, failure: ClientError) -> None:
        log.error(
            "producer_failed",
            "the Kafka producer has failed for good, a new one is made: {error}",
            error=self._explained(failure),
        )
        self._is_broken, self.is_ready = True, False
        self._end_waits()
        self._look.set()

    def _replace_producer(self) -> None:
        """Make a new producer; events whose deliveries the old one will not report any more count as failed."""
        broken, self._producer = self._producer, self._new_producer()
        self._is_broken = False
        broken.purge()
        fatal_error_of(partial(broken.flush, 1.0))
        self._end_waits()

    def _end_waits(self) -> None:
        for done in self._awaited.copy():
            done.get_loop().call_soon_threadsafe(_end, done)

    def _watch(self) -> None:
        settings = self._settings.model_copy(update={"timeout_s": min(LOOK_WITHIN_S, self._settings.timeout_s)})
        missing = LastingProblem()
        while not self._stopped.is_set():
            self._look.clear()
            try:
                describe_topic(settings, settings.topic, right="WRITE")
                self._silence.answered()
                if self._is_broken:
                    self._replace_producer()
                self.is_ready = True
                missing.end()
            except (RightMissing, TopicMissing) as error:
                self.is_ready = False
                self._silence.answered()
                if missing.is_due(error):
                    log.warning("topic_not_ready", "{error}", error=error, **missing.again)
            except KafkaError as error:
                self.is_ready = False
                self._silence.unanswered(error)
            self._look.wait(2 * _LOOK_EVERY_S if self.is_ready else _LOOK_EVERY_S)


def _end(done: asyncio.Future[None]) -> None:
    if not done.done():
        done.set_result(None)


def now_ms() -> int:
    """Return the time of day, in epoch milliseconds."""
    return time.time_ns() // 1_000_000
