"""The events in a record of a shop's own form, found by an `EventMapping` and held to the contract's rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from recsys.data.event import Event, EventOfLine, EventReading, EventType, ensure_fits_cluster, event_of
from recsys.data.mapping import NO_USER, EventMapping, LeftOut, LineProblem, MappedLine
from recsys.errors import MalformedEvent

_MOST_NAMED = 3
_NOT_COUNTED = LeftOut(None, "where leaves it out")


class MappedRecord(NamedTuple):
    """What a record holds.

    Attributes
    ----------
    events : sequence of Event
        Of its lines, in their order; `EventOfLine` where the mapping names lines.
    left_out : sequence of LeftOut
        What does not count; of the whole record if ``where`` leaves it out.
    problems : sequence of LineProblem
        What is malformed.
    """

    events: Sequence[Event]
    left_out: Sequence[LeftOut]
    problems: Sequence[LineProblem]

    @property
    def reason(self) -> str:
        """What is malformed, in one line; empty if nothing is."""
        named = "; ".join(str(problem) for problem in self.problems[:_MOST_NAMED])
        more = len(self.problems) - _MOST_NAMED
        return f"{named}; and {more:,} more lines" if more > 0 else named


def mapped_record(
    mapping: EventMapping,
    scope: dict[str, Any],
    *,
    reading: EventReading,
    on_cluster: bool = False,
    on_unread_price: Callable[[], None] = lambda: None,
) -> MappedRecord:
    """Return what a record holds.

    Parameters
    ----------
    mapping : EventMapping
    scope : dict
        As `EventMapping.lines` takes it.
    reading : EventReading
    on_cluster : bool
        Refuse users whose keys a Redis Cluster could not keep together.
    on_unread_price : callable
        Called for each price that is none: it is left out.
    """
    events: list[Event] = []
    left_out: list[LeftOut] = []
    problems: list[LineProblem] = []
    try:
        if not mapping.counts(scope):
            return MappedRecord((), (_NOT_COUNTED,), ())
        for line in mapping.lines(scope):
            if type(line) is MappedLine:
                try:
                    event = _event(line, scope["timestamp"], reading, on_unread_price)
                    if on_cluster:
                        ensure_fits_cluster(event.user_id)
                except MalformedEvent as error:
                    problems.append(LineProblem(line.number, error.reason))
                    continue
                if reading.is_no_user(event.user_id) and event.type is not EventType.FORGET:
                    left_out.append(LeftOut(line.number, NO_USER))
                else:
                    events.append(event)
            elif isinstance(line, LeftOut):
                left_out.append(line)
            elif isinstance(line, LineProblem):
                problems.append(line)
    except LineProblem as problem:
        return MappedRecord((), left_out, (problem,))
    if len(events) > 1 and any(event.type is EventType.FORGET for event in events):
        return MappedRecord((), left_out, (LineProblem(None, "type: forget must be the only event of its record"),))
    return MappedRecord(events, left_out, problems)


def _event(line: MappedLine, sent_ms: int | None, reading: EventReading, on_unread_price: Callable[[], None]) -> Event:
    kind: type[Event] = Event
    if line.number is not None:
        line.fields["line"] = line.number
        kind = EventOfLine
    return event_of(line.fields, sent_ms=sent_ms, reading=reading, on_unread_price=on_unread_price, kind=kind)
