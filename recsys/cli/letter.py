"""How one dead letter is shown."""

from __future__ import annotations

from typing import Any

from recsys.cli.output import new_table, results
from recsys.cli.record_text import record_text
from recsys.data.epoch import iso_time
from recsys.data.expressions import EVERY_NAME
from recsys.errors import CannotRedrive
from recsys.kafka.letters import FoundLetter, headers_of
from recsys.operations.redrive import LetterReader
from recsys.storage.handled_letters import Mark

_MOST_SHOWN = 2_000
_LONGEST_TEXT = 200
_HEX_SHOWN = 64


def described(letter: FoundLetter, reader: LetterReader, mark: Mark | None) -> dict[str, Any]:
    """Return all that is known of a letter."""
    record = letter.record
    told: dict[str, Any] = {
        "record": letter.place or None,
        "topic": record.topic(),
        "topic_id": letter.topic_id or None,
        "letter": f"{letter.partition}:{letter.offset}",
        "sent": iso_time(letter.sent_ms),
        "reason": letter.code,
        "what": letter.reason,
        "lines": list(letter.lines),
        "left_out": letter.left_out or None,
        "done": mark.how.value if mark else None,
        "key": _shown(record.key()),
        "headers": [[name, _shown(held)] for name, held in headers_of(record)],
        "value": _shown(record.value()),
        "events_now": [],
        "malformed_now": None,
    }
    try:
        told["events_now"] = [
            event.model_dump(mode="json", exclude_none=True) | {"timestamp": iso_time(event.timestamp)}
            for event in reader.events(letter)
        ]
    except CannotRedrive as error:
        told["malformed_now"] = str(error)
    return told


def _shown(value: str | bytes | None) -> str | None:
    """Return bytes as text, or in hexadecimal digits where they are none."""
    if value is None or isinstance(value, str):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        more = f" … and {len(value) - _HEX_SHOWN:,} bytes more" if len(value) > _HEX_SHOWN else ""
        return f"0x{value[:_HEX_SHOWN].hex()}{more}"


def print_letter(one: dict[str, Any]) -> None:
    """Print what is known of a letter, as `described` returns it."""
    where = f"{one['topic']} {one['record']}" if one["record"] else f"record of unknown place (letter {one['letter']})"
    done = f", {one['done']}" if one["done"] else ""
    results.print(f"{where}, dead letter since {one['sent']}{done}", style="bold")
    table = new_table(show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("code", one["reason"])
    if one["what"]:
        table.add_row("reason", one["what"])
    if one["lines"]:
        table.add_row("lines", f"{', '.join(map(str, one['lines']))}; the others count")
    if one["left_out"]:
        table.add_row("left out", one["left_out"])
    table.add_row("key", _beginning(one["key"]))
    for name, value in one["headers"]:
        table.add_row("header", f"{_beginning(name)}: {_beginning(value)}")
    value = one["value"]
    table.add_row("value", record_text(None if value is None else value.encode(), frozenset({EVERY_NAME}), _MOST_SHOWN))
    for event in one["events_now"]:
        table.add_row("now", ", ".join(f"{name} {held}" for name, held in event.items()))
    if one["malformed_now"]:
        same = one["malformed_now"] == one["what"]
        table.add_row("now", "cannot be redriven: " + ("for the same reason" if same else one["malformed_now"]))
    elif not one["events_now"]:
        table.add_row("now", "no event that counts")
    results.print(table)
    results.print()


def _beginning(text: str | None) -> str:
    """Return as much of a text as one reads; of none, that there is none."""
    if text is None:
        return "(none)"
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}… ({len(text):,} characters)"
