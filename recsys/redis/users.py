"""Histories and lists in Redis: apply events exactly once in effect, publish a list only if it is the newest."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import partial
from itertools import chain
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import orjson

from recsys.data.event import ensure_fits_cluster, fits_cluster
from recsys.data.reserved import PROBE_TTL_S, is_reserved
from recsys.errors import DamagedKey
from recsys.logger import logger
from recsys.redis.applying import Applying, UserState, states_of
from recsys.redis.connection import Connection, ScriptCall, ScriptPipeline
from recsys.redis.damage import damaged, json_object, list_problem, whole_or_none
from recsys.redis.keys import Keys
from recsys.redis.placed_events import PlacedEvent, packed
from recsys.runtime import fail_points
from recsys.runtime.clock import json_time
from recsys.runtime.logs import RepeatsLeftOut
from recsys.runtime.user_names import named
from recsys.settings import HistorySettings, RankingSettings

log = logger(__name__)
logging.getLogger(__name__).addFilter(RepeatsLeftOut(every_s=30.0))
NO_ITEMS: Final = b"[]"
EncodedLists = tuple[bytes, bytes]
"""The items of a user's list, and of what the user may buy again, as JSON; `NO_ITEMS` where there are none."""
_USERS_PER_CALL = 500
FORGOTTEN_TTL_S = 30 * 24 * 3600
_MOST_NAMED = 3
_MOST_SCANNED = 200
"""Parts of Redis that are looked through for users, of about 2,000 keys each."""


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


class ListState(NamedTuple):
    """What became of a user's list."""

    is_there: bool
    sequence: int | None
    """Of the model that the list was made with, in seconds since 1970; None if none was made."""

    def has_expired(self, *, now_s: float, ttl_s: float) -> bool:
        """Whether there was a list that must have expired: it cannot be older than its model."""
        return not self.is_there and self.sequence is not None and self.sequence + ttl_s < now_s


class UserStore:
    """Per-user state. Every method raises `RedisUnavailable` when Redis is away, and may simply be called again."""

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
        if self._connection.is_cluster:
            ensure_fits_cluster(user_id)

    def can_hold(self, user_id: str) -> bool:
        """Whether the state of a user with this id can be kept."""
        return not self._connection.is_cluster or fits_cluster(user_id)

    def apply(self, events: Mapping[str, Sequence[PlacedEvent]]) -> dict[str, UserState]:
        """Apply each user's events in order of arrival and return the states they lead to.

        Exactly once in effect: an event counts only if it was not applied before, so calling again with the same
        events, from this process or another, changes nothing and returns the same state.

        Parameters
        ----------
        events : mapping
            User → events.
        """
        with self.applying(events) as applying:
            return applying.states()

    @contextmanager
    def applying(self, events: Mapping[str, Sequence[PlacedEvent]]) -> Iterator[Applying]:
        """Do as `apply`, in steps: Redis is at work from the beginning of the block until `Applying.states` returns."""
        halves = fail_points.halves("between-applies", list(events.items()))
        part = next(halves)
        earlier: dict[str, UserState] = {}
        if len(part) < len(events):  # the fail point lies between the halves
            with self._applying(dict(part), with_history=True) as applying:
                earlier = applying.states()
            part = next(halves)
        with self._applying(dict(part), with_history=True, earlier=earlier) as applying:
            yield applying

    def apply_without_reading(self, events: Mapping[str, Sequence[PlacedEvent]]) -> tuple[int, int]:
        """Like `apply`, for imports: return only how many events counted and how many were duplicates."""
        with self._applying(events, with_history=False) as applying:
            states = applying.states().values()
        return sum(state.applied for state in states), sum(state.duplicates for state in states)

    def apply_for_revisions(self, events: Mapping[str, Sequence[PlacedEvent]]) -> dict[str, int]:
        """Like `apply`, returning only the revisions."""
        with self._applying(events, with_history=False) as applying:
            return {user: state.revision for user, state in applying.states().items()}

    def read(self, user_ids: Iterable[str]) -> dict[str, UserState]:
        """Return users' states; an unknown user has revision 0 and an empty history."""
        users = list(dict.fromkeys(user_ids))
        calls = (((self._keys.history(user), self._keys.applied(user), self._keys.recs(user)), ()) for user in users)
        replies = self._connection.run_script_for_users("read", calls)
        return states_of(users, [(0, 0, *reply) for reply in replies])

    @contextmanager
    def _applying(
        self,
        events: Mapping[str, Sequence[PlacedEvent]],
        *,
        with_history: bool,
        earlier: Mapping[str, UserState] = MappingProxyType({}),
        set_aside: bool = False,
    ) -> Iterator[Applying]:
        options = (
            self._history.max_items,
            self._history.max_event_ids,
            int(with_history),
            FORGOTTEN_TTL_S,
            int(set_aside),
        )

        def calls(part: Mapping[str, Sequence[PlacedEvent]]) -> Iterator[ScriptCall]:
            return ((self._keys.of_user(user), (packed(placed), *options)) for user, placed in part.items())

        with self._connection.script_pipeline("apply") as pipeline:
            applying = Applying(pipeline, events, calls, partial(self._connection.run_script, "apply"), earlier)
            yield applying
        if not set_aside:  # otherwise it is done on purpose, as by those who make users again
            _warn_of_loss(applying.aside)
        self._note_aside(applying.aside)
        if applying.damaged:
            _warn_of_loss(applying.damaged)
            self.set_aside(applying.damaged)

    def _note_aside(self, users: Sequence[str]) -> None:
        if not users:
            return
        try:
            self._connection.run([(self._keys.aside, ("SADD", self._keys.aside, *users))])
        except DamagedKey as error:  # they are marked in their own keys: they are named again with their next events
            log.error("users_set_aside", "{error}", error=error)

    @contextmanager
    def publishing(self, model: ModelStamp, *, at: datetime) -> Iterator[Publishing]:
        """Write lists, each only if its history has not moved and no list of a newer model is there.

        Redis writes the lists of one `Publishing.send` while those of the next one are computed.
        """
        stamps = b',"model":%b,"revision":' % orjson.dumps(model.version)
        moment = b',"generated_at":"%b","items":' % json_time(at).encode()

        def call(user: str, revision: int, items: EncodedLists) -> ScriptCall:
            before = b'{"user_id":%b%b%d%b' % (orjson.dumps(user), stamps, revision, moment)
            recs, again = (b"" if part == NO_ITEMS else b"%b%b}" % (before, part) for part in items)
            keys = self._keys.applied(user), self._keys.recs(user), self._keys.again(user)
            ttl_s = PROBE_TTL_S if is_reserved(user) else self._list_ttl_s
            return keys, (revision, model.sequence, recs, again, ttl_s)

        with self._connection.script_pipeline("publish") as pipeline:
            yield Publishing(pipeline, call, self._connection.many_users_a_call)

    def user_ids(self, *, with_any_key: bool = False) -> Iterator[list[str]]:
        """Yield the ids of all users with a history, in batches; users that come meanwhile may be missing.

        Reserved users are left out: what there is of them expires by itself.

        ``with_any_key`` finds those as well of whom anything else is left.
        """
        seen: set[str] = set()
        pattern, kind = (self._keys.user_pattern, None) if with_any_key else (self._keys.history_pattern, "hash")
        for keys in self._connection.scan(pattern, kind=kind):
            fresh = dict.fromkeys(self._keys.user_of(key) for key in keys)
            users = [
                user for user in fresh if user not in seen and not is_reserved(user)
            ]  # a scan may return a key more than once
            seen.update(users)
            if users:
                yield users

    def sample(self, most: int) -> tuple[list[str], bool]:
        """Return the ids of users with a history, and whether these are all: at most about so many are looked for."""
        users: dict[str, None] = {}
        for number, keys in enumerate(self._connection.scan(self._keys.history_pattern, kind="hash"), start=1):
            found = map(self._keys.user_of, keys)
            users.update(dict.fromkeys(user for user in found if not is_reserved(user)))
            if len(users) >= most or number >= _MOST_SCANNED:
                return list(users)[:most], False
        return list(users), True

    def list_states(self, user_ids: Sequence[str]) -> list[ListState]:
        """Return what became of users' lists."""
        recs, applied = ([names(user) for user in user_ids] for names in (self._keys.recs, self._keys.applied))
        there = self._connection.run([(key, ("EXISTS", key)) for key in recs])
        models = self._connection.run([(key, ("HMGET", key, "sequence")) for key in applied])
        return [
            ListState(bool(is_there), whole_or_none(sequence))
            for is_there, (sequence,) in zip(there, models, strict=True)
        ]

    def remove(self, user_ids: Sequence[str]) -> None:
        """Remove all that is kept of users."""
        keys = [self._keys.of_user(user) for user in user_ids]
        self._connection.run([(own[0], ("UNLINK", *own)) for own in keys])

    def let_reserved_expire(self, user_ids: Iterable[str]) -> None:
        """Let all that is kept of those who are reserved users expire by itself; of others nothing changes."""
        keys = [self._keys.of_user(user) for user in user_ids if is_reserved(user)]
        if keys:
            self._connection.run([(own[0], ("EXPIRE", key, PROBE_TTL_S)) for own in keys for key in own])

    def revision(self, user_id: str) -> int:
        """Return how often a user's history has changed; 0 of an unknown user."""
        key = self._keys.applied(user_id)
        return whole_or_none(self._connection.run([(key, ("HGET", key, "revision"))])[0]) or 0

    def keys_left(self, user_ids: Sequence[str]) -> list[str]:
        """Return the names of the keys that there are of users."""
        keys = [key for user in user_ids for key in self._keys.of_user(user)]
        there = self._connection.run([(key, ("EXISTS", key)) for key in keys])
        return [key for key, is_there in zip(keys, there, strict=True) if is_there]

    def forget_what_is_listed(self, user_ids: Sequence[str]) -> None:
        """Forget what users' lists were computed from: the next ones are written, also where that is damaged."""
        keys = [self._keys.applied(user) for user in user_ids]
        self._connection.run([(key, ("HDEL", key, "listed", "sequence")) for key in keys])

    def set_aside(self, user_ids: Sequence[str], *, if_damaged: bool = False) -> None:
        """Set users aside: they get no list, and events are passed over, until they have been made again.

        ``if_damaged``: only those of whom Redis has lost a part.
        """
        for start in range(0, len(user_ids), _USERS_PER_CALL):
            part = dict.fromkeys(user_ids[start : start + _USERS_PER_CALL], ())
            with self._applying(part, with_history=False, set_aside=not if_damaged) as applying:
                applying.states()

    def set_aside_damaged(self, states: Mapping[str, UserState]) -> None:
        """Set those users aside whose states, as they were read, are not as they were written."""
        damaged = [user for user, state in states.items() if state.damaged]
        _warn_of_loss(damaged)
        self.set_aside(damaged)
        self.set_aside([user for user, state in states.items() if state.aside and not state.damaged], if_damaged=True)

    def lists(self, user_ids: Sequence[str]) -> list[dict[str, Any] | None]:
        """Return the published lists as apps see them, None where there is none, or something that is no list."""
        return self._read_json([self._keys.recs(user) for user in user_ids])

    def again_lists(self, user_ids: Sequence[str]) -> list[dict[str, Any] | None]:
        """Return the lists of what users may buy again as apps see them, None as in `lists`."""
        return self._read_json([self._keys.again(user) for user in user_ids])

    def _read_json(self, keys: Sequence[str]) -> list[dict[str, Any] | None]:
        # Not GET: a key of another kind would keep the others from being read.
        values = self._connection.run([(key, ("MGET", key)) for key in keys])
        return [self._list(key, value) for key, (value,) in zip(keys, values, strict=True)]

    def _list(self, key: str, value: bytes | None) -> dict[str, Any] | None:
        """Return the list of a user; None, and a log line, for what is none: the next event writes it again."""
        if not value:
            return None
        try:
            found = json_object(self._keys, key, value)
        except DamagedKey as error:
            log.warning("list_unreadable", "{error}", error=error)
            return None
        problem = list_problem(found) or ("" if type(found.get("revision")) is int else "it does not say its revision")
        if problem:
            log.warning("list_damaged", "{problem}", problem=damaged(self._keys, key, problem))
        return None if problem else found


class Publishing:
    """Lists on their way to Redis, which writes them while this process computes others."""

    def __init__(
        self,
        pipeline: ScriptPipeline,
        call: Callable[[str, int, EncodedLists], ScriptCall],
        many_users_a_call: Callable[[Iterable[ScriptCall]], Iterator[ScriptCall]],
    ) -> None:
        self._pipeline = pipeline
        self._call = call
        self._many_users_a_call = many_users_a_call
        self._users: list[str] = []

    def send(self, revisions: Mapping[str, int], lists: Iterable[EncodedLists]) -> None:
        """Send lists.

        An empty list removes the user's list, so that apps fall back on the popular one. Lists of what users may buy
        again go with them.

        Parameters
        ----------
        revisions : mapping
            User → revision of the history that the list was computed from.
        lists : iterable of EncodedLists
            Of these users, in order.
        """
        self._users.extend(revisions)
        self._pipeline.send(self._many_users_a_call(map(self._call, revisions, revisions.values(), lists)))

    def outcomes(self) -> dict[str, PublishOutcome]:
        """Return what became of each user's list."""
        words = chain.from_iterable(self._pipeline.results())
        return {user: _OUTCOMES[word] for user, word in zip(self._users, words, strict=True)}


def _warn_of_loss(users: Sequence[str]) -> None:
    if users:
        log.warning(
            "users_set_aside",
            "Redis has lost a part of what it held of {users}, or holds what is no history: set aside; the "
            "trainer or recsys rebuild makes the histories again",
            users=_named(users),
        )


def _named(users: Sequence[str]) -> str:
    first = ", ".join(map(named, users[:_MOST_NAMED]))
    return first if len(users) <= _MOST_NAMED else f"{first} and {len(users) - _MOST_NAMED:,} more users"
