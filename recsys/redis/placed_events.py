"""Events with the place that they came from, as apply.lua takes them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import msgpack

from recsys.data.event import Event, EventOfLine, EventType

_DIGEST_BYTES = 8  # that two of the few hundred ids kept of a user share one is less likely than a broken disk
_USERS_PER_CALL = 500


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
        event was applied; otherwise the position is remembered like an id. Of the event_ids of all such sources those
        of the newest events are remembered, in whatever order they came.
    """

    source: str
    offset: int
    event: Event
    complete: bool = False

    def packed(self, *, is_next_line: bool = False) -> tuple[str, int, bytes, str, int, int, bool]:
        """Return what apply.lua takes.

        ``is_next_line``: an event without event_id came before it from the same place; they are lines of one record.
        """
        event = self.event
        if event.event_id is not None:
            id_ = _digest(f"id {event.event_id}")
        elif self.complete:
            id_ = b""
        elif is_next_line:
            id_ = b"="
        else:
            id_ = _digest(f"at {self.source} {self.offset}")
        item = "" if event.type is EventType.FORGET else event.item_id or ""
        return (self.source, self.offset, id_, item, event.units, event.timestamp // 1000, self.complete)


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


def _digest(text: str) -> bytes:
    return blake2b(text.encode(), digest_size=_DIGEST_BYTES).digest()


def packed(events: Sequence[PlacedEvent]) -> bytes:
    """Return a user's events as apply.lua takes them."""
    rows = []
    place: tuple[str, int] | None = None
    last_line = 0
    for placed in events:
        is_next_line = False
        if placed.event.event_id is None:
            line = placed.event.line if isinstance(placed.event, EventOfLine) else 0
            if place == (placed.source, placed.offset):
                is_next_line = line > last_line  # else it is a copy
                line = max(line, last_line)
            else:
                place = (placed.source, placed.offset)
            last_line = line
        rows.append(placed.packed(is_next_line=is_next_line))
    # Redis's cmsgpack knows only the old types, so no bin type.
    packed: bytes = msgpack.packb(rows, use_bin_type=False)
    return packed


def parts_of(events: Sequence[PlacedEvent], most: int) -> Iterator[Sequence[PlacedEvent]]:
    """Cut a user's events into parts of about so many; the lines of one record always stay together."""
    start = 0
    while start < len(events):
        stop = min(start + most, len(events))
        while stop < len(events) and _place(events[stop]) == _place(events[stop - 1]):
            stop += 1
        yield events[start:stop]
        start = stop


def _place(placed: PlacedEvent) -> tuple[str, int, bool]:
    return placed.source, placed.offset, placed.complete
