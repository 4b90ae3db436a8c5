"""`recsys dead-letters`: malformed records, why they are, and what becomes of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Annotated, Any

import orjson
import typer

from recsys.cli.output import counted, errors, new_table, print_json, results, settings_for_command
from recsys.cli.record_text import record_text
from recsys.data.epoch import iso_time
from recsys.data.expressions import EVERY_NAME
from recsys.errors import InputFileError, MalformedEvent, Reason
from recsys.kafka.decoder import make_decoder
from recsys.kafka.letters import UNKNOWN, FoundLetter, headers_of
from recsys.operations.dead_letters import DeadLetterTopic, LetterFilter, count_letters, purge_letters
from recsys.operations.redrive import LetterReader, redrive_letters
from recsys.runtime.clock import now
from recsys.runtime.progress import ProgressReporter
from recsys.settings import Settings
from recsys.storage.data_dir import open_data_dir
from recsys.storage.handled_letters import Handled

dead_letters_app = typer.Typer(
    help="List malformed records, mend them, or be done with them.", add_completion=False, rich_markup_mode=None
)
_CODES = frozenset(Reason) | {UNKNOWN}
_AGO = re.compile(r"(\d{1,6})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_PLACE = re.compile(r"(\d{1,10}):(\d{1,19})")
_MOST_BYTES = 4_096
_HEX_SHOWN = 64

Reasons = Annotated[
    list[str] | None,
    typer.Option("--reason", metavar="CODE", help="Letters of this code, as list names it; may be repeated."),
]
Since = Annotated[
    str, typer.Option("--since", metavar="TIME", help="Sent at this time or later: 2026-11-28T09:30Z, or 2h ago: 2h.")
]
Until = Annotated[str, typer.Option("--until", metavar="TIME", help="Sent before this time.")]
Partitions = Annotated[
    list[int] | None,
    typer.Option("--partition", min=0, metavar="N", help="Of this partition of the topic; may be repeated."),
]
Handed = Annotated[bool, typer.Option("--all", help="Also those that were redriven or purged.")]
Mapping = Annotated[
    str,
    typer.Option("--mapping", metavar="M", help="Read the records with this mapping, a preset or a file, instead."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would happen, and change nothing.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@dead_letters_app.command("list")
def list_command(
    reason: Reasons = None,
    since: Since = "",
    until: Until = "",
    partition: Partitions = None,
    with_handled: Handed = False,
    as_json: Json = False,
) -> None:
    """Count the letters by reason; docs/contract.md says what each means."""
    meant = _filter(reason, since, until, partition)
    with _opened() as (_, topic):
        counts = count_letters(topic, meant, ProgressReporter(console=errors), with_handled=with_handled)
    if as_json:
        listed = {
            "topic": topic.name,
            "reasons": [
                {
                    "reason": code,
                    "letters": count.letters,
                    "first": iso_time(count.first_ms),
                    "last": iso_time(count.last_ms),
                    "newest": {"record": count.newest.place, "reason": count.newest.reason},
                }
                for code, count in counts.by_code.items()
            ],
            **{how.value: number for how, number in counts.handled.items()},
        }
        print_json(orjson.dumps(listed, option=orjson.OPT_INDENT_2).decode())
        return
    if counts.by_code:
        table = new_table(f"Dead letters in {topic.name}")
        table.add_column("reason", no_wrap=True)
        table.add_column("letters", justify="right")
        table.add_column("first")
        table.add_column("last")
        table.add_column("newest record", no_wrap=True)
        table.add_column("what is wrong with it", overflow="fold")
        for code, count in counts.by_code.items():
            times = (_to_second(count.first_ms), _to_second(count.last_ms))
            table.add_row(code, f"{count.letters:,}", *times, count.newest.place, count.newest.reason)
        results.print(table)
    total = sum(count.letters for count in counts.by_code.values())
    done = ", ".join(f"{number:,} {how.value}" for how, number in counts.handled.items() if number)
    among = "of these" if with_handled else "beside these"
    results.print(f"{counted(total, 'letter')} in {topic.name}" + (f"; {among} {done}" if done else ""))
    if counts.by_code:
        results.print("recsys dead-letters show --reason CODE shows some, redrive --dry-run says what would count now")


@dead_letters_app.command("show")
def show_command(
    place: Annotated[
        str, typer.Argument(metavar="[RECORD]", help="Partition and offset of a record, as 3:17; default: any.")
    ] = "",
    reason: Reasons = None,
    since: Since = "",
    until: Until = "",
    partition: Partitions = None,
    n: Annotated[int, typer.Option("-n", min=1, max=1000, metavar="N", help="Letters to show.")] = 3,
    with_handled: Handed = False,
    mapping: Mapping = "",
    as_json: Json = False,
) -> None:
    """Show letters whole: the record, why it is malformed, and what it would be now."""
    meant = _filter(reason, since, until, partition, place)
    with _opened(mapping) as (settings, topic), LetterReader(settings.kafka, make_decoder(settings)) as reader:
        found = (
            letter
            for letter in topic.letters(ProgressReporter(console=errors), since_ms=meant.since_ms)
            if meant.takes(letter) and (with_handled or bool(place) or topic.how(letter) is None)
        )
        shown = [_described(letter, reader, topic.how(letter)) for letter in islice(found, n)]
    if as_json:
        print_json(orjson.dumps(shown, option=orjson.OPT_INDENT_2).decode())
        return
    if not shown:
        results.print(f"there is no such letter in {topic.name}")
        raise typer.Exit(1)
    for one in shown:
        _print_letter(one)


@dead_letters_app.command("redrive")
def redrive_command(
    place: Annotated[
        str, typer.Argument(metavar="[RECORD]", help="Partition and offset of a record, as 3:17; default: all.")
    ] = "",
    reason: Reasons = None,
    since: Since = "",
    until: Until = "",
    partition: Partitions = None,
    mapping: Mapping = "",
    with_handled: Handed = False,
    dry_run: DryRun = False,
) -> None:
    """Publish the events of letters whose records can be read now; exit code 1 if some cannot.

    They are read as the settings say now, or with another mapping, and published to the topic that they are from, in
    the form of the contract. A record counts once however often it is redriven.
    """
    meant = _filter(reason, since, until, partition, place)
    progress = ProgressReporter(console=errors)
    with _opened(mapping) as (settings, topic), LetterReader(settings.kafka, make_decoder(settings)) as reader:
        try:
            outcome = redrive_letters(topic, meant, reader, progress, dry_run=dry_run, again=with_handled)
        except KeyboardInterrupt:
            errors.print("interrupted; run it again to continue: what is published twice counts once")
            raise typer.Exit(130) from None
    would, to = "would be " if dry_run else "", settings.kafka.topic
    letters, events = counted(outcome.redriven, "letter"), counted(outcome.events, "event")
    results.print(f"{letters} {would}redriven: {events} {would}published to {to}")
    if outcome.without_events:
        held = "holds" if outcome.without_events == 1 else "hold"
        results.print(f"{counted(outcome.without_events, 'letter')} {held} no event that counts: {would}done with")
    if not outcome.stays:
        return
    table = new_table("Letters that stay")
    table.add_column("reason", no_wrap=True)
    table.add_column("letters", justify="right")
    table.add_column("the first of them", overflow="fold")
    for code, kind in outcome.stays.items():
        table.add_row(code, f"{kind.letters:,}", kind.example)
    results.print(table)
    results.print(f"{counted(outcome.staying, 'letter')} cannot be read: mend them with --mapping, or purge them")
    raise typer.Exit(1)


@dead_letters_app.command("purge")
def purge_command(
    place: Annotated[
        str, typer.Argument(metavar="[RECORD]", help="Partition and offset of a record, as 3:17; default: all.")
    ] = "",
    reason: Reasons = None,
    since: Since = "",
    until: Until = "",
    partition: Partitions = None,
    dry_run: DryRun = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Be done with letters: they are no longer listed, and never redriven unless --all asks for it.

    Kafka erases records of a partition from its beginning only. So a letter is erased with all that come before it,
    once these are done with as well; until then it stays in the topic. Letters that were redriven are erased likewise.
    """
    meant = _filter(reason, since, until, partition, place)
    progress = ProgressReporter(console=errors)
    with _opened() as (_, topic):
        outcome = purge_letters(topic, meant, progress, dry_run=True)
        if dry_run or not (outcome.letters or outcome.of_redriven):
            results.print(_would_purge(outcome.letters, outcome.of_redriven, topic.name))
            return
        if not yes:
            results.print(_would_purge(outcome.letters, outcome.of_redriven, topic.name))
            if not typer.confirm("Go on?"):
                raise typer.Exit(1)
        outcome = purge_letters(topic, meant, progress, dry_run=False)
    results.print(
        f"{counted(outcome.letters, 'letter')} purged; {counted(outcome.freed, 'offset')} of {topic.name} erased"
        + (f", {counted(outcome.behind, 'letter')} behind others that are still needed" if outcome.behind else "")
    )


def _would_purge(letters: int, redriven: int, topic: str) -> str:
    beside = f", and {counted(redriven, 'letter')} that were redriven" if redriven else ""
    return f"{counted(letters, 'letter')} of {topic} would be purged{beside}; purged records are lost for good"


@contextmanager
def _opened(mapping: str = "") -> Iterator[tuple[Settings, DeadLetterTopic]]:
    settings = settings_for_command()
    if mapping:
        settings = settings.model_copy(update={"events": settings.events.model_copy(update={"mapping": mapping})})
    with DeadLetterTopic(settings.kafka, open_data_dir(settings).storage) as topic:
        yield settings, topic


def _filter(
    codes: list[str] | None, since: str, until: str, partitions: list[int] | None, place: str = ""
) -> LetterFilter:
    """Return what the options mean.

    Raises
    ------
    InputFileError
        When one of them means nothing.
    """
    if unknown := sorted(set(codes or ()) - _CODES):
        raise InputFileError(f"--reason: {unknown[0]!r} is no code; there are {', '.join(sorted(_CODES))}")
    if place and not (found := _PLACE.fullmatch(place)):
        raise InputFileError(f"{place!r} is no place of a record; write partition:offset, as in 3:17")
    since_ms, until_ms = _moment("--since", since), _moment("--until", until)
    if since_ms is not None and until_ms is not None and since_ms >= until_ms:
        raise InputFileError("--since must be earlier than --until")
    return LetterFilter(
        frozenset(codes or ()),
        since_ms,
        until_ms,
        frozenset(partitions or ()),
        (int(found[1]), int(found[2])) if place and found else None,
    )


def _moment(option: str, text: str) -> int | None:
    """Return a time in epoch milliseconds."""
    if not text:
        return None
    try:
        if ago := _AGO.fullmatch(text):
            moment = now() - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        else:
            moment = datetime.fromisoformat(text)
        return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError):
        raise InputFileError(
            f"{option}: {text!r} is no time; write 2026-11-28, 2026-11-28T09:30Z, or how long ago: 30m, 2h, 7d"
        ) from None


def _to_second(epoch_ms: int) -> str:
    return datetime.fromtimestamp(epoch_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _described(letter: FoundLetter, reader: LetterReader, how: Handled | None) -> dict[str, Any]:
    """Return all that is known of a letter."""
    record = letter.record
    key, value = record.key(), record.value()
    described: dict[str, Any] = {
        "record": letter.place or None,
        "topic": record.topic(),
        "letter": f"{letter.partition}:{letter.offset}",
        "sent": iso_time(letter.sent_ms),
        "reason": letter.code,
        "what": letter.reason,
        "lines": list(letter.lines),
        "left_out": letter.left_out or None,
        "done": how.value if how else None,
        "key": _shown(key.encode() if isinstance(key, str) else key),
        "headers": [
            [name, _shown(held.encode() if isinstance(held, str) else held)] for name, held in headers_of(record)
        ],
        "value": _shown(value.encode() if isinstance(value, str) else value),
    }
    try:
        events = reader.events(letter)
        described["events_now"] = [event.model_dump(mode="json", exclude_none=True) for event in events]
        described["malformed_now"] = None
    except MalformedEvent as error:
        described["events_now"] = []
        described["malformed_now"] = error.reason
    return described


def _shown(value: bytes | None) -> str | None:
    """Return bytes as text, or in hexadecimal digits where they are none."""
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        more = f" … and {len(value) - _HEX_SHOWN:,} bytes more" if len(value) > _HEX_SHOWN else ""
        return f"0x{value[:_HEX_SHOWN].hex()}{more}"


def _print_letter(one: dict[str, Any]) -> None:
    where = f"{one['topic']} {one['record']}" if one["record"] else "a record of unknown place"
    done = f", {one['done']}" if one["done"] else ""
    results.print(f"{where}, dead letter since {one['sent']}{done}", style="bold")
    table = new_table(show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("reason", f"{one['reason']}: {one['what']}")
    if one["lines"]:
        table.add_row("lines", f"{', '.join(map(str, one['lines']))}; the others count")
    if one["left_out"]:
        table.add_row("left out", one["left_out"])
    table.add_row("key", "" if one["key"] is None else one["key"])
    for name, value in one["headers"]:
        table.add_row("header", f"{name}: {'' if value is None else value}")
    value = one["value"]
    table.add_row("value", record_text(None if value is None else value.encode(), frozenset({EVERY_NAME}), _MOST_BYTES))
    for event in one["events_now"]:
        table.add_row("now", ", ".join(f"{name} {held}" for name, held in event.items()))
    if one["malformed_now"]:
        table.add_row("now", f"malformed: {one['malformed_now']}")
    elif not one["events_now"]:
        table.add_row("now", "no event that counts")
    results.print(table)
    results.print()
