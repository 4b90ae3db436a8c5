"""A shop's own records as events: which ones count, where their lines are, and where each field is found."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from hashlib import sha256
from typing import Any
from zoneinfo import ZoneInfo

from pydantic import ValidationError

from recsys.data.event import EventType
from recsys.data.expressions import Expression, is_false
from recsys.data.mapping_file import OF_LINES, OF_ORDERS, MappingFile
from recsys.errors import InputFileError, Reason

MOST_LINES = 5_000
"""Of one record: they are applied in one piece, which holds up Redis for so long."""
_NUMBER = re.compile(r"[+-]?[0-9]{1,20}(\.[0-9]{1,20})?")
_WHOLE = re.compile(r"-?[0-9]{1,19}")
_JOINT = ":"
_WORDS = {
    "extra_forbidden": "is no key of a mapping; they are described in docs/connect.md",
    "missing": "is required",
    "literal_error": "must be {expected}, not {input}",
    "model_type": "must be a table, as in [fields]",
    "dict_type": "must be a table, as in [types]",
    "string_type": "must be text in quotation marks",
    "too_short": "must name at least one expression",
}
_OTHERWISE = "cannot be {input}"
_LONGEST_INPUT = 40


@dataclass(frozen=True, slots=True)
class MappedLine:
    """What a mapping finds in one line of a record, or in a record that is one event.

    Attributes
    ----------
    number : int or None
        Of the line in its record, from 1 on, whichever order it is in; None for a record that is one event.
    fields : dict
        As the contract names them: docs/contract.md.
    """

    number: int | None
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A line that a rule of the mapping leaves out, and why."""

    number: int | None
    why: str


NO_USER = "it has no user"
NO_USER_OF_RETURN = "it is a return, and has no user"
OF_NOBODY = frozenset({NO_USER, NO_USER_OF_RETURN})
"""Why events of users who are none are left out."""
NO_LINES = "it has no lines"


class LineProblem(ValueError):
    """What is wrong with one line, or with the whole record if ``number`` is None."""

    def __init__(self, number: int | None, reason: str, code: Reason | None) -> None:
        super().__init__(reason if number is None else f"line {number}: {reason}")
        self.number = number
        self.code = code


class _FieldProblem(ValueError):
    """What is wrong with a field."""

    def __init__(self, reason: str, code: Reason) -> None:
        super().__init__(reason)
        self.code = code


class EventMapping:
    """Finds the fields of events in records.

    Parameters
    ----------
    file : MappingFile
    zone : tzinfo or None
        Of times that carry none; None refuses them.
    """

    def __init__(self, file: MappingFile, zone: tzinfo | None) -> None:
        self.file = file
        self._zone = zone
        expressions = file.fields.all()
        roots = {name: frozenset[str]().union(*(part.roots for part in parts)) for name, parts in expressions.items()}
        lines = {name for name in expressions if roots[name] & OF_LINES}
        orders = {name for name in expressions if roots[name] & OF_ORDERS} - lines
        self._of_record = {name: parts for name, parts in expressions.items() if name not in lines | orders}
        self._of_orders = {name: parts for name, parts in expressions.items() if name in orders}
        self._of_lines = {name: parts for name, parts in expressions.items() if name in lines}
        every = [part for parts in expressions.values() for part in parts]
        every += [one for one in (file.where, file.orders, file.lines) if one is not None]
        self.roots = frozenset[str]().union(*(one.roots for one in every))
        """What of a record is looked at."""
        self.needs = frozenset[str]().union(*(one.needs for one in every))
        """What of a record must be there for all expressions to find something."""
        self.names = frozenset[str]().union(*(one.names for one in every))
        """All names that are looked up, wherever in a record."""
        self.described = file.model_dump(exclude_defaults=True, exclude_none=True)
        """What the mapping does, whatever the order and the comments of its file; `of` makes it again."""

        self.lines_of = sha256(
            f"{file.orders and file.orders.text}\n{file.lines and file.lines.text}".encode()
        ).hexdigest()
        """The same for mappings that find the same lines in a record, and number them alike."""

    @classmethod
    def of(cls, described: Mapping[str, Any]) -> EventMapping:
        """Make a mapping again from what it does."""
        file = MappingFile.model_validate(described)
        return cls(file, _zone(file.timezone, ""))

    @classmethod
    def parse(cls, text: str, *, name: str) -> EventMapping:
        """Read a mapping from TOML.

        Raises
        ------
        InputFileError
            When it is none; the error names the key.
        """
        try:
            file = MappingFile.model_validate(tomllib.loads(text))
        except tomllib.TOMLDecodeError as error:
            raise InputFileError(f"{name}: is no TOML: {error}") from None
        except RecursionError:
            raise InputFileError(f"{name}: is no TOML: it is nested too deeply") from None
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            said = _said(dict(problem))
            where = ".".join(str(part) for part in problem["loc"] if not isinstance(part, int))
            raise InputFileError(f"{name}: {where}: {said}" if where else f"{name}: {said}") from None
        return cls(file, _zone(file.timezone, name))

    def counts(self, scope: dict[str, Any]) -> bool:
        """Whether a record counts: whether ``where`` finds something that is true.

        Raises
        ------
        LineProblem
            When that cannot be said.
        """
        return self.file.where is None or not is_false(_found("where", self.file.where, scope, None))

    def lines(self, scope: dict[str, Any]) -> Iterator[MappedLine | LeftOut | LineProblem]:
        """Yield what is in each line of a record, why it is left out, or what is wrong with it.

        Parameters
        ----------
        scope : dict
            ``value``, ``key``, ``headers``, ``timestamp`` (epoch milliseconds) and ``topic`` of the record, and the
            attributes of its ``cloudevent`` if it is in such an envelope.

        Raises
        ------
        LineProblem
            When something is wrong with the whole record.
        """
        common = self._shared_fields(self._of_record, scope)
        if self.file.lines is None:
            yield self._line(None, common)
            return
        orders = [(in_order, self._list("lines", self.file.lines, in_order)) for in_order in self._in_orders(scope)]
        count = sum(len(lines) for _, lines in orders)
        if not count:
            yield LeftOut(None, NO_LINES)
            return
        if count > MOST_LINES:
            raise LineProblem(
                None, f"lines: the record has {count:,} lines; the limit is {MOST_LINES:,}", Reason.TOO_LARGE
            )
        before = 0
        for in_order, lines in orders:
            yield from self._lines_of_order(in_order, lines, common, before)
            before += len(lines)

    def _in_orders(self, scope: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield what expressions find in each order of a record; most records are one."""
        if self.file.orders is None:
            yield scope
            return
        for order in self._list("orders", self.file.orders, scope):
            yield {**scope, "order": order}

    def _lines_of_order(
        self, in_order: dict[str, Any], lines: list[Any], common: dict[str, Any], before: int
    ) -> Iterator[MappedLine | LeftOut | LineProblem]:
        """Yield what is in each line of an order; ``before`` is how many lines of the record come before it."""
        if self._of_orders:
            common = common | self._shared_fields(self._of_orders, in_order)
        of_lines = {name: [_once(name, part, in_order) for part in parts] for name, parts in self._of_lines.items()}
        in_line = dict(in_order)
        for number, line in enumerate(lines, start=1):
            in_line["line"], in_line["number"] = line, number
            try:
                fields = common | self._fields(of_lines, in_line, before + number)
            except LineProblem as problem:
                yield problem
                continue
            yield self._line(before + number, fields)

    def _list(self, name: str, expression: Expression, scope: dict[str, Any]) -> list[Any]:
        found = _found(name, expression, scope, None)
        if found is None:
            return []
        if not isinstance(found, list):
            raise LineProblem(None, f"{name}: {expression.text} must be a list, not {_kind(found)}", Reason.MAPPING)
        return found

    def _shared_fields(self, expressions: Mapping[str, list[Expression]], scope: dict[str, Any]) -> dict[str, Any]:
        """Return the fields that all lines of a record, or of an order, have in common."""
        fields = self._fields(expressions, scope, None)
        if isinstance(moment := fields.get("timestamp"), str):
            try:
                fields["timestamp"] = self._moment(moment)  # once for all lines
            except _FieldProblem as problem:
                raise LineProblem(None, str(problem), problem.code) from None
        return fields

    def _fields(
        self, expressions: Mapping[str, list[Expression]], scope: dict[str, Any], number: int | None
    ) -> dict[str, Any]:
        fields = {}
        for name, parts in expressions.items():
            if len(parts) == 1:
                value = _found(name, parts[0], scope, number)
            else:
                value = _joined(name, parts, scope, number)
            if value is not None:
                fields[name] = value
        return fields

    def _line(self, number: int | None, fields: dict[str, Any]) -> MappedLine | LeftOut | LineProblem:
        """Bring a line into the contract's forms, and say whether it counts."""
        try:
            if why := self._why_left_out(fields):
                return LeftOut(number, why)
            if "price" in fields:
                fields["price"] = _number(fields["price"])
            if "timestamp" in self._of_lines and isinstance(moment := fields.get("timestamp"), str):
                fields["timestamp"] = self._moment(moment)
        except _FieldProblem as problem:
            return LineProblem(number, str(problem), problem.code)
        return MappedLine(number, fields)

    def _why_left_out(self, fields: dict[str, Any]) -> str:
        """Carry out the rules about types, users and quantities; empty if the line counts."""
        file = self.file
        word = fields.get("type")
        if word is not None and file.types:
            if (meaning := file.types.get(word) if isinstance(word, str) else None) is None:
                words = ", ".join(file.types)
                raise _FieldProblem(f"type: {word!r} is none of {words}; name it under [types]", Reason.TYPE)
            if meaning == "skip":
                return f"its type is {word}"
            fields["type"] = meaning
        if file.missing_user == "skip" and fields.get("user_id") in (None, ""):
            return NO_USER_OF_RETURN if self._is_return(fields) else NO_USER
        if file.missing_item == "skip" and fields.get("item_id") in (None, "") and fields.get("type") != "forget":
            return "it has no item"
        if "quantity" in fields:
            quantity = fields["quantity"] = _number(fields["quantity"])
            if quantity == 0 and file.zero_quantity == "skip":
                return "its quantity is 0"
            if type(quantity) in (int, float) and quantity < 0 and file.negative_quantity == "return":
                fields["type"], fields["quantity"] = "return", -quantity
        return ""

    def _is_return(self, fields: Mapping[str, Any]) -> bool:
        quantity = _number(fields.get("quantity"))
        is_negative = type(quantity) in (int, float) and quantity < 0
        return fields.get("type") == EventType.RETURN or (is_negative and self.file.negative_quantity == "return")

    def _moment(self, text: str) -> str | int:
        """Return a time as text with a zone, or a number since 1970."""
        text = text.strip()
        if _WHOLE.fullmatch(text):
            return int(text)
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            return text  # the contract says what is wrong with it
        if moment.tzinfo is None:
            if self._zone is None:
                raise _FieldProblem(
                    f'timestamp: {text} has no zone: set timezone in the mapping, as in timezone = "UTC"',
                    Reason.TIMESTAMP,
                )
            moment = moment.replace(tzinfo=self._zone)
        return moment.isoformat()


def _said(problem: Mapping[str, Any]) -> str:
    """Return what is wrong with a value of a mapping file, in our own words."""
    if problem["type"] == "value_error":
        return str(problem["msg"]).removeprefix("Value error, ")
    shown = str(problem["input"])[:_LONGEST_INPUT]
    return _WORDS.get(problem["type"], _OTHERWISE).format(**{"input": repr(shown), **problem.get("ctx", {})})


def _once(name: str, part: Expression, scope: dict[str, Any]) -> Expression:
    """Return what is the same for all lines as a constant."""
    if part.roots & OF_LINES:
        return part
    value = _found(name, part, scope, None)
    return Expression(part.text, lambda _: value, part.roots)


def _found(name: str, expression: Expression, scope: dict[str, Any], number: int | None) -> Any:
    try:
        return expression.evaluate(scope)
    except ValueError as error:
        raise LineProblem(number, f"{name}: {error}", Reason.MAPPING) from None


def _joined(name: str, parts: list[Expression], scope: dict[str, Any], number: int | None) -> str | None:
    """Join the parts of an id; None when one of them is not there.

    Colons within a part, but for the last one, are written as in a URL: so no two lists of parts are joined alike.
    """
    words = []
    for part in parts:
        value = _found(name, part, scope, number)
        if value is None or value == "":
            return None
        if not isinstance(value, str | int) or isinstance(value, bool):
            reason = f"{name}: {part.text} must be a string or an integer, not {_kind(value)}"
            raise LineProblem(number, reason, Reason(name))
        words.append(str(value))
    before = [word.replace("%", "%25").replace(_JOINT, "%3A") for word in words[:-1]]
    return _JOINT.join([*before, words[-1]])


def _number(value: Any) -> Any:
    """Return a number that is written as text as a number; anything else is left to the contract."""
    if isinstance(value, str) and _NUMBER.fullmatch(text := value.strip()):
        return float(text) if "." in text else int(text)
    return value


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}
    return names.get(type(value), "null")


def _zone(name: str, of: str) -> tzinfo | None:
    if not name:
        return None
    if name.upper() == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        raise InputFileError(f"{of}: timezone: {name!r} is no time zone; an example is Europe/London") from None
