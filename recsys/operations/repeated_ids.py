"""Which events repeat an id: those that are recognized as copies, and those that come too late for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from recsys.data.event import Event, EventType
from recsys.operations.distinct import hash_of, is_sampled

_MOST_HELD = 500_000
"""Ids, of about 150 bytes each with their users."""


@dataclass(slots=True)
class _User:
    """What is known of one user.

    Attributes
    ----------
    positions : dict
        Hash of an id → where the user's remembered ids had got to when it came last.
    remembered : int
        How many ids the user has had, copies among them.
    before_last_record : int
        How many of them before the last record.
    """

    positions: dict[int, int]
    remembered: int = 0
    before_last_record: int = 0


class RepeatedIds:
    """Counts the events that repeat an id of their user, as a consumer or an import would meet them.

    A consumer remembers the newest ids of each user, and all of the newest record (recsys/redis/lua/apply.lua). A copy
    that comes after more newer ones counts again. An import finds ids in the archive, however old they are.

    Up to half a million ids are held. If there are more, only a part of the users is looked at from then on, so that
    what was found is the least that there is.

    Parameters
    ----------
    most_ids : int or None
        Ids that are remembered of a user; None: all of them.
    most_held : int

    Attributes
    ----------
    recognized : int
        Copies that count once, together with their first.
    too_late : int
        Copies that count again.
    needed : int
        How many ids would have to be remembered for none to be too late; 0 if none is.
    """

    def __init__(self, most_ids: int | None = None, most_held: int = _MOST_HELD) -> None:
        self.most_ids = most_ids
        self.recognized = self.too_late = self.needed = 0
        self._most_held = most_held
        self._users: dict[int, _User] = {}
        self._held = 0
        self._halvings = 0

    @property
    def is_exact(self) -> bool:
        """Whether all users are looked at."""
        return self._halvings == 0

    def note_record(self, events: Sequence[Event]) -> None:
        """Look at the events of a record, or of a row of a file."""
        by_user: dict[str, list[Event]] = {}
        for event in events:
            by_user.setdefault(event.user_id, []).append(event)
        for user_id, of_user in by_user.items():
            hashed = hash_of(user_id)
            if is_sampled(hashed, self._halvings):
                self._note(hashed, of_user)
        while self._held > self._most_held:
            self._halve()

    def _note(self, hashed: int, events: Sequence[Event]) -> None:
        if any(event.type is EventType.FORGET for event in events):  # the only one of its record
            if (forgotten := self._users.pop(hashed, None)) is not None:
                self._held -= len(forgotten.positions)
            return
        user = self._users.get(hashed)
        if user is None:
            user = self._users[hashed] = _User({})
        before = user.remembered
        has_place = False
        for event in events:
            if event.event_id is None:
                has_place = True
                continue
            key = hash_of(event.event_id)
            if (position := user.positions.get(key)) is None:
                self._held += 1
            else:
                self._note_copy(user, position, before)
            user.positions[key] = user.remembered
            user.remembered += 1
        user.remembered += has_place  # lines without ids are remembered by the place of their record
        user.before_last_record = before

    def _note_copy(self, user: _User, position: int, before: int) -> None:
        newer = before - 1 - position  # ids that came after it, up to this record
        if self.most_ids is None or newer < self.most_ids or position >= user.before_last_record:
            self.recognized += 1
        else:
            self.too_late += 1
            self.needed = max(self.needed, newer + 1)

    def _halve(self) -> None:
        self._halvings += 1
        self._users = {one: user for one, user in self._users.items() if is_sampled(one, self._halvings)}
        self._held = sum(len(user.positions) for user in self._users.values())
