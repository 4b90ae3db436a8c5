"""Every error this project raises on purpose.

RecsysError
├── SettingsError          a setting is wrong, or unknown
├── MalformedEvent         a record breaks the event contract (goes to the dead-letter topic)
├── CannotRedrive          the record of a dead letter stays malformed, is gone, or must not be published again
├── DecoderUnavailable     what the decoder of records needs is away
├── InputFileError         a file given to `recsys import` or `recsys publish` cannot be used
│   └── ColumnMissing      it lacks a column that is needed
├── InvalidModel           an artifact is missing, truncated, tampered with, or not finite
├── DataDirError           data_dir (archive and models) cannot be read or written
├── KafkaError            Kafka
│   ├── KafkaUnavailable  no broker answers
│   │   └── RightMissing   a broker answers, and refuses something to this user
│   ├── TopicMissing       the topic does not exist
│   ├── OffsetsLost        committed or archived offsets are no longer in the topic
│   ├── Fenced             another member of the group has the same group.instance.id
│   └── TooManyMalformed   more records break the contract than the consumer may pass over
├── RedisError             Redis
│   ├── RedisUnavailable   no server answers, or it refuses work for now
│   ├── DamagedKey         a key holds what this project has not written
│   ├── RedisUnsuitable    the server answers but cannot serve (too old, a read-only replica, out of memory)
│   └── WritesLost         the server no longer holds what it had acknowledged
├── RebuildWouldLoseData              a rebuild would remove what it cannot bring back
├── HistoriesMissing       Redis was emptied, wholly or in part: nothing may be made from it
├── NoModel                nothing has been published yet
├── UnknownId              nothing is known of a user or an item
├── NotEnoughData          there is nothing to train on
├── NotEnoughNewEvents             too few events since the live model for a scheduled round
├── FullRefreshFailed            a process that wrote lists was killed
├── LockHeld               another trainer or command is at work
├── LockLost               this trainer's lock expired: another may be at work
├── NoTrainer              nobody is there to take a request
└── ApiError               the HTTP API says that something is wrong with a request
    └── ApiUnavailable     it does not answer
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import Any


class RecsysError(Exception):
    """Base of all errors raised on purpose; its text is one line for a person."""


class SettingsError(RecsysError):
    """A setting is wrong, or unknown."""


@contextmanager
def advised(advice: str) -> Iterator[None]:
    """Add to every error on the way what to do about it; its class stays."""
    try:
        yield
    except RecsysError as error:
        raise type(error)(f"{str(error).rstrip('.')}; {advice}") from error


_LONGEST_REASON = 500
"""In characters: it stands in log lines, and in a header of the dead letter, which must fit the topic."""


class Reason(StrEnum):
    """Why a record is malformed, in a word that stays the same: of several reasons, the first."""

    EMPTY = "empty"
    TOO_LARGE = "too_large"
    NOT_JSON = "not_json"
    SCHEMA = "schema"
    OTHER_FORM = "other_form"
    NO_PURCHASE = "no_purchase"
    MAPPING = "mapping"
    USER_ID_MISSING = "user_id_missing"
    USER_ID = "user_id"
    ITEM_ID_MISSING = "item_id_missing"
    ITEM_ID = "item_id"
    TYPE = "type"
    QUANTITY = "quantity"
    PRICE = "price"
    EVENT_ID = "event_id"
    TIMESTAMP_MISSING = "timestamp_missing"
    TIMESTAMP_UNIT = "timestamp_unit"
    TIMESTAMP_FUTURE = "timestamp_future"
    TIMESTAMP = "timestamp"


class MalformedEvent(RecsysError):
    """A record breaks the event contract.

    Parameters
    ----------
    reason : str
        What is wrong, naming the field; of a long one, as of what quotes the record, the beginning is kept.
    code : Reason or None
        The kind of reason; None of a row of a file, which nobody asks for it.
    raw : bytes
        The record's value as it came.
    location : str
        ``topic[partition] offset``, or a file and row; empty when unknown.
    events : sequence of Event
        Those of the record's other lines, where these count all the same.
    lines : sequence of int
        The numbers of the malformed lines, where the other lines count all the same.
    lines_of : str
        What has found and numbered these: `EventMapping.lines_of`.
    """

    def __init__(
        self,
        reason: str,
        code: Reason | None = None,
        raw: bytes = b"",
        location: str = "",
        *,
        events: Sequence[Any] = (),
        lines: Sequence[int] = (),
        lines_of: str = "",
    ) -> None:
        if len(reason) > _LONGEST_REASON:
            reason = f"{reason[:_LONGEST_REASON]}…"
        super().__init__(f"{location}: {reason}" if location else reason)
        self.reason = reason
        self.code = code
        self.raw = raw
        self.location = location
        self.events = events
        self.lines = lines
        self.lines_of = lines_of

    def at(self, location: str, raw: bytes) -> MalformedEvent:
        """Return the same error, of a record whose place and value are known."""
        return MalformedEvent(
            self.reason, self.code, raw, location, events=self.events, lines=self.lines, lines_of=self.lines_of
        )


class CannotRedrive(RecsysError):
    """The record of a dead letter stays malformed, is gone, or must not be published again."""


class DecoderUnavailable(RecsysError):
    """What the decoder of records needs is away; the records may be decoded later."""


class InputFileError(RecsysError):
    """A file given by the operator cannot be used."""


class ColumnMissing(InputFileError):
    """A file given by the operator lacks a column that is needed."""


class InvalidModel(RecsysError):
    """An artifact is missing, truncated, tampered with, or not finite."""


class DataDirError(RecsysError):
    """The data_dir, with the archive and the models, cannot be read or written."""


class KafkaError(RecsysError):
    """Base of Kafka's errors."""


class KafkaUnavailable(KafkaError):
    """No broker answers."""


class RightMissing(KafkaUnavailable):
    """A broker answers, and refuses something to this user; an ACL may grant it later."""


class TopicMissing(KafkaError):
    """The topic does not exist."""


class OffsetsLost(KafkaError):
    """Offsets that were to be read next are no longer in the topic."""


class Fenced(KafkaError):
    """Another member of the group has the same group.instance.id; a new client would only take it away again."""


class TooManyMalformed(KafkaError):
    """More of the newest records break the event contract than `consumer.max_malformed` allows."""


class RedisError(RecsysError):
    """Base of Redis's errors."""


class RedisUnavailable(RedisError):
    """No Redis server answers, or it refuses work for now; the caller may try again."""


class RedisUnsuitable(RedisError):
    """The Redis server answers but cannot serve: too old, a read-only replica, misconfigured."""


class DamagedKey(RedisError):
    """A key of Redis holds what this project has not written.

    Parameters
    ----------
    message : str
        Names the key, and says what to do.
    key : str
    """

    def __init__(self, message: str, key: str = "") -> None:
        super().__init__(message)
        self.key = key


class WritesLost(RedisError):
    """Redis no longer holds writes that it had acknowledged; the stream must be read again from the applied offsets."""


class RebuildWouldLoseData(RecsysError):
    """A rebuild would remove what neither archive nor Kafka can bring back."""


class HistoriesMissing(RecsysError):
    """Redis lacks histories that it once held: no model and no list may be made from what is there."""


class NoModel(RecsysError):
    """Nothing has been published yet."""


class UnknownId(RecsysError):
    """Nothing is known of the user or the item that was asked for."""


class NotEnoughData(RecsysError):
    """There is nothing to train on."""


class NotEnoughNewEvents(RecsysError):
    """Too few events have come since the live model was fitted for a scheduled round."""


class FullRefreshFailed(RecsysError):
    """A process that wrote lists was killed; the next round writes what it left."""


class LockHeld(RecsysError):
    """Another process is at work that writes to the archive or publishes a model.

    Parameters
    ----------
    message : str
    holder : str
        Which process it is.
    """

    def __init__(self, message: str, holder: str = "") -> None:
        super().__init__(message)
        self.holder = holder


class LockLost(RecsysError):
    """The trainer's lock expired, so another one may be at work."""


class NoTrainer(RecsysError):
    """No trainer is running to take the request."""


class ApiError(RecsysError):
    """The HTTP API says that something is wrong with a request.

    Parameters
    ----------
    message : str
    status : int
        The HTTP status; 0 = there was no answer that could be read.
    type : str
        Which kind of problem; it never changes.

    Attributes
    ----------
    idempotency_key : str
        Of purchases that were not all confirmed: with it they can be sent again, and count once.
    results : list of recsys.api_schemas.EventResult
        What became of each of them, if the API said so.
    """

    def __init__(self, message: str, status: int, type: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.type = type
        self.idempotency_key = ""
        self.results: list[Any] = []


class ApiUnavailable(ApiError):
    """The HTTP API does not answer."""

    def __init__(self, message: str) -> None:
        super().__init__(message, 0)
