"""Dead letters: a record whole, or cut where the dead-letter topic does not take so much, and how one is read again."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

from confluent_kafka import TIMESTAMP_CREATE_TIME, TIMESTAMP_NOT_AVAILABLE

from recsys.errors import MalformedEvent
from recsys.kafka.clients import Message
from recsys.kafka.records import record_timestamp_ms

Header = tuple[str, str | bytes | None]
PREFIX = "__recsys.errors."
"""Of the headers that this project adds to dead letters."""
REASON = f"{PREFIX}exception.message"
UNKNOWN = "unknown"
"""The code of letters that have none: they are older than codes, or another program has written them."""
_LEFT_OUT = f"{PREFIX}left.out"
_LONGEST_HEAD = 65_536
_PER_HEADER = 10  # lengths, as Kafka writes them, are a few bytes each
_ROOM_FOR_WHAT_IS_LEFT_OUT = 300
_MOST_NAMED = 10
_NUMBER = re.compile(r"[0-9]{1,19}")
_CODE = re.compile(r"[a-z0-9_]{1,40}")
_LONGEST_TOPIC_ID = 32


@dataclass(frozen=True, slots=True)
class Letter:
    """What is sent to the dead-letter topic.

    Attributes
    ----------
    key, value : bytes or None
        The record's own.
    headers : sequence of (str, str or bytes or None)
        The record's own.
    about : sequence of (str, str or bytes or None)
        Added: where the record comes from, and what is wrong with it.
    """

    key: bytes | None
    value: bytes | None
    headers: Sequence[Header]
    about: Sequence[Header]

    @classmethod
    def of(cls, record: Message, error: MalformedEvent, *, topic_id: str, group: str) -> Letter:
        """Return the letter about a malformed record."""
        about = {
            "topic": record.topic() or "",
            "topic.id": topic_id,
            "partition": str(record.partition()),
            "offset": str(record.offset()),
            "timestamp": str(record_timestamp_ms(record) or ""),
            "group": group,
            "stage": "decode",
            "exception.class": type(error).__name__,
            "exception.message": error.reason,
            "reason.code": error.code or UNKNOWN,
        }
        if error.lines:
            about |= {"lines": ",".join(map(str, error.lines)), "lines.of": error.lines_of}
        return cls(
            record.key(), record.value(), headers_of(record), [(PREFIX + n, v.encode()) for n, v in about.items()]
        )

    @property
    def size(self) -> int:
        """Bytes that it takes up, roughly."""
        return len(self.key or b"") + len(self.value or b"") + _size_of([*self.headers, *self.about])

    @property
    def left_out(self) -> str:
        """What of the record is not in it; empty if it is whole."""
        found = dict(self.about).get(_LEFT_OUT) or b""
        return found if isinstance(found, str) else found.decode()

    def cut_to(self, most: int) -> Letter:
        """Return a letter of at most so many bytes: with the key and the headers that fit, and the head of the value.

        Its own headers say how large the value is, its SHA-256, and what has been left out; where the record is, says
        the letter as it is. A key or a header is whole or left out.
        """
        value = self.value or b""
        added: list[Header] = [
            *self.about,
            (f"{PREFIX}value.size", str(len(value)).encode()),
            (f"{PREFIX}value.sha256", sha256(value).hexdigest().encode()),
        ]
        left_out: list[str] = []
        room = most - _size_of(added) - _ROOM_FOR_WHAT_IS_LEFT_OUT
        key = self.key
        if key is not None and len(key) > room:
            left_out.append(f"the key of {len(key):,} bytes")
            key = None
        room -= len(key or b"")
        kept: list[Header] = []
        missing: list[str] = []
        for header in self.headers:
            if _size_of([header]) <= room:
                kept.append(header)
                room -= _size_of([header])
            else:
                missing.append(header[0])
        head = value[: max(0, min(room, _LONGEST_HEAD))]
        if len(head) < len(value):
            left_out.append(f"the value from byte {len(head):,} on")
        if missing:
            left_out.append(_named(missing))
        added.append((_LEFT_OUT, "; ".join(left_out).encode()))
        return replace(self, key=key, value=None if self.value is None else head, headers=kept, about=added)


@dataclass(frozen=True, slots=True)
class FoundLetter:
    """A letter in the dead-letter topic.

    Attributes
    ----------
    partition, offset : int
        Where it is.
    sent_ms : int
        When it was sent, in epoch milliseconds; 0 if that is not known.
    code : str
        Why the record is malformed: a `Reason`, or `UNKNOWN`.
    reason : str
        The same in words, with what is special about this record.
    topic_id : str
        Of the record's topic; empty if the letter does not say.
    lines : tuple of int
        Which lines of the record did not count; empty where none did.
    lines_of : str
        What found and numbered them: `EventMapping.lines_of`.
    left_out : str
        What of the record is not in the letter; empty if it is whole.
    sha256 : str
        Of the record's whole value, if something is left out.
    record : Message
        As it was; its topic is None where the letter does not say where the record was.
    """

    partition: int
    offset: int
    sent_ms: int
    code: str
    reason: str
    topic_id: str
    lines: tuple[int, ...]
    lines_of: str
    left_out: str
    sha256: str
    record: Message

    @classmethod
    def read(cls, letter: Message) -> FoundLetter:
        """Read what a record of the dead-letter topic tells."""
        headers = headers_of(letter)
        about = {name.removeprefix(PREFIX): _text(value) for name, value in headers if name.startswith(PREFIX)}
        topic, partition, offset = about.get("topic"), about.get("partition", ""), about.get("offset", "")
        is_placed = bool(topic) and _is_below(2**31, partition) and _is_below(2**63, offset)
        timestamp, code = about.get("timestamp", ""), about.get("reason.code", UNKNOWN)
        record = Message(
            topic=topic if is_placed else None,
            partition=int(partition) if is_placed else 0,
            offset=int(offset) if is_placed else 0,
            key=letter.key(),
            value=letter.value(),
            headers=[(name, value) for name, value in headers if not name.startswith(PREFIX)],
            timestamp=(TIMESTAMP_CREATE_TIME, int(timestamp))
            if _is_below(2**63, timestamp)
            else (TIMESTAMP_NOT_AVAILABLE, 0),
        )
        lines = about.get("lines", "")
        return cls(
            partition=letter.partition() or 0,
            offset=letter.offset() or 0,
            sent_ms=record_timestamp_ms(letter) or 0,
            code=code if _CODE.fullmatch(code) else UNKNOWN,
            reason=about.get("exception.message", ""),
            topic_id=about.get("topic.id", ""),
            lines=tuple(int(line) for line in lines.split(",") if _is_below(2**31, line)),
            lines_of=about.get("lines.of", ""),
            left_out=about.get("left.out", ""),
            sha256=about.get("value.sha256", ""),
            record=record,
        )

    @property
    def place(self) -> str:
        """Where the record was, as ``partition:offset``; empty if the letter does not say."""
        return f"{self.record.partition()}:{self.record.offset()}" if self.record.topic() else ""

    def event_id(self, line: int | None) -> str:
        """Return the id of an event of this record that has none of its own: always the same, and no other's."""
        topic = self.topic_id or self.record.topic() or ""
        if len(topic) > _LONGEST_TOPIC_ID:
            topic = sha256(topic.encode()).hexdigest()[:_LONGEST_TOPIC_ID]
        return f"dead-letter:{topic}:{self.place}" + ("" if line is None else f":{line}")


def _is_below(limit: int, text: str) -> bool:
    return _NUMBER.fullmatch(text) is not None and int(text) < limit


def headers_of(record: Message) -> list[Header]:
    """Return a record's headers, in their order."""
    headers: Any = record.headers() or []
    return list(headers.items()) if isinstance(headers, dict) else list(headers)


def _text(value: str | bytes | None) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value or ""


def _named(headers: list[str]) -> str:
    names = ", ".join(name[:16] for name in headers[:_MOST_NAMED])
    more = f" and {len(headers) - _MOST_NAMED:,} more" if len(headers) > _MOST_NAMED else ""
    return f"the headers {names}{more}"


def _size_of(headers: Sequence[Header]) -> int:
    return sum(len(name.encode()) + _length(value) + _PER_HEADER for name, value in headers)


def _length(value: str | bytes | None) -> int:
    return len(value.encode() if isinstance(value, str) else value or b"")
