"""Rows of JSON Lines: each line is an object, and its keys are the columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TextIO

import orjson

from recsys.errors import InputFileError
from recsys.files.csv_rows import LONGEST_LINE
from recsys.files.row import Row, Unreadable, Wanted
from recsys.files.values import parsed_json

_MOST_NAMES = 1_000
_LONGEST_OBJECT = 1 << 26
"""Characters; no setting lets a record be longer."""
_KEPT_OF_LONGER = 1_000
_TELL_EVERY = 50_000


def key_names(file: TextIO, advance: Callable[[int], None]) -> list[str]:
    """Return the keys of all objects, in the order in which they first appear; ``advance`` is told of lines.

    Raises
    ------
    InputFileError
        When there are more than can be columns.
    """
    names: dict[str, None] = {}
    for number, line in _lines(file):
        if number % _TELL_EVERY == 0:
            advance(_TELL_EVERY)
        found = _object(line)
        if isinstance(found, dict):
            names.update(dict.fromkeys(found))
            if len(names) > _MOST_NAMES:
                raise InputFileError(f"line {number:,}: the objects have more than {_MOST_NAMES:,} keys")
    return list(names)


def json_rows(file: TextIO, wanted: Wanted) -> Iterator[Row]:
    """Yield a row for each line; a key that an object lacks has no value there. Empty lines are passed over.

    Raises
    ------
    InputFileError
        When a line has more than a million characters.
    """
    row = wanted.before
    names = [name if place in wanted.places else None for place, name in enumerate(wanted.names)]
    for number, line in _lines(file):
        row += 1
        place = f"{wanted.file}line {number}"
        found = _object(line)
        if isinstance(found, dict):
            values = [None if name is None else _value(found.get(name)) for name in names]
            yield Row(row, place, values, others=partial(_values, found, wanted.names))
        else:
            yield Row(row, place, [line.strip()], found)


def json_objects(file: TextIO, before: int, in_file: str) -> Iterator[Row]:
    """Yield a row for each line, with the object in it for its one value. Empty lines are passed over.

    A line that is too long for a record is a broken row, of which the beginning is kept.

    Parameters
    ----------
    file : text file
    before : int
        Rows that stand in earlier files.
    in_file : str
        The file's name and a space, if there are several.
    """
    row, number = before, 0
    while line := file.readline(_LONGEST_OBJECT):
        number += 1
        if line.isspace():
            continue
        row += 1
        place = f"{in_file}line {number}"
        if len(line) == _LONGEST_OBJECT and not line.endswith("\n"):
            while (more := file.readline(_LONGEST_OBJECT)) and not more.endswith("\n"):
                pass
            yield Row(row, place, [line[:_KEPT_OF_LONGER]], f"is longer than {_LONGEST_OBJECT:,} characters")
            continue
        found = _object(line)
        if isinstance(found, dict):
            yield Row(row, place, [found])
        else:
            yield Row(row, place, [line.strip()], found)


def _lines(file: TextIO) -> Iterator[tuple[int, str]]:
    """Yield the lines that are not empty, with their numbers from 1."""
    number = 0
    while line := file.readline(LONGEST_LINE):
        number += 1
        if len(line) == LONGEST_LINE:
            raise InputFileError(f"line {number:,} is longer than {LONGEST_LINE:,} characters")
        if not line.isspace():
            yield number, line


def _object(line: str) -> dict[str, Any] | str:
    """Return the object in a line, or why there is none."""
    try:
        found = parsed_json(line.rstrip("\r\n"))
    except orjson.JSONDecodeError as error:
        return f"is not JSON: {error.msg}, at character {error.colno}"
    except ValueError as error:
        return str(error)
    return found if isinstance(found, dict) else "is JSON, but no object"


def _values(found: Mapping[str, Any], names: Sequence[str]) -> list[Any]:
    return [_value(found.get(name)) for name in names]


def _value(value: Any) -> Any:
    """Return a value as it is, but what holds others as text that is neither an id nor a number."""
    return Unreadable(orjson.dumps(value).decode()) if isinstance(value, dict | list) else value
