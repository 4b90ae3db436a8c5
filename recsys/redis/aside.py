"""Users who are set aside because Redis has lost a part of them, and what is made anew of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from recsys.redis.connection import Connection
from recsys.redis.keys import Keys
from recsys.redis.placed_events import PlacedEvent
from recsys.redis.users import FORGOTTEN_TTL_S, UserStore
from recsys.settings import HistorySettings, RankingSettings


@dataclass(frozen=True, slots=True)
class AsideState:
    """What the bookkeeping of a user who is set aside says; it changes whenever events are passed over."""

    passed_over: bytes
    revision: bytes


class Adoption(IntEnum):
    """What became of a user who was made anew."""

    DONE = 1
    MOVED = 0
    """Events were passed over meanwhile: apply them to what was made, and try again."""
    NOT_ASIDE = -1
    """The user is not set aside, or not any more."""
    LOST = -2
    """Redis has lost what was made: make it again."""


class AsideStore:
    """The users who are set aside: marked in their own keys, and named in one set.

    They are made anew under other keys, by the same script as ever, and then take the place of what was left of them.
    """

    def __init__(self, connection: Connection, keys: Keys, history: HistorySettings, ranking: RankingSettings) -> None:
        self._connection = connection
        self._keys = keys
        self._anew_keys = keys.anew()
        self._anew = UserStore(connection, self._anew_keys, history, ranking)
        self._revisions: dict[str, int] = {}

    def users(self) -> list[str]:
        """Return the users who are set aside, as far as processes have met them."""
        members = self._connection.run([(self._keys.aside, ("SMEMBERS", self._keys.aside))])[0]
        names = (member.decode(errors="replace") for member in members)
        return sorted(filter(self._anew.can_hold, names))

    def count(self) -> int:
        """Return how many there are."""
        return int(self._connection.run([(self._keys.aside, ("SCARD", self._keys.aside))])[0])

    def begin(self, users: Sequence[str]) -> None:
        """Begin to make users anew; what an earlier attempt has left is removed."""
        self._anew.remove(users)
        self._revisions = dict.fromkeys(users, 0)

    def apply(self, events: Mapping[str, Sequence[PlacedEvent]]) -> None:
        """Apply events to what is made anew."""
        self._revisions |= self._anew.apply_for_revisions(events)

    def states(self, users: Sequence[str]) -> dict[str, AsideState]:
        """Return what is set aside now; users who are not set aside are left out."""
        keys = [self._keys.applied(user) for user in users]
        found = self._connection.run([(key, ("HMGET", key, "aside", "revision")) for key in keys])
        return {
            user: AsideState(passed_over, revision)
            for user, (passed_over, revision) in zip(users, found, strict=True)
            if passed_over is not None
        }

    def adopt(self, seen: Mapping[str, AsideState]) -> dict[str, Adoption]:
        """Let what was made anew take its place, for each user unless events have been passed over since ``seen``."""
        calls = [
            (
                (*self._keys.of_user(user), *self._anew_keys.of_user(user)),
                (state.passed_over, state.revision, self._revisions[user], FORGOTTEN_TTL_S),
            )
            for user, state in seen.items()
        ]
        outcomes = map(Adoption, self._connection.run_script("adopt", calls))
        return dict(zip(seen, outcomes, strict=True))

    def leave(self, users: Collection[str]) -> None:
        """Take users off the set unless they have been set aside again, and remove what was made anew, not adopted."""
        if users:
            self._anew.remove(list(users))
            self._connection.run([(self._keys.aside, ("SREM", self._keys.aside, *users))])
            if again := self.states(list(users)):  # asked afterwards: nobody who is set aside meanwhile is missed
                self._connection.run([(self._keys.aside, ("SADD", self._keys.aside, *again))])
