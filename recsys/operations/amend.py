"""Histories in Redis are compared with the archive and the topic; those that differ are brought back."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from zlib import crc32

from recsys.data.history import Entry, HistoryReplay
from recsys.operations.make_again import StreamBeyond, calls_of_segment, make_again
from recsys.operations.replay import replay_archive
from recsys.redis import HeldLock, Store
from recsys.runtime import fail_points
from recsys.runtime.progress import Advance, ProgressReporter
from recsys.settings import Settings
from recsys.storage.data_dir import DataDir
from recsys.storage.segments import Segment, in_order_of_application

_EVENTS_AT_ONCE = 5_000_000  # replayed in memory; of a larger archive the users are looked at in parts
_USERS_PER_READ = 256
_LOOKS = 3
"""At users who differ, before they are set aside: what is on its way is no difference."""
_BETWEEN_LOOKS_S = 1.0


@dataclass
class Amended:
    """What was brought back.

    Attributes
    ----------
    compared : int or None
        Histories that were compared with the archive; None: all of the archive was applied.
    applied, known : int
        Archived events that changed a history, and events that Redis had applied already.
    made_again : int
        Users whose histories were still not right then, and were made again from their first event on.
    left : int
        Users who still differ, because what Redis holds of them cannot be brought back.
    """

    compared: int | None = None
    applied: int = 0
    known: int = 0
    made_again: int = 0
    left: int = 0

    def note(self, applied: int, known: int) -> None:
        """Count archived events."""
        self.applied += applied
        self.known += known


def amend(
    settings: Settings,
    store: Store,
    data_dir: DataDir,
    segments: list[Segment],
    lock: HeldLock,
    progress: ProgressReporter,
    *,
    may_lose: bool,
) -> Amended:
    """Bring back what Redis has lost of single users, while consumers may run; who is right is not touched.

    First the events of those who differ are applied, which completes all who have just lost everything, or are behind.
    Who still differs has lost a part: these are set aside and made again (`make_again`).

    Parameters
    ----------
    may_lose : bool
        Make users again even if that removes what neither the archive nor Kafka holds.
    """
    amended, compared = Amended(), 0
    parts = 1 + sum(segment.last - segment.first + 1 for segment in segments) // _EVENTS_AT_ONCE
    for number in range(parts):
        with _Truth(settings, store, data_dir, segments, partial(_is_in_part, number, parts)) as truth:
            with progress.stage("compare with the archive", len(segments)) as advance:
                truth.replay_archive(advance)
                users = truth.users()
                store.users.set_aside(users, if_damaged=True)  # also of whom only the bookkeeping is not whole
                different = truth.different(users)
                compared += len(users)
            if different:
                with progress.stage("apply what is missing", len(segments)) as advance:
                    _apply(settings, store, data_dir, segments, lock, frozenset(different), amended, advance)
                different = truth.still_different(different)
        if may_lose:
            store.users.set_aside(different)
        else:
            amended.left += len(different)
    amended.compared = compared
    if may_lose:
        amended.made_again = make_again(
            settings, store, data_dir, progress, before_write=lock.ensure_held, accept_loss=True
        )
    return amended


def _is_in_part(number: int, parts: int, user: str) -> bool:
    return crc32(user.encode()) % parts == number


def _apply(
    settings: Settings,
    store: Store,
    data_dir: DataDir,
    segments: Sequence[Segment],
    lock: HeldLock,
    users: frozenset[str],
    amended: Amended,
    advance: Advance,
) -> None:
    for segment in in_order_of_application(segments):
        lock.ensure_held()
        for call in calls_of_segment(data_dir, segment, users):
            amended.note(*store.users.apply_without_reading(call))
        fail_points.reach("in-rebuild")
        advance(1)
    with StreamBeyond(settings, store, data_dir.archive.positions(segments)) as stream:
        for call in stream.calls(users.__contains__):
            store.users.apply_without_reading(call)


class _Truth:
    """What the histories of some users must be; use it as a context manager, which reads the topic meanwhile."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        data_dir: DataDir,
        segments: Sequence[Segment],
        is_ours: Callable[[str], bool],
    ) -> None:
        self._store = store
        self._archive = data_dir.archive
        self._segments = segments
        self._is_ours = is_ours
        self._stream = StreamBeyond(settings, store, data_dir.archive.positions(segments))
        self._replays: dict[str, HistoryReplay] = defaultdict(lambda: HistoryReplay(settings.history.max_items))

    def __enter__(self) -> _Truth:
        self._stream.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.__exit__()

    def replay_archive(self, advance: Advance) -> None:
        """Replay what is archived."""
        replay_archive(self._archive, self._segments, self._replays, self._is_ours, advance)

    def users(self) -> list[str]:
        """Return the users of whom there is anything, here or there, once the topic has been read to its end."""
        self._replay_stream()
        there = {user for found in self._store.users.user_ids(with_any_key=True) for user in found}
        ours = filter(self._is_ours, there | set(self._replays))
        return sorted(filter(self._store.users.can_hold, ours))

    def _replay_stream(self) -> None:
        for call in self._stream.calls(self._is_ours):
            for user, placed in call.items():
                self._replays[user].apply(one.event for one in placed)

    def different(self, users: list[str]) -> list[str]:
        """Return those users whose history in Redis is another one."""
        return [
            user
            for start in range(0, len(users), _USERS_PER_READ)
            for user, state in self._store.users.read(users[start : start + _USERS_PER_READ]).items()
            if state.aside or state.history.entries != self._expected(user)
        ]

    def still_different(self, users: list[str]) -> list[str]:
        """Look at users again, some times: what is on its way is no difference."""
        for look in range(_LOOKS):
            if look:
                time.sleep(_BETWEEN_LOOKS_S)
            self._replay_stream()
            if not (users := self.different(users)):
                break
        return users

    def _expected(self, user: str) -> dict[str, Entry]:
        return self._replays[user].entries if user in self._replays else {}
