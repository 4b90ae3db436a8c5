"""Purchases in files, under whatever column names they have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from recsys.data.epoch import OLDEST_MS, EpochUnit, iso_time
from recsys.data.event import EventReading, EventType, event_from_fields
from recsys.data.reserved import is_reserved
from recsys.errors import ColumnMissing, InputFileError, MalformedEvent
from recsys.files.batches import NO_CUSTOMER, NO_CUSTOMER_OF_RETURN, ReadRow, Reject
from recsys.files.columns import DEFAULTS, REQUIRED, Columns
from recsys.files.event_file import CheckUser, EventFile, any_user, in_json
from recsys.files.frequent_ids import LARGE_SHARE_OF_A_USER, FrequentIds
from recsys.files.inputs import Inputs
from recsys.files.numbers import THOUSANDS, NumberColumn, NumberFormat
from recsys.files.remedies import Remedies, of_columns
from recsys.files.row import Row
from recsys.files.tables import CsvForm, Table
from recsys.files.times import TimeColumn, TimeReading, check_format, newest_of, time_zone
from recsys.files.values import NO_USER, IdColumn, id_text, integer_of, is_absent, is_kept_by_text, number_of, one_of
from recsys.runtime.progress import Stage, no_stage

_TELL_EVERY = 50_000
"""Rows."""
_NOBODY = ((None, NO_CUSTOMER),)
_RETURN_OF_NOBODY = ((None, NO_CUSTOMER_OF_RETURN),)


@dataclass(frozen=True)
class _Reading:
    """How this file's columns are read, as its options and all its rows say."""

    rows: int
    times: TimeReading
    quantities: NumberFormat
    prices: NumberFormat | None
    integer_ids: frozenset[str]
    remarks: tuple[str, ...]
    frequent_users: tuple[str, ...]


class PurchaseFile(EventFile):
    """Purchases in one file or several, a row each, with a column for each field.

    All of it is read once before the first event, so that what its columns mean is known.

    Parameters
    ----------
    source : Path or Inputs
        A path stands for what is there.
    columns : Columns
    events : EventReading
        As the settings say; of its own, a file has a unit and ids that are no users.
    now : datetime
        No purchase is later than a day after this.
    stage : callable
        Opened for what may take long.

    Raises
    ------
    InputFileError
        When the file or a column that is needed is not there, or an option makes no sense.
    """

    def __init__(
        self, source: Path | Inputs, columns: Columns, *, events: EventReading, now: datetime, stage: Stage = no_stage
    ) -> None:
        self._zone = time_zone(columns.timezone)
        check_format(columns.timestamp_format)
        one_of("--timestamp-unit", columns.timestamp_unit, ("", *EpochUnit))
        one_of("--decimal", columns.decimal, ("", ".", ","))
        one_of("--thousands", columns.thousands, THOUSANDS)
        if columns.decimal and columns.decimal == columns.thousands:
            raise InputFileError("--decimal and --thousands must be different")
        if columns.timestamp_unit and columns.timestamp_format:
            raise InputFileError("--timestamp-unit and --timestamp-format cannot be used together; give one of them")
        unit = EpochUnit(columns.timestamp_unit) if columns.timestamp_unit else events.unit
        usual = () if columns.every_user else NO_USER
        no_user = events.no_user | {*usual, *(word.lower() for word in columns.no_user)}
        self._events = replace(events, unit=unit, no_user=no_user)
        self._newest_ms = newest_of(now)
        self._columns = columns
        self._stage = stage
        self.table = Table(source, CsvForm(columns.encoding, columns.delimiter), stage)
        self._places = {field: self.table.names.index(column) for field, column in self._chosen().items()}

    @property
    def rows(self) -> int:
        """The number of rows, broken ones included."""
        return self._reading.rows

    @property
    def remarks(self) -> tuple[str, ...]:
        """What should be said about how the file is read, a line each."""
        return (*self.table.remarks, *self._reading.remarks)

    @property
    def frequent_users(self) -> tuple[str, ...]:
        """A line for each user with more than a twentieth of the rows."""
        return self._reading.frequent_users

    @property
    def remedies(self) -> Remedies:
        """Which options may help."""
        return of_columns(looks_for_quantity="quantity" in self._places)

    def options(self) -> dict[str, str]:
        """Return how the file is read, as far as that differs from the default, settings included."""
        chosen = {f.name: getattr(self._columns, f.name) for f in fields(Columns)} | {
            "events.oldest": iso_time(self._events.oldest_ms)[:10],
            "no_user": ", ".join(sorted(self._events.no_user - set(NO_USER))),
            "timestamp_unit": self._events.unit or "",
        }
        defaults = DEFAULTS | {"events.oldest": iso_time(OLDEST_MS)[:10], "no_user": ""}
        return {name: str(value) for name, value in chosen.items() if value != defaults[name]}

    @property
    def columns_used(self) -> frozenset[str]:
        """Those of the fields."""
        return frozenset(self.table.names[place] for place in self._places.values())

    def table_rows(self) -> Iterator[Row]:
        """Yield the rows, with the values of the columns that are needed."""
        self.table.ensure_no_copies(self.columns_used)
        return self.table.rows(set(self._places.values()), looks_like_row=self._has_a_time)

    def read(self, row: Row, first: int, check_user: CheckUser = any_user) -> ReadRow:
        """Say what a row comes to: one event, or none."""
        read = ReadRow(row)
        try:
            self._read_into(read, first, check_user)
        except MalformedEvent as error:
            is_broken = self._is_broken(row)
            read.reject = Reject(row.number, row.place, error.reason, row.all_values(), is_broken=is_broken)
        return read

    def shown(self, row: Row) -> bytes:
        """Return a row with all its columns as JSON."""
        return in_json(row, self.table.names, row.all_values())

    def _is_broken(self, row: Row) -> bool:
        """Whether a row's values, as text, could pass for what they are not."""
        ids = (self._places.get(name) for name in ("user_id", "item_id", "event_id"))
        return bool(row.problem) or not all(is_kept_by_text(row.values[place]) for place in ids if place is not None)

    def _chosen(self) -> dict[str, str]:
        names = self.table.names
        present = {field: column for field, column in self._columns.mapping().items() if column in names}
        for field_, column in self._columns.mapping().items():
            named = column != DEFAULTS[field_]
            if field_ not in present and (named or field_ in REQUIRED):
                hint = self.table.header_hint() or f"Name the right one with --{field_.replace('_', '-')}-column"
                raise ColumnMissing(
                    f"{self.label}: there is no column {column!r} for {field_}; the columns are "
                    f"{self.table.columns()}. {hint}"
                )
        if twice := sorted({column for column in present.values() if names.count(column) > 1}):
            raise InputFileError(f"{self.label}: column {twice[0]!r} appears more than once; keep one of them")
        return present

    @cached_property
    def _reading(self) -> _Reading:
        """Look at every row and decide what the columns mean."""
        rows_of_table = self.table_rows()
        times = self._first_times
        time_column = TimeColumn(self._events.oldest_ms, self._newest_ms)
        numbers: dict[str, NumberColumn] = {n: NumberColumn() for n in ("quantity", "price") if n in self._places}
        ids: dict[str, IdColumn] = {n: IdColumn() for n in ("user_id", "item_id", "event_id") if n in self._places}
        users = FrequentIds(LARGE_SHARE_OF_A_USER)
        rows = 0
        with self._stage(f"look through {self.name}", unit="rows", share=self.table.share) as advance:
            for row in rows_of_table:
                rows = row.number
                if rows % _TELL_EVERY == 0:
                    advance(_TELL_EVERY)
                if row.problem:
                    continue
                values = row.values
                for name, number_column in numbers.items():
                    if isinstance(text := values[self._places[name]], str):
                        number_column.note(text)
                user = values[self._places["user_id"]]
                is_customer = not self._is_no_customer(user)
                for name, id_column in ids.items():
                    value = values[self._places[name]]
                    if is_customer if name == "user_id" else not is_absent(value):
                        id_column.note(value)
                if is_customer:
                    users.note(str(user))
                number = times.number(values[self._places["timestamp"]])
                if number is not None and times.unit is None and not self._is_forget(values):
                    time_column.note(int(number))
        asked = self._columns.integer_ids
        remarks = [column.remark(self._columns.mapping()[name], asked) for name, column in ids.items()]
        try:
            if times.unit is None and (unit := time_column.decide(self._columns.timestamp)) is not None:
                times = replace(times, unit=unit)
                remarks.append(f"column {self._columns.timestamp!r}: numbers are read as {unit.word} since 1970")
            quantities = self._number_format(numbers, "quantity", remarks)
        except InputFileError as error:
            raise InputFileError(f"{self.label}: {error}") from None
        try:
            prices: NumberFormat | None = self._number_format(numbers, "price", remarks)
        except InputFileError as error:
            prices = None
            remarks.append(f"{error}. Until then no price is read; no model uses prices")
        frequent = [self.remedies.about_user(user, share, f"{rows:,} rows") for user, share in users.shares(rows)]
        integer_ids = frozenset(name for name, column in ids.items() if column.are_integers(asked))
        return _Reading(rows, times, quantities, prices, integer_ids, tuple(filter(None, remarks)), tuple(frequent))

    @cached_property
    def _first_times(self) -> TimeReading:
        """How times are read as far as that is known before the rows are."""
        return TimeReading(
            zone=self._zone,
            form=self._columns.timestamp_format,
            unit=self._events.unit,
            oldest_ms=self._events.oldest_ms,
            newest_ms=self._newest_ms,
            unit_is_named=self._events.unit is not None,
        )

    def _number_format(self, columns: Mapping[str, NumberColumn], name: str, remarks: list[str]) -> NumberFormat:
        decimal, thousands = self._columns.decimal, self._columns.thousands
        column = self._columns.mapping()[name]
        if name not in columns:
            return NumberFormat()
        found = columns[name].decide(column, decimal=decimal, thousands=thousands)
        if found.decimal == "," and not decimal:
            remarks.append(f"column {column!r}: numbers are read with a decimal comma")
        return found

    def _has_a_time(self, values: Sequence[Any]) -> bool:
        """Whether a line inside of quotes is a row itself: it has all columns, and a time where the time belongs."""
        value = values[self._places["timestamp"]]
        with suppress(MalformedEvent, OverflowError):
            number = self._first_times.number(value)
            return number is not None or bool(self._first_times.moment(value))
        return False

    def _is_nobody(self, user: Any) -> bool:
        return user is None or user == "" if self._columns.every_user else is_absent(user)

    def _is_no_customer(self, user: Any) -> bool:
        """Whether a user's rows are skipped; 9999.0 is none if 9999 is none, whatever the other ids look like."""
        is_none = self._events.is_no_user
        if self._is_nobody(user) or is_reserved(str(user)):
            return True
        return is_none(str(user)) or (bool(number := integer_of(user)) and is_none(number))

    def _is_forget(self, values: Sequence[Any]) -> bool:
        return "type" in self._places and values[self._places["type"]] == EventType.FORGET

    def _is_return(self, values: Mapping[str, Any]) -> bool:
        if values.get("type") == EventType.RETURN:
            return True
        with suppress(MalformedEvent):
            quantity = self._quantity(values.get("quantity"), self._reading.quantities)
            return self._columns.negative_returns and quantity is not None and quantity < 0
        return False

    def _read_into(self, read: ReadRow, first: int, check_user: CheckUser) -> None:
        row, reading = read.row, self._reading
        if row.problem:
            raise MalformedEvent(row.problem)
        values = {name: row.values[place] for name, place in self._places.items()}
        user = values["user_id"]
        is_forget = values.get("type") == EventType.FORGET
        if self._is_nobody(user) or (not is_forget and self._is_no_customer(user)):
            read.left_out = _RETURN_OF_NOBODY if self._is_return(values) else _NOBODY
            return
        for name in ("item_id", "event_id", "type"):
            if is_absent(values.get(name)):
                values[name] = None
        for name in ("user_id", "item_id", "event_id"):
            values[name] = id_text(name, values[name], integers=name in reading.integer_ids)
        values["timestamp"], has_time_of_day = self._time(values["timestamp"], reading.times, is_forget=is_forget)
        values["quantity"] = self._quantity(values.get("quantity"), reading.quantities)
        price_was_read, values["price"] = self._price(values.get("price"), reading.prices)
        if (
            self._columns.negative_returns
            and not is_forget
            and (quantity := values["quantity"]) is not None
            and quantity < 0
        ):
            values["quantity"], values["type"] = -quantity, "return"
        event = event_from_fields(values)
        check_user(event.user_id)
        read.unread_prices = int(not price_was_read)
        read.with_time_of_day = int(has_time_of_day)
        read.events.append((first, event))

    def _time(self, value: Any, times: TimeReading, *, is_forget: bool) -> tuple[int, bool]:
        """Return a time, and whether it is not midnight."""
        if is_absent(value):
            raise MalformedEvent("timestamp: is required")
        try:
            moment_ms, has_time_of_day = times.epoch_ms(value)
        except (OverflowError, OSError, ValueError):
            raise MalformedEvent(f"timestamp: {str(value)[:40]!r} is not a time from 1970 to 9999") from None
        except MalformedEvent:
            if is_forget and times.number(value) is not None:
                return self._newest_ms, True  # no wish to be erased is lost over its time
            raise
        if moment_ms <= self._newest_ms:
            return moment_ms, has_time_of_day
        if is_forget:
            return self._newest_ms, True
        raise MalformedEvent(
            f"timestamp: {str(value)[:40]!r} is in the future: later than {iso_time(self._newest_ms)}, a day after now"
        )

    @staticmethod
    def _quantity(value: Any, form: NumberFormat) -> float | None:
        if is_absent(value):
            return None
        if not isinstance(value, str):
            return number_of("quantity", value)
        try:
            return form.read(value)
        except ValueError as error:
            raise MalformedEvent(f"quantity: {error}") from None

    @staticmethod
    def _price(value: Any, form: NumberFormat | None) -> tuple[bool, float | None]:
        """Return whether there is no price, or one that can be read; and that price."""
        if is_absent(value):
            return True, None
        if form is None and isinstance(value, str):
            return False, None
        with suppress(ValueError, MalformedEvent):
            price = form.read(value) if form is not None and isinstance(value, str) else number_of("price", value)
            if price >= 0:
                return True, price
        return False, None
