"""The events in a record of a shop's own form, found by an `EventMapping` and held to the contract's rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from recsys.data import envelopes
from recsys.data.epoch import EpochUnit
from recsys.data.event import Event, EventOfLine, EventReading, EventType, ensure_fits_cluster, event_of
from recsys.data.mapping import NO_USER, NO_USER_OF_RETURN, EventMapping, LeftOut, LineProblem, MappedLine
from recsys.errors import MalformedEvent, Reason

_MOST_NAMED = 3
_REQUIRED = ("user_id", "item_id")
_REQUIRED_IN_FILES = (*_REQUIRED, "timestamp")
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
    lines : int
        How many lines were looked at, whatever they hold; 0 where there are none, or the whole record is malformed.
    """

    events: Sequence[Event]
    left_out: Sequence[LeftOut]
    problems: Sequence[LineProblem]
    lines: int

    def malformed(self, mapping: EventMapping) -> MalformedEvent:
        """Return what is malformed, in one line; with the good lines' events, if the mapping lets these count."""
        named = "; ".join(str(problem) for problem in self.problems[:_MOST_NAMED])
        more = len(self.problems) - _MOST_NAMED
        events = self.events if mapping.file.lines_that_are_good == "count" else ()
        lines = [problem.number for problem in self.problems if problem.number is not None] if events else ()
        reason = f"{named}; and {more:,} more lines" if more > 0 else named
        lines_of = mapping.lines_of if lines else ""
        return MalformedEvent(reason, self.problems[0].code, events=events, lines=lines, lines_of=lines_of)


def reading_with(mapping: EventMapping, reading: EventReading) -> EventReading:
    """Return how events are read where a mapping finds them: it may name the unit of their times."""
    unit = mapping.file.timestamp_unit
    reading = replace(reading, unit_is_set_by="timestamp_unit in the mapping")
    return reading if unit == "auto" else replace(reading, unit=EpochUnit(unit))


def mapped_record(
    mapping: EventMapping,
    scope: dict[str, Any],
    *,
    reading: EventReading,
    on_cluster: bool = False,
    on_unread_price: Callable[[], None] = lambda: None,
    read_ms: int | None = None,
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
    read_ms : int or None
        When a record is read that was never sent, as one in a file: no event is later than a day after that, and each
        must have a time of its own.
    """
    events: list[Event] = []
    left_out: list[LeftOut] = []
    problems: list[LineProblem] = []
    lines = 0
    try:
        if not mapping.counts(scope):
            return MappedRecord((), (_NOT_COUNTED,), (), 0)
        for line in mapping.lines(scope):
            lines += 1
            if type(line) is MappedLine:
                try:
                    event = _event(line, scope["value"], scope["timestamp"], read_ms, reading, on_unread_price)
                    if on_cluster:
                        ensure_fits_cluster(event.user_id)
                except MalformedEvent as error:
                    problems.append(LineProblem(line.number, error.reason, error.code))
                    continue
                if reading.is_no_user(event.user_id) and event.type is not EventType.FORGET:
                    is_return = event.type is EventType.RETURN
                    left_out.append(LeftOut(line.number, NO_USER_OF_RETURN if is_return else NO_USER))
                else:
                    events.append(event)
            elif isinstance(line, LeftOut):
                left_out.append(line)
            elif isinstance(line, LineProblem):
                problems.append(line)
    except LineProblem as problem:
        return MappedRecord((), left_out, (problem,), 0)
    if len(events) > 1 and any(event.type is EventType.FORGET for event in events):
        forget = LineProblem(None, "type: forget must be the only event of its record", Reason.TYPE)
        return MappedRecord((), left_out, (forget,), lines)
    return MappedRecord(events, left_out, problems, lines)


def _event(
    line: MappedLine,
    value: Any,
    sent_ms: int | None,
    read_ms: int | None,
    reading: EventReading,
    on_unread_price: Callable[[], None],
) -> Event:
    kind: type[Event] = Event
    if "user_id" not in line.fields or "item_id" not in line.fields:
        _ensure_several_found(line, value, _REQUIRED if read_ms is None else _REQUIRED_IN_FILES)
    if read_ms is not None:
        sent_ms = read_ms
        if line.fields.get("timestamp") is None:
            raise MalformedEvent("timestamp: is required", Reason.TIMESTAMP_MISSING)
    if line.number is not None:
        line.fields["line"] = line.number
        kind = EventOfLine
    return event_of(line.fields, sent_ms=sent_ms, reading=reading, on_unread_price=on_unread_price, kind=kind)


def _ensure_several_found(line: MappedLine, value: Any, required: tuple[str, ...]) -> None:
    """Refuse a line in which several of the fields that are needed are not found: the record has another form.

    Raises
    ------
    MalformedEvent
        It names the form of a record that is one event, as far as that is known.
    """
    absent = [f"no {name}" for name in required if name not in line.fields]
    if len(absent) < 2 or line.fields.get("type") == EventType.FORGET:
        return
    form = envelopes.of_json(value) if line.number is None else ""
    said = f"the mapping finds {', '.join(absent[:-1])} and {absent[-1]}"
    raise MalformedEvent(f"{said}; {form}" if form else said, Reason.OTHER_FORM)
