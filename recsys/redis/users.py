"""Histories and lists in Redis: apply events exactly once in effect, publish a list only if it is the newest."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from hashlib import blake2b
from itertools import chain, repeat
from typing import Any, Protocol

import msgpack
import orjson

from recsys.data.event import Event, EventType
from recsys.data.history import History
from recsys.errors import MalformedEvent
from recsys.recommend.user_lists import RankedList, RankedLists
from recsys.redis.connection import Connection
from recsys.redis.keys import Keys
from recsys.redis.list_json import NO_ITEMS, items_json
from recsys.runtime import fail_points
from recsys.settings import HistorySettings, RankingSettings

_DIGEST_BYTES = 8  # that two of the few hundred ids kept of a user share one is less likely than a broken disk
_FIRST_SHARE = 3 / 8  # of the users: listing them takes about as long as applying the others' events
_LEAST_FIRST = 8  # fewer are listed sooner together with the others
_USERS_PER_CALL = 500
_FORGOTTEN_TTL_S = 30 * 24 * 3600
_EVENTS_PER_CALL = 1_000  # of one user; a longer script would hold up everyone else in Redis


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


class WhileApplying(Protocol):
    """What a process does while Redis applies events for it; either may be done again, or not at all."""

    def at_once(self) -> None:
        """Work that needs nothing of Redis."""

    def with_first(self, states: dict[str, UserState]) -> None:
        """Work on the first users' states, while Redis is at the others."""


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

    def after(self, earlier: UserState) -> UserState:
        """Return this state as what both applications led to."""
        return replace(self, applied=earlier.applied + self.applied, duplicates=earlier.duplicates + self.duplicates)


class PublishOutcome(StrEnum):
    """What became of a list."""

    PUBLISHED = "published"
    REVISION_MOVED = "revision_moved"
    """The history has changed since it was read: read it again and try again."""
    MODEL_OLDER = "model_older"
    """The user's list is from a newer model, but of an older history: get that model and try again."""
    SUPERSEDED = "superseded"
    """A newer list is already there: nothing to do."""


_OUTCOMES = {outcome.encode(): outcome for outcome in PublishOutcome}


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

    def ensure_can_hold(self, user_id: str) -> None:
        """Refuse the ids of users whose state cannot be kept.

        Raises
        ------
        MalformedEvent
            On a Redis Cluster, when the user's keys would not be in one slot.
        """
        if not self.can_hold(user_id):
            raise MalformedEvent(
                "user_id: must not begin with } where Redis is a cluster, which could not keep the user's keys together"
            )

    def can_hold(self, user_id: str) -> bool:
        """Whether the state of a user with this id can be kept."""
        return not self._connection.is_cluster or self._keys.share_a_slot(user_id)

    def apply(
        self, events: Mapping[str, Sequence[PlacedEvent]], *, meanwhile: WhileApplying | None = None
    ) -> dict[str, UserState]:
        """Apply each user's events in order of arrival and return the states they lead to.

        Exactly once in effect: an event counts only if it was not applied before, so calling again with the same
        events, from this process or another, changes nothing and returns the same state.

        Parameters
        ----------
        events : mapping
            User → events.
        meanwhile : WhileApplying or None
            What to do while Redis is at work.
        """
        states: dict[str, UserState] = {}
        for part in fail_points.halves("between-applies", list(events.items())):
            states.update(self._apply_events(dict(part), with_history=True, meanwhile=meanwhile))
        return states

    def apply_without_reading(self, events: Mapping[str, Sequence[PlacedEvent]]) -> tuple[int, int]:
        """Like `apply`, for imports: return only how many events counted and how many were duplicates."""
        states = self._apply_events(events, with_history=False).values()
        return sum(state.applied for state in states), sum(state.duplicates for state in states)

    def read(self, user_ids: Iterable[str]) -> dict[str, UserState]:
        """Return users' states; an unknown user has revision 0 and an empty history."""
        users = list(dict.fromkeys(user_ids))
        calls = (((self._keys.history(user), self._keys.applied(user), self._keys.recs(user)), ()) for user in users)
        replies = self._connection.run_script_for_users("read", calls)
        return {
            user: UserState(0, 0, revision, listed, History(text))
            for user, (revision, listed, text) in zip(users, replies, strict=True)
        }

    def _apply_events(
        self, events: Mapping[str, Sequence[PlacedEvent]], *, with_history: bool, meanwhile: WhileApplying | None = None
    ) -> dict[str, UserState]:
        """Apply all users' first events, then the next ones of those who have more."""
        states: dict[str, UserState] = {}
        start = 0
        if any(len(placed) > _EVENTS_PER_CALL for placed in events.values()):
            meanwhile = None  # the first states are not yet those that all events lead to
        while events:
            # One round trip at a time: a later part must never be applied before an earlier one.
            part = {user: placed[start : start + _EVENTS_PER_CALL] for user, placed in events.items()}
            for user, state in self._apply(part, with_history=with_history, meanwhile=meanwhile).items():
                states[user] = state.after(states[user]) if user in states else state
            start += _EVENTS_PER_CALL
            events = {user: placed for user, placed in events.items() if len(placed) > start}
        return states

    def _apply(
        self, events: Mapping[str, Sequence[PlacedEvent]], *, with_history: bool, meanwhile: WhileApplying | None
    ) -> dict[str, UserState]:
        if not events:
            return {}
        options = self._history.max_items, self._history.max_event_ids, int(with_history), _FORGOTTEN_TTL_S
        calls = ((self._keys.of_user(user), (_packed(placed), *options)) for user, placed in events.items())

        def states_of(replies: Sequence[Any]) -> dict[str, UserState]:
            return {
                user: UserState(applied, duplicates, revision, listed, History(text))
                for user, (applied, duplicates, revision, listed, text) in zip(events, replies, strict=False)
            }

        def with_first(replies: Sequence[Any]) -> None:
            if meanwhile is not None and not any(isinstance(reply, Exception) for reply in replies):
                meanwhile.with_first(states_of(replies))

        def at_once(_: Sequence[Any]) -> None:
            if meanwhile is not None:
                meanwhile.at_once()

        first = int(_FIRST_SHARE * len(events))
        todo = {0: at_once} | ({first: with_first} if first >= _LEAST_FIRST else {})
        return states_of(self._connection.run_script("apply", calls, meanwhile=todo))

    def publish(
        self,
        revisions: Mapping[str, int],
        lists: Iterable[Sequence[RankedList]],
        model: ModelStamp,
        *,
        at: datetime,
    ) -> list[PublishOutcome]:
        """Write lists, each only if its history has not moved and no list of a newer model is there.

        An empty list removes the user's list, so that apps fall back on the popular one. Lists of what users may buy
        again go with them.

        Parameters
        ----------
        revisions : mapping
            User → revision of the history that the list was computed from.
        lists : sequences of RankedList, one behind the other
            Of these users, in order. A sequence is asked for when Redis has got the lists of those before it.
        """
        stamps = b',"model":%b,"revision":' % orjson.dumps(model.version)
        moment = b',"generated_at":"%b","items":' % json_time(at).encode()

        def call(
            user: str, revision: int, items: tuple[bytes, bytes]
        ) -> tuple[tuple[str, str, str], tuple[int, int, bytes, bytes, int]]:
            before = b'{"user_id":%b%b%d%b' % (orjson.dumps(user), stamps, revision, moment)
            recs, again = (b"" if part == NO_ITEMS else b"%b%b}" % (before, part) for part in items)
            keys = self._keys.applied(user), self._keys.recs(user), self._keys.again(user)
            return keys, (revision, model.sequence, recs, again, self._list_ttl_s)

        calls = map(call, revisions, revisions.values(), chain.from_iterable(map(_both_as_json, lists)))
        return [_OUTCOMES[word] for word in self._connection.run_script_for_users("publish", calls)]

    def user_ids(self) -> Iterator[list[str]]:
        """Yield the ids of all users with a history, in batches; users that come meanwhile may be missing."""
        seen: set[str] = set()
        for keys in self._connection.scan(self._keys.history_pattern, kind="hash"):
            users = [self._keys.user_of_history(key) for key in keys]
            fresh = [user for user in users if user not in seen]  # a scan may return a key more than once
            seen.update(fresh)
            if fresh:
                yield fresh

    def remove(self, user_ids: Sequence[str]) -> None:
        """Remove all that is kept of users."""
        keys = [self._keys.of_user(user) for user in user_ids]
        self._connection.run([(own[0], ("UNLINK", *own)) for own in keys])

    def lists(self, user_ids: Sequence[str]) -> list[dict[str, Any] | None]:
        """Return the published lists as apps see them, None where there is none."""
        return self._read_json([self._keys.recs(user) for user in user_ids])

    def again_lists(self, user_ids: Sequence[str]) -> list[dict[str, Any] | None]:
        """Return the lists of what users may buy again as apps see them, None where there is none."""
        return self._read_json([self._keys.again(user) for user in user_ids])

    def _read_json(self, keys: Sequence[str]) -> list[dict[str, Any] | None]:
        values = self._connection.run([(key, ("GET", key)) for key in keys])
        return [orjson.loads(value) if value else None for value in values]


def calls_by_user(
    source: str, events: Sequence[tuple[int, Event]], *, complete: bool
) -> Iterator[dict[str, list[PlacedEvent]]]:
    """Group (offset, event) pairs of one source by user, some users at a time."""
    by_user: dict[str, list[PlacedEvent]] = defaultdict(list)
    for offset, event in events:
        by_user[event.user_id].append(PlacedEvent(source, offset, event, complete=complete))
    users = list(by_user)
    for start in range(0, len(users), _USERS_PER_CALL):
        yield {user: by_user[user] for user in users[start : start + _USERS_PER_CALL]}


def _both_as_json(lists: Sequence[RankedList]) -> Iterator[tuple[bytes, bytes]]:
    """Yield the items of each user's list and of what may be bought again."""
    again = lists.again_lists if isinstance(lists, RankedLists) else None
    return zip(items_json(lists), repeat(NO_ITEMS) if again is None else items_json(again), strict=False)


def json_time(moment: datetime) -> str:
    """Format a time for JSON: RFC 3339, UTC, milliseconds."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _digest(text: str) -> bytes:
    return blake2b(text.encode(), digest_size=_DIGEST_BYTES).digest()


def _packed(events: Sequence[PlacedEvent]) -> bytes:
    # Redis's cmsgpack knows only the old types, so no bin type.
    packed: bytes = msgpack.packb([placed.packed() for placed in events], use_bin_type=False)
    return packed
