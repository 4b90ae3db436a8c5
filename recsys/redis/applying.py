"""Events of users on their way to Redis, and what they led to."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from recsys.data.history import History, damaged_histories
from recsys.redis.connection import ScriptCall, ScriptPipeline
from recsys.redis.placed_events import PlacedEvent, parts_of

_FIRST_SHARE = 3 / 8  # of the users: listing them takes about as long as applying the others' events
_LEAST_FIRST = 8  # fewer are listed sooner together with the others
_EVENTS_PER_CALL = 1_000  # of one user; a longer script would hold up everyone else in Redis


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
    aside : bool
        Redis has lost a part of what it held of the user, who gets no list until the trainer has made the history
        again; events are passed over until then.
    """

    applied: int
    duplicates: int
    revision: int
    listed_sequence: int
    history: History
    aside: bool = False
    damaged: bool = False
    """Whether the history itself could not be read; the user must be set aside, and counts as if without one."""

    def after(self, earlier: UserState) -> UserState:
        """Return this state as what both applications led to."""
        return replace(self, applied=earlier.applied + self.applied, duplicates=earlier.duplicates + self.duplicates)


class Applying:
    """Events on their way to Redis, which applies them while this process does something else."""

    def __init__(
        self,
        pipeline: ScriptPipeline,
        events: Mapping[str, Sequence[PlacedEvent]],
        calls: Callable[[Mapping[str, Sequence[PlacedEvent]]], Iterator[ScriptCall]],
        run: Callable[[Iterable[ScriptCall]], list[Any]],
        earlier: Mapping[str, UserState],
    ) -> None:
        self._pipeline = pipeline
        self._events = events
        self._calls = calls
        self._run = run
        self._earlier = earlier
        self.aside: list[str] = []
        """The users who turned out to be set aside, once `states` has returned."""
        self.damaged: list[str] = []
        """The users who must be, because their histories cannot be read."""
        self._first: dict[str, UserState] = {}
        self._first_replies: Sequence[Any] = ()
        self._parts = {
            user: list(parts_of(placed, _EVENTS_PER_CALL))
            for user, placed in events.items()
            if len(placed) > _EVENTS_PER_CALL
        }
        """Of the users with more events than go into one call."""
        pipeline.send(calls({**events, **{user: parts[0] for user, parts in self._parts.items()}}))

    def first_states(self) -> dict[str, UserState]:
        """Return the states of the first users, while Redis is at the others; of few users none come first."""
        first = int(_FIRST_SHARE * len(self._events))
        if first < _LEAST_FIRST or self._parts:  # then they are not yet what all events lead to
            return {}
        self._first_replies = self._pipeline.first_results(first)
        self._first = states_of(self._events, self._first_replies)
        return self._first

    def states(self) -> dict[str, UserState]:
        """Return the states of all users."""
        replies = self._pipeline.results()
        # They are other ones if everything had to be sent again.
        known = self._first if all(map(operator.is_, replies, self._first_replies)) else {}
        rest = states_of(list(self._events)[len(known) :], replies[len(known) :])
        states = dict(self._earlier) | known | rest
        for place in range(1, max(map(len, self._parts.values()), default=0)):
            # One round trip at a time: a later part must never be applied before an earlier one.
            part = {user: parts[place] for user, parts in self._parts.items() if place < len(parts)}
            later = states_of(part, self._run(self._calls(part)))
            states |= {user: state.after(states[user]) for user, state in later.items()}
        self.aside = [user for user, state in states.items() if state.aside and not state.damaged]
        self.damaged = [user for user, state in states.items() if state.damaged]
        return states


def states_of(users: Iterable[str], results: Sequence[Any]) -> dict[str, UserState]:
    """Return what the scripts say of users, in their order."""
    states = {}
    damaged_ones = damaged_histories([text for _, _, _, _, text, _ in results])
    for user, result, damaged_one in zip(users, results, damaged_ones.tolist(), strict=False):
        applied, duplicates, revision, listed, text, aside = result
        history = History(b"" if damaged_one else text)
        states[user] = UserState(
            applied, duplicates, revision, listed, history, bool(aside) or damaged_one, damaged_one
        )
    return states
