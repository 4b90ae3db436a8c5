"""Histories and lists in Redis: apply events exactly once in effect, publish a list only if it is the newest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from hashlib import blake2b
from typing import Any

import msgpack
import numpy as np
import orjson

from recsys.events import Event, EventType
from recsys.history import History
from recsys.refresh import RankedList
from recsys.settings import HistorySettings, RankingSettings
from recsys.store.connection import Connection
from recsys.store.keys import Keys

_DIGEST_BYTES = 12
_FORGOTTEN_TTL_S = 30 * 24 * 3600
_NO_EVENTS: bytes = msgpack.packb([])


@dataclass(frozen=True, slots=True)
class PlacedEvent:
    """An event and where it came from.

    Attributes
    ----------
    source : str
        ``<topic id>:<partition>``; offsets are compared within one source.
    offset : int
    event : Event
    complete : bool
        The source is read once, in order and without gaps (an import), so that its offset alone tells whether the
        event was applied; otherwise the position is remembered like an id.
    """

    source: str
    offset: int
    event: Event
    complete: bool = False

    def packed(self) -> tuple[str, int, bytes, str, int, int]:
        """Return what apply.lua takes."""
        event = self.event
        if event.event_id is not None:
            id_ = _digest(f"id {event.event_id}")
        elif self.complete:
            id_ = b""
        else:
            id_ = _digest(f"at {self.source} {self.offset}")
        item = "" if event.type is EventType.FORGET else event.item_id or ""
        return (self.source, self.offset, id_, item, event.units, event.timestamp // 1000)


@dataclass(frozen=True, slots=True)
class UserState:
    """What applying events led to.

    Attributes
    ----------
    applied, duplicates : int
        How many of the events counted, and how many were recognized as applied before.
    revision : int
        Number of applications that changed the history so far; 0 for an unknown user.
    listed_sequence : int
        Sequence of the model behind the current list, -1 when the list is not that of this revision.
    history : History
    """

    applied: int
    duplicates: int
    revision: int
    listed_sequence: int
    history: History


class PublishOutcome(StrEnum):
    """What became of a list."""

    PUBLISHED = "published"
    REVISION_MOVED = "revision_moved"
    """The history has changed since it was read: read it again and try again."""
    MODEL_OLDER = "model_older"
    """The user's list is from a newer model, but of an older history: get that model and try again."""
    SUPERSEDED = "superseded"
    """A newer list is already there: nothing to do."""


@dataclass(frozen=True, slots=True)
class UserList:
    """A list to publish and what it was computed from."""

    user_id: str
    revision: int
    items: RankedList


@dataclass(frozen=True, slots=True)
class ModelStamp:
    """Which model a list is from: its version, and its place in the order of publications."""

    version: str
    sequence: int


class UserStore:
    """Per-user state. Every method raises `StoreUnavailable` when Redis is away, and may simply be called again."""

    def __init__(self, connection: Connection, keys: Keys, history: HistorySettings, ranking: RankingSettings) -> None:
        self._connection = connection
        self._keys = keys
        self._history = history
        self._list_ttl_s = int(ranking.list_ttl_days * 24 * 3600)

    def apply(self, events: Mapping[str, Sequence[PlacedEvent]]) -> dict[str, UserState]:
        """Apply each user's events in order of arrival and return the states they lead to.

        Exactly once in effect: an event counts only if it was not applied before, so calling again with the same
        events, from this process or another, changes nothing and returns the same state.
        """
        packed = {user: _packed(placed_events) for user, placed_events in events.items()}
        return self._apply(packed, with_history=True)

    def apply_without_reading(self, events: Mapping[str, Sequence[PlacedEvent]]) -> tuple[int, int]:
        """Like `apply`, for imports: return only how many events counted and how many were duplicates."""
        packed = {user: _packed(placed_events) for user, placed_events in events.items()}
        states = self._apply(packed, with_history=False).values()
        return sum(state.applied for state in states), sum(state.duplicates for state in states)

    def read(self, user_ids: Iterable[str]) -> dict[str, UserState]:
        """Return users' states; an unknown user has revision 0 and an empty history."""
        return self._apply(dict.fromkeys(user_ids, _NO_EVENTS), with_history=True)

    def _apply(self, packed: Mapping[str, bytes], *, with_history: bool) -> dict[str, UserState]:
        keys, limits = self._keys, self._history
        calls = [
            (
                (keys.history(user), keys.applied(user), keys.seen(user), keys.recs(user)),
                (blob, limits.max_items, limits.max_event_ids, int(with_history), _FORGOTTEN_TTL_S),
            )
            for user, blob in packed.items()
        ]
        replies = self._connection.run_script("apply", calls)
        return {
            user: UserState(applied, duplicates, revision, listed, _unpack_history(history))
            for user, (applied, duplicates, revision, listed, history) in zip(packed, replies, strict=True)
        }

    def publish(self, lists: Sequence[UserList], model: ModelStamp, *, at: datetime) -> list[PublishOutcome]:
        """Write lists, each only if its history has not moved and no list of a newer model is there.

        An empty list removes the user's list, so that apps fall back on the popular one.
        """
        generated_at = json_time(at)
        calls = [
            (
                (self._keys.applied(entry.user_id), self._keys.recs(entry.user_id)),
                (
                    entry.revision,
                    model.sequence,
                    _list_json(entry, model, generated_at) if len(entry.items) else b"",
                    self._list_ttl_s,
                ),
            )
            for entry in lists
        ]
        return [PublishOutcome(word.decode()) for word in self._connection.run_script("publish", calls)]

    def user_ids(self) -> Iterator[list[str]]:
        """Yield the ids of all users with a history, in batches; users that come meanwhile may be missing."""
        cursor = 0
        seen: set[str] = set()
        while True:
            with self._connection.errors_translated():
                cursor, found = self._connection.client.scan(
                    cursor, match=self._keys.history_pattern, count=2000, _type="hash"
                )
            users = [self._keys.user_of_history(_text(key)) for key in found]
            fresh = [user for user in users if user not in seen]  # SCAN may return a key more than once
            seen.update(fresh)
            if fresh:
                yield fresh
            if cursor == 0:
                return

    def lists(self, user_ids: Sequence[str]) -> list[dict[str, Any] | None]:
        """Return the published lists as apps see them, None where there is none."""
        if not user_ids:
            return []
        with self._connection.errors_translated():
            values = self._connection.client.mget([self._keys.recs(user) for user in user_ids])
        return [orjson.loads(value) if value else None for value in values]


def json_time(moment: datetime) -> str:
    """Format a time for JSON: RFC 3339, UTC, milliseconds."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def ranked_items(items: RankedList) -> list[dict[str, Any]]:
    """Return the list's items in the form of the contract."""
    return [
        {"item_id": item_id, "score": round(score, 5)}
        for item_id, score in zip(items.item_ids, items.scores, strict=True)
    ]


def _list_json(entry: UserList, model: ModelStamp, generated_at: str) -> bytes:
    return orjson.dumps(
        {
            "user_id": entry.user_id,
            "model": model.version,
            "revision": entry.revision,
            "generated_at": generated_at,
            "items": ranked_items(entry.items),
        }
    )


def _unpack_history(packed: bytes) -> History:
    flat = msgpack.unpackb(packed, strict_map_key=False) if packed else []
    values = [value.split("|") for value in flat[1::2]]
    return History(
        flat[::2],
        np.array([float(value[0]) for value in values], dtype=np.float64),
        np.array([int(value[1]) for value in values], dtype=np.int64),
    )


def _digest(text: str) -> bytes:
    return blake2b(text.encode(), digest_size=_DIGEST_BYTES).digest()


def _packed(events: Sequence[PlacedEvent]) -> bytes:
    # Redis's cmsgpack knows only the old types, so no bin type.
    packed: bytes = msgpack.packb([placed.packed() for placed in events], use_bin_type=False)
    return packed


def _text(key: bytes | str) -> str:
    return key if isinstance(key, str) else key.decode()
