"""What records or rows would come to as events, and what of it looks wrong: before anything counts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from recsys.data.epoch import iso_time
from recsys.data.event import Event, EventOfLine, EventType
from recsys.data.mapping import NO_USER_OF_RETURN, LeftOut
from recsys.files.batches import NO_CUSTOMER_OF_RETURN, Batch
from recsys.files.frequent_ids import LARGE_SHARE_OF_A_USER, LARGE_SHARE_OF_AN_ITEM, FrequentIds
from recsys.files.remedies import TOPIC, Remedies
from recsys.files.values import is_spoilt_id
from recsys.operations.distinct import DistinctCounter
from recsys.operations.repeated_ids import RepeatedIds
from recsys.settings.sections import MOST_EVENT_IDS

_MANY = 1_000
"""Of so few events, quantities may all be 1."""
_ALL_1 = "all quantities are 1"
_LARGE_SHARE = 0.01
"""Of records that are malformed."""
_MOST_KINDS = 1_000
_RETURNS_OF_NOBODY = frozenset({NO_USER_OF_RETURN, NO_CUSTOMER_OF_RETURN})
_YEAR_MS = 365 * 86_400_000
_AHEAD_MS = 5 * 60_000
"""Clocks may differ by so much."""
BYTES_OF_AN_ID = 16
"""In the string that apply.lua packs, as Redis keeps it: 8 of the digest, 4 of the offset, what says so, and room."""
_LINE = re.compile(r"^line \d+: ")
_MORE_LINES = re.compile(r"; (?:line \d+: |and [\d,]+ more lines$).*", re.DOTALL)
_VALUE = re.compile(r"'[^']*'|\"[^\"]*\"|\d[\d,.:TZ+-]*")


@dataclass(slots=True)
class ReasonCount:
    """A reason, in the words of its first case, where that is, and how many there are."""

    reason: str
    place: str
    count: int = 0


class ReasonCounts:
    """Counts reasons; those that differ in numbers and quoted values alone are one."""

    def __init__(self) -> None:
        self._found: dict[str, ReasonCount] = {}
        self.total = 0

    def note(self, reason: str, place: str, count: int = 1) -> None:
        """Count records or lines; of a record with several broken lines the first one says why."""
        first = _MORE_LINES.sub("", _LINE.sub("", reason))
        kind = _VALUE.sub("0", first)
        if kind not in self._found and len(self._found) >= _MOST_KINDS:
            kind = first = "other reasons"
        self._found.setdefault(kind, ReasonCount(first, place)).count += count
        self.total += count

    def most_common(self) -> list[ReasonCount]:
        """Return all reasons, the commonest first."""
        return sorted(self._found.values(), key=lambda found: -found.count)


@dataclass(slots=True)
class OddIds:
    """Ids that a program has spoilt, and an example."""

    count: int = 0
    example: str = ""

    def note(self, value: str) -> None:
        """Look at one."""
        if is_spoilt_id(value):
            self.count += 1
            self.example = self.example or value


class EventSummary:
    """Takes records with their events, or batches of rows, and says what they come to.

    Memory is bounded: numbers of users, items and repeated events are exact up to half a million; of more repeated ids
    the number is the least that there is.

    Parameters
    ----------
    now_ms : int
        Times after this lie ahead.
    remedies : Remedies
        For what looks wrong.
    most_ids : int or None
        Ids of a user by which a consumer recognizes copies; None where those of an import are all known.
    """

    def __init__(self, *, now_ms: int, remedies: Remedies = TOPIC, most_ids: int | None = None) -> None:
        self._now_ms = now_ms
        self._remedies = remedies
        self.records = 0
        self.types: Counter[EventType] = Counter()
        self.malformed, self.passed_over = ReasonCounts(), ReasonCounts()
        self.users, self.items = DistinctCounter(), DistinctCounter()
        self.ids, self.without_id = RepeatedIds(most_ids), DistinctCounter()
        self.unread_prices = 0
        """Prices that are left out, for they cannot be read."""
        self.first_ms: int | None = None
        self.last_ms: int | None = None
        self._odd_users, self._odd_items = OddIds(), OddIds()
        self._frequent_users = FrequentIds(LARGE_SHARE_OF_A_USER)
        self._frequent_items = FrequentIds(LARGE_SHARE_OF_AN_ITEM)
        self._of_1970 = self._ahead = self._with_shared_id = self._returns_of_nobody = 0
        self._has_other_quantity, self._has_quantity = False, remedies.looks_for_quantity

    @property
    def events(self) -> int:
        """How many events there are, of all types."""
        return self.types.total()

    def note_record(
        self, events: Sequence[Event], left_out: Sequence[LeftOut], malformed: str | None, *, place: str
    ) -> None:
        """Count a record: its events, what of it does not count, and what is wrong with it, if anything."""
        self.records += 1
        if malformed is not None:
            self.malformed.note(malformed, place)
        for one in left_out:
            self._note_left_out(one.why, place, 1)
        for event in events:
            self._note(event)
            if event.event_id is None:
                identity = (event.user_id, event.item_id, event.type, event.quantity, event.timestamp)
                self.without_id.note(identity)
        self._note_ids(events)

    def note_batch(self, batch: Batch) -> None:
        """Count the rows of a file; which of those without id are the same purchase, the import says."""
        self.records += batch.rows
        self.unread_prices += batch.unread_prices
        for reject in batch.rejects:
            self.malformed.note(reject.reason, reject.place)
        for why, (count, place) in batch.reasons.items():
            self._note_left_out(why, place, count)
        for _, event in batch.events:
            self._note(event)
        for _, row in groupby(batch.events, _first_line):
            self._note_ids([event for _, event in row])

    def _note_left_out(self, why: str, place: str, count: int) -> None:
        self.passed_over.note(why, place, count)
        if why in _RETURNS_OF_NOBODY:
            self._returns_of_nobody += count

    def _note_ids(self, events: Sequence[Event]) -> None:
        self.ids.note_record(events)
        if len(events) > 1:
            ids = [(event.user_id, event.event_id) for event in events if event.event_id is not None]
            self._with_shared_id += len(set(ids)) < len(ids)

    def _note(self, event: Event) -> None:
        self.types[event.type] += 1
        self.users.note(event.user_id)
        self._frequent_users.note(event.user_id)
        self._odd_users.note(event.user_id)
        if event.item_id is None:  # to be erased: of no time, no item and no quantity
            return
        self.items.note(event.item_id)
        self._frequent_items.note(event.item_id)
        self._odd_items.note(event.item_id)
        self._has_other_quantity |= event.quantity != 1
        self._has_quantity = self._has_quantity or "quantity" in event.model_fields_set
        moment = event.timestamp
        if self.first_ms is None or moment < self.first_ms:
            self.first_ms = moment
        if self.last_ms is None or moment > self.last_ms:
            self.last_ms = moment
        self._of_1970 += moment < _YEAR_MS
        self._ahead += moment > self._now_ms + _AHEAD_MS

    @property
    def _are_all_1(self) -> bool:
        return self.events >= _MANY and not self._has_other_quantity

    def notes(self) -> list[str]:
        """Return what should be known, with nothing wrong, a line each."""
        return [f"{_ALL_1}: nothing says what they are"] if self._are_all_1 and not self._has_quantity else []

    def suspicions(self) -> list[str]:
        """Return what looks wrong, a line each."""
        return list(self._suspicions())

    def _suspicions(self) -> Iterator[str]:
        if self.records and not self.events:
            yield "nothing becomes an event"
        if self.malformed.total > _LARGE_SHARE * self.records:
            yield f"{self.malformed.total / self.records:.1%} break a rule, more than one in a hundred"
        for what, odd in (("user", self._odd_users), ("item", self._odd_items)):
            if odd.count:
                yield (
                    f"{_times(odd.count, f'{what} id')} like {odd.example!r}: a program took ids for numbers; "
                    f"have them written as text"
                )
        for user, share in self._frequent_users.shares(self.events):
            yield self._remedies.about_user(user, share, "events")
        for item, share in self._frequent_items.shares(self.events):
            yield self._remedies.about_item(item, share)
        if self._returns_of_nobody and not self.types[EventType.RETURN] and self.types[EventType.PURCHASE]:
            yield (
                f"{_times(self._returns_of_nobody, 'return')} and none has a user, as purchases have: nothing is taken "
                f"back; whoever sends returns must add the customer"
            )
        if self._of_1970:
            yield f"{_times(self._of_1970, 'time')} in 1970: {self._remedies.unit}"
        if self._ahead:
            yield f"{_times(self._ahead, 'time')} ahead of now: {self._remedies.zone}"
        if self._with_shared_id:
            yield (
                f"{_times(self._with_shared_id, 'record')} with several lines of one event_id, of which one alone "
                f"counts: let event_id name the line as well"
            )
        if self.ids.too_late:
            yield self._about_late_copies()
        if self._are_all_1 and self._has_quantity:
            yield f"{_ALL_1}: {self._remedies.quantity}"

    def _about_late_copies(self) -> str:
        ids, found = self.ids, _times(self.ids.too_late, "copy", "copies")
        if ids.needed <= MOST_EVENT_IDS:
            todo = (
                f"set RECSYS_HISTORY__MAX_EVENT_IDS to {ids.needed} or more, which takes about {BYTES_OF_AN_ID} "
                f"bytes in Redis for each id of each user"
            )
        else:
            todo = f"RECSYS_HISTORY__MAX_EVENT_IDS would have to be {ids.needed:,}: have them not sent again"
        return (
            f"{'' if ids.is_exact else 'at least '}{found} by event_id too late to be recognized, after more than "
            f"{ids.most_ids:,} newer ids of the user: they count again; {todo}"
        )

    def as_json(self) -> dict[str, Any]:
        """Return all of it for programs."""
        counters: dict[str, DistinctCounter | RepeatedIds] = {
            "users": self.users, "items": self.items, "repeated": self.ids,
        }  # fmt: skip
        return {
            "records": self.records,
            "events": {kind.value: self.types[kind] for kind in EventType},
            "users": self.users.distinct,
            "items": self.items.distinct,
            "repeated": self.ids.recognized,
            "repeated_too_late": self.ids.too_late,
            "alike": self.without_id.repeats,
            "approximate": [name for name, counter in counters.items() if not counter.is_exact],
            "unread_prices": self.unread_prices,
            "first": None if self.first_ms is None else iso_time(self.first_ms),
            "last": None if self.last_ms is None else iso_time(self.last_ms),
            "malformed": [
                {"reason": one.reason, "count": one.count, "share": one.count / self.records, "first": one.place}
                for one in self.malformed.most_common()
            ],
            "passed_over": [{"reason": one.reason, "count": one.count} for one in self.passed_over.most_common()],
            "suspicions": self.suspicions(),
        }


def _first_line(placed: tuple[int, Event]) -> int:
    """Return the position of the first line of an event's row."""
    position, event = placed
    return position - event.line + 1 if isinstance(event, EventOfLine) else position


def _times(count: int, what: str, many: str = "") -> str:
    return f"{count:,} {what if count == 1 else many or f'{what}s'}"
