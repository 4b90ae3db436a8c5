"""Publishing purchases to Kafka, as a shop would."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Any, Final

import orjson
from confluent_kafka import KafkaError as ClientError
from confluent_kafka import KafkaException, Message

from recsys.data.epoch import iso_time
from recsys.data.event import Event
from recsys.errors import KafkaUnavailable
from recsys.kafka.clients import explained, fatal_error_of, kafka_unavailable, open_producer
from recsys.kafka.topics import describe_topic
from recsys.settings import KafkaSettings

_LAST_CHANCE_S = 1.0
"""It may be this process that was held up, and not Kafka."""


Headers = list[tuple[str, str | bytes | None]]
OWN_HEADERS: Final[Headers] = [("recsys-format", b"contract")]
"""Of each event that our programs publish: it is of the contract's form, also where a mapping reads the others."""


def is_own(record: Message) -> bool:
    """Whether a record says that it is of the contract's form."""
    headers: Any = record.headers()
    return bool(headers) and OWN_HEADERS[0] in headers


def encode(event: Event) -> bytes:
    """Return the event as a record's value."""
    fields: dict[str, object] = {"type": event.type.value, "user_id": event.user_id}
    if event.item_id is not None:
        fields |= {"item_id": event.item_id, "quantity": event.quantity}
    if event.price is not None:
        fields["price"] = event.price
    if event.event_id is not None:
        fields["event_id"] = event.event_id
    fields["timestamp"] = iso_time(event.timestamp)  # text, which is read in one way only
    return orjson.dumps(fields)


class Publisher:
    """Produces events with the user id as key; use it as a context manager, which waits for all deliveries.

    Raises
    ------
    KafkaUnavailable
        When an event cannot be delivered.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._failure: ClientError | None = None
        self._answered_at = 0.0
        """When Kafka last acknowledged an event, or when there was none that it had to."""
        self._is_silent = False
        self.delivered = 0

    def __enter__(self) -> Publisher:
        describe_topic(self._settings, self._settings.topic, right="WRITE")
        self._producer = open_producer(self._settings, linger_ms=2, compression_type="zstd")
        self._answered_at = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.flush()
        else:  # what is queued is published if the broker is there, so that the count is right
            fatal_error_of(partial(self._producer.flush, 0.0 if self._is_silent else 5.0))
            self._producer.purge()
            fatal_error_of(partial(self._producer.flush, 1.0))

    def publish(self, event: Event) -> None:
        """Queue one event, waiting while the queue is full."""
        self._produce(event.user_id, encode(event), OWN_HEADERS)

    def publish_record(self, user_id: str, value: bytes) -> None:
        """Queue a record as it is, valid or not."""
        self._produce(user_id, value, [])

    def _produce(self, user_id: str, value: bytes, headers: Headers) -> None:
        if not len(self._producer):
            self._answered_at = time.monotonic()
        while True:
            try:
                self._producer.produce(
                    self._settings.topic, value, user_id.encode(), headers=headers, on_delivery=self._on_delivery
                )
                break
            except BufferError:
                self._serve(partial(self._producer.poll, 0.1))
            except KafkaException as error:
                self._serve(partial(self._producer.poll, 0.1))  # of a producer that has failed for good it tells why
                raise kafka_unavailable(self._settings, error, right="WRITE") from error
        self._serve(partial(self._producer.poll, 0))

    def flush(self) -> None:
        """Wait until everything queued so far is delivered."""
        while len(self._producer):
            self._serve(partial(self._producer.flush, 0.5))
        self._raise_failure()

    def _serve(self, wait: Callable[[], object]) -> None:
        self._hear(wait)
        last_chance_until = time.monotonic() + _LAST_CHANCE_S
        while self._is_silent and len(self._producer):
            if time.monotonic() > last_chance_until:
                raise KafkaUnavailable(
                    f"Kafka at {self._settings.bootstrap_servers}: no answer for {self._settings.timeout_s:g} s; "
                    f"events that wait for {self._settings.topic}: {len(self._producer):,}, delivered before: "
                    f"{self.delivered:,}"
                )
            self._hear(partial(self._producer.poll, 0.1))

    def _hear(self, wait: Callable[[], object]) -> None:
        failure = fatal_error_of(wait)
        self._failure = failure or self._failure
        self._raise_failure()
        self._is_silent = time.monotonic() - self._answered_at > self._settings.timeout_s

    def _on_delivery(self, error: ClientError | None, _: Message) -> None:
        if error is not None:
            self._failure = error
        else:
            self.delivered += 1
            self._answered_at = time.monotonic()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise KafkaUnavailable(
                f"Kafka at {self._settings.bootstrap_servers}: an event was not delivered to {self._settings.topic}: "
                f"{explained(self._settings, self._failure, right='WRITE')} ({self.delivered:,} events were)"
            )
