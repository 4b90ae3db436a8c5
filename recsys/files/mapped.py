"""Files in a shop's own form, such as orders with their lines inside, read by the mapping that reads its topic."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, time
from functools import cached_property
from pathlib import Path
from typing import Any

import orjson

from recsys.data import cloud_events
from recsys.data.epoch import DAY_MS, OLDEST_MS, iso_time
from recsys.data.event import EventOfLine, EventReading
from recsys.data.expressions import EVERY_NAME
from recsys.data.mapped_events import MappedRecord, mapped_record, reading_with
from recsys.data.mapping import EventMapping, LineProblem
from recsys.errors import InputFileError, MalformedEvent
from recsys.files.batches import ReadRow, Reject
from recsys.files.contents import Kind
from recsys.files.event_file import CheckUser, EventFile, any_user, in_json
from recsys.files.inputs import Inputs
from recsys.files.marks import MARK, WHY, not_mended
from recsys.files.rejects import JsonRejectsFile, RejectsFile
from recsys.files.remedies import Remedies, of_mapping
from recsys.files.row import Row
from recsys.files.tables import CsvForm, Table
from recsys.files.times import time_zone
from recsys.files.values import json_of_text
from recsys.runtime.progress import Stage, no_stage

_TELL_EVERY = 50_000
"""Rows."""
_MIDNIGHT = time()
_OF_RECORDS = frozenset({"key", "headers", "timestamp", "topic"})


class MappedFile(EventFile):
    """One file or several, each row of which is what a record of the topic is: an event, or an order with lines.

    A row is the `value` of the mapping: an object of JSON Lines, or an object with the columns of CSV or Parquet, in
    which text that is a list or an object in JSON is that. There is no key, no header, no timestamp of a record.

    Parameters
    ----------
    source : Path or Inputs
        A path stands for what is there.
    mapping : EventMapping
    form : CsvForm
    events : EventReading
        As the settings say.
    now : datetime
        No event is later than a day after this.
    is_wrapped : bool
        Whether rows are CloudEvents, and the mapping looks at their data.
    stage : callable
        Opened for what may take long.

    Raises
    ------
    InputFileError
        When the file is not there, is no table, or names a column twice; or when the mapping finds no times.
    """

    def __init__(
        self,
        source: Path | Inputs,
        mapping: EventMapping,
        *,
        form: CsvForm,
        events: EventReading,
        now: datetime,
        is_wrapped: bool = False,
        stage: Stage = no_stage,
    ) -> None:
        if mapping.file.fields.timestamp is None:
            raise InputFileError("the mapping names no timestamp, and what is in files has no other time: add it")
        self._mapping = mapping
        self._form = form
        self._events = events
        self._reading = replace(reading_with(mapping, events), compared_with="now")
        self._zone = time_zone(mapping.file.timezone or "UTC")
        self._now_ms = round(now.timestamp() * 1000)
        self._is_wrapped = is_wrapped
        self._stage = stage
        self.table = Table(source, form, stage)
        self._counts_good_lines = mapping.file.lines_that_are_good == "count"
        if self.table.kind is not Kind.JSON_LINES:
            names = self.table.names
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise InputFileError(f"{self.label}: column {twice[0]!r} appears more than once; keep one of them")

    @cached_property
    def rows(self) -> int:
        """The number of rows, broken ones included."""
        number = 0
        rows = self.table_rows()
        with self._stage(f"look through {self.name}", unit="rows", share=self.table.share) as advance:
            for row in rows:
                number = row.number
                if number % _TELL_EVERY == 0:
                    advance(_TELL_EVERY)
        return number

    @property
    def remarks(self) -> Sequence[str]:
        """What was passed over, and what the mapping looks for and no file has."""
        absent = sorted(self._mapping.needs & (_OF_RECORDS if self._is_wrapped else {*_OF_RECORDS, "cloudevent"}))
        about = [f"the mapping looks at {', '.join(absent)}; in files there is no such thing"] if absent else []
        return [*self.table.remarks, *about]

    @property
    def remedies(self) -> Remedies:
        """What of the mapping may help."""
        return of_mapping(self._mapping.described, in_files=True)

    def options(self) -> dict[str, str]:
        """Return how the file is read, as far as that differs from the default, settings included."""
        described = orjson.dumps(self._mapping.described, option=orjson.OPT_SORT_KEYS)
        chosen = {
            "mapping": hashlib.sha256(described).hexdigest()[:16],
            "envelope": "cloudevents" if self._is_wrapped else "",
            "encoding": self._form.encoding,
            "delimiter": self._form.delimiter,
            "events.oldest": iso_time(self._events.oldest_ms)[:10],
            "no_user": ", ".join(sorted(self._events.no_user)),
            "timestamp_unit": self._events.unit or "",
        }
        usual = CsvForm()
        defaults = {
            "encoding": usual.encoding,
            "delimiter": usual.delimiter,
            "events.oldest": iso_time(OLDEST_MS)[:10],
        }
        return {name: str(value) for name, value in chosen.items() if value != defaults.get(name, "")}

    @property
    def writes_rejects_as(self) -> type[RejectsFile]:
        """CSV for CSV files, JSON Lines for the others: in these, lists and objects stay what they are."""
        return RejectsFile if self.table.kind is Kind.CSV else JsonRejectsFile

    @property
    def columns_used(self) -> frozenset[str]:
        """Those that the mapping names, wherever in it; all, if it goes through what there is."""
        names = self._mapping.names
        return frozenset(self.table.names) if EVERY_NAME in names else names

    @property
    def names_used(self) -> frozenset[str]:
        """Those that the mapping names, and that of the data in an envelope."""
        return self._mapping.names | (cloud_events.NAMES_OF_DATA if self._is_wrapped else frozenset())

    def table_rows(self) -> Iterator[Row]:
        """Yield the rows, each with an object, or with the values of its columns if it is one of CSV."""
        self.table.ensure_no_copies(self.columns_used)
        return self.table.records(looks_like_row=self._holds_events)

    def read(self, row: Row, first: int, check_user: CheckUser = any_user) -> ReadRow:
        """Say what a row comes to: the events of its lines, those left out, and what is malformed."""
        unread_prices: list[None] = []
        try:
            found = _checked(self._found(row, lambda: unread_prices.append(None)), check_user)
        except MalformedEvent as error:
            return ReadRow(row, reject=self._reject(row, error.reason))
        read = ReadRow(
            row,
            left_out=[(one.number, one.why) for one in found.left_out],
            lines=max(1, found.lines),
            unread_prices=len(unread_prices),
        )
        if found.problems:
            read.reject = self._reject(row, found.malformed(self._mapping).reason)
            if not self._counts_good_lines:
                return read
        for event in found.events:
            at = first + event.line - 1 if isinstance(event, EventOfLine) else first
            read.events.append((at, event))
            read.with_time_of_day += self._has_time_of_day(event.timestamp)
        return read

    def shown(self, row: Row) -> bytes:
        """Return the object that the mapping looks at, as JSON."""
        if row.problem:
            return in_json(row, (), row.values)
        return orjson.dumps(self._object(row))

    def _has_time_of_day(self, moment_ms: int) -> bool:
        return moment_ms % DAY_MS != 0 and datetime.fromtimestamp(moment_ms // 1000, self._zone).time() != _MIDNIGHT

    def _found(self, row: Row, on_unread_price: Callable[[], None] = lambda: None) -> MappedRecord:
        """Return what the mapping finds in a row.

        Raises
        ------
        MalformedEvent
            When the row cannot be read.
        """
        if row.problem:
            raise MalformedEvent(row.problem)
        value = self._object(row)
        if MARK in value:
            raise MalformedEvent(not_mended(str(value.get(WHY, ""))))
        attributes = None
        if self._is_wrapped:
            try:
                value, attributes = cloud_events.unwrap(value, {})
            except ValueError as error:
                raise MalformedEvent(str(error)) from None
        scope = {
            "value": value, "key": None, "headers": {}, "timestamp": None, "topic": None, "cloudevent": attributes,
        }  # fmt: skip
        return mapped_record(
            self._mapping, scope, reading=self._reading, on_unread_price=on_unread_price, read_ms=self._now_ms
        )

    def _object(self, row: Row) -> dict[str, Any]:
        if self.table.kind is Kind.CSV:
            return {name: json_of_text(text) for name, text in zip(self.table.names, row.values, strict=True)}
        found: dict[str, Any] = row.values[0]
        if self.table.kind is Kind.PARQUET:
            return {name: json_of_text(value) if isinstance(value, str) else value for name, value in found.items()}
        return found

    def _reject(self, row: Row, reason: str) -> Reject:
        reject = Reject(row.number, row.place, reason, row.values, is_broken=bool(row.problem))
        if self.table.kind is Kind.CSV:
            return reject
        if row.problem:
            (text,) = row.values
            found = {MARK: text.encode(errors="backslashreplace").decode()}
        else:
            found = self._object(row)  # JSON in text of Parquet as what it is: in JSON Lines it would stay text
        line = orjson.dumps(found | {WHY: reject.why}).decode()
        return replace(reject, values=[line], is_broken=False)

    def _holds_events(self, values: Sequence[str]) -> bool:
        """Whether a line inside of quotes is a row itself: the mapping finds events in it."""
        try:
            return bool(self._found(Row(0, "", values)).events)
        except MalformedEvent:
            return False


def _checked(found: MappedRecord, check_user: CheckUser) -> MappedRecord:
    """Return what a record holds, where events of users who cannot be are malformed."""
    events, problems = [], list(found.problems)
    for event in found.events:
        try:
            check_user(event.user_id)
        except MalformedEvent as error:
            problems.append(
                LineProblem(event.line if isinstance(event, EventOfLine) else None, error.reason, error.code)
            )
        else:
            events.append(event)
    return MappedRecord(events, found.left_out, problems, found.lines)
