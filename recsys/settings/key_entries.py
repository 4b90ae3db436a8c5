"""Entries of RECSYS_API__KEYS: whose a key is, what it may do and until when, and the key itself or only its digest."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

from recsys.errors import SettingsError

ROLES = ("read", "write", "operate")
"""Each may do what those before it may."""
_SHORTEST_KEY = 20
_SHORTEST_SECRET = 8
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_DIGEST_WORD = "sha256:"
_HEXADECIMAL = re.compile(r"[0-9a-fA-F]{64}")
HOW = (
    "an entry is name:role:key, or name:role@YYYY-MM-DD:key with the last day of the key, and a role of read, write or "
    "operate; recsys key NAME ROLE makes one"
)


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """One key that is taken.

    Attributes
    ----------
    place : int
        Of the entry among all, from 1: several may have one name while a key is being replaced.
    name, role : str
    digest : bytes
        SHA-256 of the key.
    last_day : date or None
        The key is taken up to the end of this day, UTC; None = for ever.
    holds_key : bool
        Whether the entry has the key itself, so that nobody else may read it.
    """

    place: int
    name: str
    role: str
    digest: bytes
    last_day: date | None = None
    holds_key: bool = False

    def __str__(self) -> str:
        """Name the key for people."""
        return f"key {self.name} (entry {self.place})"

    def has_ended(self, today: date) -> bool:
        """Whether the key is no longer taken."""
        return self.last_day is not None and today > self.last_day


def split_entries(text: str) -> list[str]:
    """Return the entries of a text, between which there are commas or white space."""
    return text.replace(",", " ").split()


def entry_of(key: str, name: str, role: str, last_day: date | None) -> str:
    """Return the entry of a key, with its digest only."""
    until = "" if last_day is None else f"@{last_day.isoformat()}"
    return f"{name}:{role}{until}:{_DIGEST_WORD}{hashlib.sha256(key.encode()).hexdigest()}"


def is_name(text: str) -> bool:
    """Whether a client can have this name."""
    return _NAME.fullmatch(text) is not None


def parse_entry(place: int, text: str) -> KeyEntry:
    """Return what an entry says.

    Raises
    ------
    SettingsError
        When it cannot be read. Nothing of the entry is in the text: in a wrong order any part may be the key.
    """
    where = f"RECSYS_API__KEYS: entry {place}"
    name, _, rest = text.partition(":")
    rights, _, key = rest.partition(":")
    role, at, day = rights.partition("@")
    if not is_name(name) or not key:
        raise SettingsError(f"{where} cannot be read; {HOW}")
    if role.lower() not in ROLES:
        raise SettingsError(f"{where}: there is no such role; {HOW}")
    last_day = _day(day) if at else None
    if at and last_day is None:
        raise SettingsError(f"{where}: the part after @ is no day, such as 2027-01-31; {HOW}")
    hashed = key.startswith(_DIGEST_WORD)
    if hashed and not _HEXADECIMAL.fullmatch(key.removeprefix(_DIGEST_WORD)):
        raise SettingsError(f"{where}: after {_DIGEST_WORD} there must be 64 hexadecimal digits; {HOW}")
    if len(key) < _SHORTEST_KEY:
        raise SettingsError(f"{where}: the key has fewer than {_SHORTEST_KEY} characters; {HOW}")
    digest = bytes.fromhex(key.removeprefix(_DIGEST_WORD)) if hashed else hashlib.sha256(key.encode()).digest()
    return KeyEntry(place, name, role.lower(), digest, last_day, holds_key=not hashed)


def secrets_in_entry(text: str) -> Iterator[str]:
    """Yield what is secret of an entry; of one that cannot be read, every part that may be the key."""
    try:
        entry = parse_entry(1, text)
    except SettingsError:
        parts = {*text.split(":"), *re.split("[:@]", text)}
        yield from (part for part in parts if len(part) >= _SHORTEST_SECRET)
        return
    if entry.holds_key:  # a digest tells nobody the key
        yield text.split(":", 2)[2]


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text) if _DAY.fullmatch(text) else None
    except ValueError:
        return None
