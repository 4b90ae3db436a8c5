"""Malformed records go to the dead-letter topic, byte for byte, with headers that say why."""

from __future__ import annotations

import logging
from types import TracebackType

from confluent_kafka import KafkaError, KafkaException, Message

from recsys.errors import MalformedEvent, StreamError
from recsys.kafka import location, open_producer, record_timestamp_ms
from recsys.settings import KafkaSettings

log = logging.getLogger(__name__)
_PREFIX = "__recsys.errors."
_MAX_BYTES = 100_000_000  # the topic sets the limit, not this client


class DeadLetters:
    """Produces to the dead-letter topic.

    At least once: a record's offset may be committed only after `delivered` said so. While the topic is away
    librdkafka keeps trying, for ever. Use it as a context manager: the producer is made on entry.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._failure: str | None = None

    def __enter__(self) -> DeadLetters:
        self._producer = open_producer(self._settings, message_timeout_ms=0, linger_ms=0, message_max_bytes=_MAX_BYTES)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._producer.purge()
        self._producer.flush(1.0)

    def send(self, message: Message, error: MalformedEvent) -> None:
        """Queue one record with the reason why it is malformed."""
        headers: list[tuple[str, str | bytes | None]] = _headers(message)
        about = {
            "topic": message.topic() or "",
            "partition": str(message.partition()),
            "offset": str(message.offset()),
            "timestamp": str(record_timestamp_ms(message) or ""),
            "group": self._settings.group_id,
            "stage": "decode",
            "exception.class": type(error).__name__,
            "exception.message": error.reason,
        }
        headers.extend((_PREFIX + name, value.encode()) for name, value in about.items())
        log.warning("dead letter: %s: %s", location(message), error.reason)
        while True:
            try:
                self._producer.produce(
                    self._settings.dead_letters,
                    value=message.value(),
                    key=message.key(),
                    headers=headers,
                    on_delivery=self._delivered,
                )
                return
            except BufferError:  # the queue is full: let deliveries make room
                self._producer.poll(0.1)
            except KafkaException as failure:
                raise StreamError(self._explained(str(failure.args[0]))) from failure

    def serve(self) -> None:
        """Let the producer report what happened, such as a lost connection; call it now and then."""
        self._producer.poll(0)

    def delivered(self, timeout_s: float) -> bool:
        """Wait up to ``timeout_s`` and return whether everything sent so far has been acknowledged.

        Raises
        ------
        StreamError
            When a record can never be delivered; the text says what to do.
        """
        left = self._producer.flush(timeout_s)
        if self._failure is not None:
            raise StreamError(self._explained(self._failure))
        return left == 0

    def _explained(self, problem: str) -> str:
        topic = self._settings.dead_letters
        return (
            f"the dead-letter topic {topic} refuses a record: {problem}; make sure that it exists, that this "
            f"service may write to it, and that its max.message.bytes is 64 KiB above that of {self._settings.topic}"
        )

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None and error.code() != KafkaError._PURGE_QUEUE:
            self._failure = error.str()


def _headers(message: Message) -> list[tuple[str, str | bytes | None]]:
    headers = message.headers() or []
    return list(headers.items()) if isinstance(headers, dict) else list(headers)
