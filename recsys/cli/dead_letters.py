"""`recsys dead-letters`: malformed records, why they are, and what becomes of them."""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import orjson
import typer
from rich.table import Table

from recsys.cli.letter import described, print_letter
from recsys.cli.output import counted, errors, is_narrow, new_table, print_json, results, settings_for_command
from recsys.data.epoch import iso_time
from recsys.errors import InputFileError, Reason, advised
from recsys.kafka.letters import UNKNOWN
from recsys.kafka.readings import load_mapping
from recsys.operations.dead_letters import (
    DeadLetterTopic,
    LetterCounts,
    LetterFilter,
    count_letters,
    purge_letters,
)
from recsys.operations.redrive import LetterReader, redrive_letters
from recsys.runtime.clock import now
from recsys.runtime.progress import ProgressReporter
from recsys.settings import Settings
from recsys.storage.data_dir import open_data_dir

dead_letters_app = typer.Typer(
    help="List malformed records, mend them, or purge them.", add_completion=False, rich_markup_mode=None
)
_CODES = frozenset(Reason) | {UNKNOWN}
_AGO = re.compile(r"(\d{1,6})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_PLACE = re.compile(r"(\d{1,10}):(\d{1,19})")
_CODE = re.compile(r"[a-z0-9_]{1,40}")
_RUN_AGAIN = "run it again to go on: what is published twice counts once"

Reasons = Annotated[
    list[str] | None,
    typer.Option("--reason", metavar="CODE", help="Letters with this code, as list names it; may be repeated."),
]
Since = Annotated[
    str | None,
    typer.Option(
        "--since", metavar="TIME", help="Letters sent at this time (UTC) or later: 2026-11-28T09:30, or 2h for 2 h ago."
    ),
]
Until = Annotated[str | None, typer.Option("--until", metavar="TIME", help="Letters sent before this time.")]
Partitions = Annotated[
    list[int] | None,
    typer.Option("--partition", min=0, metavar="N", help="Records of this partition; may be repeated."),
]
Place = Annotated[
    str | None,
    typer.Argument(metavar="RECORD", help="Only this record: its partition and offset, as 3:17.", show_default=False),
]
WithDone = Annotated[bool, typer.Option("--all", help="Also letters that were redriven or purged.")]
Mapping = Annotated[
    str | None,
    typer.Option("--mapping", metavar="M", help="Read records with this mapping, not with that of the settings."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would happen, and change nothing.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@dead_letters_app.command("list", short_help="Count the letters by reason.")
def list_command(
    reason: Reasons = None,
    since: Since = None,
    until: Until = None,
    partition: Partitions = None,
    with_done: WithDone = False,
    as_json: Json = False,
) -> None:
    """Count the letters by reason. docs/contract.md says what each code means."""
    meant = _filter(reason, since, until, partition)
    with _opened() as (_, topic):
        counts = count_letters(topic, meant, ProgressReporter(console=errors), with_done=with_done)
    if as_json:
        print_json(orjson.dumps(_counts_in_json(topic, counts), option=orjson.OPT_INDENT_2).decode())
        return
    total = sum(count.letters for count in counts.by_code.values())
    if counts.by_code:
        results.print(_counts_table(topic, counts))
    done = [
        f"{number:,} {word}" for number, word in ((counts.redriven, "redriven"), (counts.purged, "purged")) if number
    ]
    among = "of these" if with_done else "not counted"
    results.print(f"{counted(total, 'letter')} in {topic.name}" + (f"; {among}: {', '.join(done)}" if done else ""))
    if counts.by_code:
        results.print("see some: recsys dead-letters show --reason CODE", style="dim")
        results.print("see which can be read now: recsys dead-letters redrive --dry-run", style="dim")
    else:
        _note_unknown_codes(meant)


@dead_letters_app.command("show", short_help="Show letters, the newest first.")
def show_command(
    place: Place = None,
    reason: Reasons = None,
    since: Since = None,
    until: Until = None,
    partition: Partitions = None,
    n: Annotated[int, typer.Option("-n", min=1, max=100, metavar="N", help="Letters to show.")] = 3,
    with_done: WithDone = False,
    mapping: Mapping = None,
    as_json: Json = False,
) -> None:
    """Show letters, the newest first: the record, why it is malformed, and what it would be now."""
    meant = _filter(reason, since, until, partition, place)
    with _opened(mapping) as (settings, topic), LetterReader(settings) as reader:
        letters = topic.letters(ProgressReporter(console=errors), since_ms=meant.since_ms)
        found = (
            one for one in letters if meant.takes(one) and (with_done or place is not None or not topic.is_done(one))
        )
        newest = heapq.nlargest(n, found, key=lambda letter: letter.sent_ms)
        shown = [described(letter, reader, topic.mark(letter)) for letter in newest]
    if as_json:
        print_json(orjson.dumps(shown, option=orjson.OPT_INDENT_2).decode())
    for one in () if as_json else shown:
        print_letter(one)
    if not shown:
        _note_none(topic, meant)


@dead_letters_app.command("redrive", short_help="Publish the events of records that can be read now.")
def redrive_command(
    place: Place = None,
    reason: Reasons = None,
    since: Since = None,
    until: Until = None,
    partition: Partitions = None,
    mapping: Mapping = None,
    with_done: WithDone = False,
    dry_run: DryRun = False,
) -> None:
    """Publish the events of records that can be read now; exit code 1 if some cannot.

    Records are read as the settings say now, or with another mapping. Their events go to the topic that they are from,
    in the form of the contract. Each counts once, however often it is redriven in the same way.
    """
    meant = _filter(reason, since, until, partition, place)
    progress = ProgressReporter(console=errors)
    with _opened(mapping) as (settings, topic), LetterReader(settings) as reader, advised(_RUN_AGAIN):
        try:
            outcome = redrive_letters(topic, meant, reader, progress, dry_run=dry_run, again=with_done)
        except KeyboardInterrupt:
            errors.print(f"interrupted; {_RUN_AGAIN}")
            raise typer.Exit(130) from None
    would, to = "would be " if dry_run else "", settings.kafka.topic
    letters, events = counted(outcome.redriven, "letter"), counted(outcome.events, "event")
    results.print(f"{letters} {would}redriven: {events} {would}published to {to}")
    if outcome.without_events:
        results.print(f"{counted(outcome.without_events, 'letter')} {would}redriven without an event that counts")
    if outcome.done_before:
        results.print(
            f"{counted(outcome.done_before, 'letter')} left out, redriven or purged before (--all takes them)"
        )
    if outcome.stays:
        table = new_table("Letters that stay")
        table.add_column("reason", no_wrap=True)
        table.add_column("letters", justify="right")
        table.add_column("the first of them, and why it stays", overflow="fold")
        for code, kind in outcome.stays.items():
            table.add_row(code, f"{kind.letters:,}", kind.example)
        results.print(table)
        results.print(
            f"letters that stay: {outcome.staying:,}. A mapping may mend them (--mapping); purge is for the rest"
        )
    elif not (outcome.redriven or outcome.without_events or outcome.done_before):
        _note_none(topic, meant)
    if outcome.stays:
        raise typer.Exit(1)


@dead_letters_app.command("purge", short_help="Give letters up, and erase what can be erased.")
def purge_command(
    place: Place = None,
    reason: Reasons = None,
    since: Since = None,
    until: Until = None,
    partition: Partitions = None,
    dry_run: DryRun = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Give letters up: they are no longer listed, and no longer redriven.

    Kafka erases records of a partition only from its beginning. So a purged letter is erased once all letters before it
    are redriven or purged as well. Letters that were redriven are erased with them.
    """
    meant = _filter(reason, since, until, partition, place)
    progress = ProgressReporter(console=errors)
    with _opened() as (settings, topic):
        would = purge_letters(topic, meant, progress, dry_run=True)
        if not would.letters and meant != LetterFilter():
            _note_none(topic, meant)
            return
        said = (
            f"{counted(would.letters, 'letter')} of {topic.name} would be purged. Of these, and of those that were "
            f"redriven or purged before, Kafka would erase {would.erased:,}, and keep {would.behind:,} until letters "
            f"before them are"
        )
        if dry_run or not would.letters + would.erased:
            results.print(said)
            return
        if not yes:
            results.print(f"{said}. What is erased is lost")
            if not typer.confirm("Go on?"):
                raise typer.Exit(1)
    with DeadLetterTopic(settings.kafka, open_data_dir(settings).storage) as topic:
        done = purge_letters(topic, meant, progress, dry_run=False)
    results.print(
        f"{counted(done.letters, 'letter')} purged; {done.erased:,} erased, {done.behind:,} kept in {topic.name}"
    )


def _counts_table(topic: DeadLetterTopic, counts: LetterCounts) -> Table:
    table = new_table(f"Dead letters in {topic.name}")
    table.add_column("reason", no_wrap=True)
    table.add_column("letters", justify="right")
    if not is_narrow():
        table.add_column("first (UTC)", no_wrap=True)
        table.add_column("last (UTC)", no_wrap=True)
    table.add_column("newest", no_wrap=True)
    table.add_column("what is wrong with it", overflow="fold")
    for code, count in counts.by_code.items():
        times = [] if is_narrow() else [_to_second(count.first_ms), _to_second(count.last_ms)]
        table.add_row(code, f"{count.letters:,}", *times, count.newest.place, count.newest.reason)
    return table


def _counts_in_json(topic: DeadLetterTopic, counts: LetterCounts) -> dict[str, Any]:
    return {
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
        "redriven": counts.redriven,
        "purged": counts.purged,
    }


def _note_none(topic: DeadLetterTopic, meant: LetterFilter) -> None:
    """Say that no letter is meant; where one record was named, that is an error."""
    errors.print(f"there is no such letter in {topic.name}")
    _note_unknown_codes(meant)
    if meant.place is not None:
        raise typer.Exit(1)


def _note_unknown_codes(meant: LetterFilter) -> None:
    if unknown := sorted(meant.codes - _CODES):
        errors.print(f"{unknown[0]!r} is no code of this version; there are {', '.join(sorted(_CODES))}")


@contextmanager
def _opened(mapping: str | None = None) -> Iterator[tuple[Settings, DeadLetterTopic]]:
    settings = settings_for_command()
    if mapping is not None:
        if not mapping:
            raise InputFileError("--mapping: name a preset or a file")
        load_mapping(mapping)  # here its errors name the option's file, not the variable
        settings = settings.model_copy(update={"events": settings.events.model_copy(update={"mapping": mapping})})
    with DeadLetterTopic(settings.kafka, open_data_dir(settings).storage) as topic:
        yield settings, topic


def _filter(
    codes: list[str] | None,
    since: str | None,
    until: str | None,
    partitions: list[int] | None,
    place: str | None = None,
) -> LetterFilter:
    """Return what the options mean.

    Raises
    ------
    InputFileError
        When one of them means nothing.
    """
    if wrong := [code for code in codes or () if not _CODE.fullmatch(code)]:
        raise InputFileError(f"--reason: {wrong[0]!r} is no code; there are {', '.join(sorted(_CODES))}")
    found = None if place is None else _PLACE.fullmatch(place)
    if place is not None and found is None:
        raise InputFileError(f"{place!r} is no place of a record; write partition:offset, as in 3:17")
    since_ms, until_ms = _moment("--since", since), _moment("--until", until)
    if since_ms is not None and until_ms is not None and since_ms >= until_ms:
        raise InputFileError("--since must be earlier than --until")
    return LetterFilter(
        frozenset(codes or ()),
        since_ms,
        until_ms,
        frozenset(partitions or ()),
        None if found is None else (int(found[1]), int(found[2])),
    )


def _moment(option: str, text: str | None) -> int | None:
    """Return a time in epoch milliseconds."""
    if text is None:
        return None
    try:
        if ago := _AGO.fullmatch(text):
            moment = now() - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        else:
            moment = datetime.fromisoformat(text)
        return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError):
        raise InputFileError(
            f"{option}: {text!r} is no time; write 2026-11-28 or 2026-11-28T09:30 (UTC unless a zone is given), or how "
            f"long ago: 30m, 2h, 7d"
        ) from None


def _to_second(epoch_ms: int) -> str:
    return datetime.fromtimestamp(epoch_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
