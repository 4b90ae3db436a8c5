"""Dead letters: a record whole, or cut where the dead-letter topic does not take so much."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

from recsys.kafka.records import DEAD_LETTER_PREFIX

Header = tuple[str, str | bytes | None]
PREFIX = DEAD_LETTER_PREFIX
_LEFT_OUT = f"{PREFIX}left.out"
_LONGEST_HEAD = 65_536
_PER_HEADER = 10  # lengths, as Kafka writes them, are a few bytes each
_ROOM_FOR_WHAT_IS_LEFT_OUT = 300
_MOST_NAMED = 10


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


def _named(headers: list[str]) -> str:
    names = ", ".join(name[:16] for name in headers[:_MOST_NAMED])
    more = f" and {len(headers) - _MOST_NAMED:,} more" if len(headers) > _MOST_NAMED else ""
    return f"the headers {names}{more}"


def _size_of(headers: Sequence[Header]) -> int:
    return sum(len(name.encode()) + _length(value) + _PER_HEADER for name, value in headers)


def _length(value: str | bytes | None) -> int:
    return len(value.encode() if isinstance(value, str) else value or b"")
