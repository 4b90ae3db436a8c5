"""`recsys events`: records and the events that they become, before anything counts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import orjson
import typer
from rich.cells import cell_len
from rich.padding import Padding
from rich.table import Table

from recsys.cli.columns import ReadAs, find_purchases, open_file, reads_purchases
from recsys.cli.output import (
    counted,
    errors,
    is_narrow,
    new_table,
    prices_left_out,
    print_json,
    results,
    settings_for_command,
)
from recsys.cli.record_text import record_text
from recsys.cli.summary import new_summary, print_summary
from recsys.data.cloud_events import NAMES_OF_DATA
from recsys.data.event import Event, ensure_fits_cluster
from recsys.data.mapping import EventMapping, LeftOut
from recsys.data.mapping_file import CONTRACT, preset, presets
from recsys.errors import InputFileError
from recsys.files.event_file import any_user
from recsys.files.remedies import TOPIC, of_mapping
from recsys.kafka.decoder import decoder_of
from recsys.kafka.readings import reading_of
from recsys.operations.record_sources import FileRecords, RecordSource, SeenRecord, TopicRecords
from recsys.runtime.progress import ProgressReporter
from recsys.settings import Settings

events_app = typer.Typer(
    help="See what records become, before anything counts.", add_completion=False, rich_markup_mode=None
)
_MOST_LINES = 3
"""Of the text of a record, on the screen."""
_MOST_NUMBERS = 10
"""Of lines that are passed over for one reason."""
_WIDEST_ID = 24
_WIDEST_KEY = 40
Files = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[FILE]...",
        help="What recsys import would be given: files, globs, folders of Parquet, or - for standard input; "
        "default: the topic.",
    ),
]
TopicName = Annotated[str, typer.Option("--topic", metavar="T", help="A topic; default: that of the settings.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@events_app.command("preview")
@reads_purchases
def preview_command(
    files: Files = None,
    topic: TopicName = "",
    n: Annotated[int, typer.Option("-n", min=1, max=10_000, metavar="N", help="Records to show.")] = 20,
    oldest: Annotated[bool, typer.Option("--oldest", help="Show the oldest instead of the newest.")] = False,
    as_json: Json = False,
    *,
    read_as: ReadAs,
) -> None:
    """Show records beside the events that they become, or why they become none; a file's rows are its records.

    The mapping is that of the settings, unless another one is named, or options say which columns a file has. Nothing
    is written, no group is joined, no offset is committed.
    """
    source, how = _source(files or [], topic, read_as)
    with source:
        shown = source.oldest(n) if oldest else source.newest(n)
    if as_json:
        print_json(orjson.dumps([_in_json(one) for one in shown], option=orjson.OPT_INDENT_2).decode())
        return
    if not shown:
        results.print(f"{source.name} holds no records")
        return
    _print_preview(shown, source.names)
    what = "oldest" if oldest else "newest"
    results.print(f"the {what} of {source.name}, {how}: {_become(shown)}")


@events_app.command("check")
@reads_purchases
def check_command(
    files: Files = None,
    topic: TopicName = "",
    as_json: Json = False,
    *,
    read_as: ReadAs,
) -> None:
    """Read all records, and say what they come to and what looks wrong; exit code 1 if something does.

    The mapping is that of the settings, unless another one is named, or options say which columns a file has. Nothing
    is written, no group is joined, no offset is committed.
    """
    source, how = _source(files or [], topic, read_as, shows_summary=True)
    summary = new_summary(source.remedies, source.most_ids)
    with source:
        source.check(summary, ProgressReporter(console=errors))
    if as_json:
        print_json(orjson.dumps(summary.as_json(), option=orjson.OPT_INDENT_2).decode())
    else:
        print_summary(f"{source.name}, {how}", summary, unit="record")
        if summary.unread_prices:
            results.print(f"note: {prices_left_out(summary.unread_prices)}")
    if summary.suspicions():
        raise typer.Exit(1)


@events_app.command("preset")
def preset_command(
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="Without a name they are listed.")] = "",
) -> None:
    """Print a mapping for a well-known system, to be used by its name, or copied and edited.

    Without a name they are listed: in a terminal with what they are for, else one name a line.
    """
    if not name and not results.is_terminal:
        print("\n".join(presets()))
        return
    if not name:
        table = new_table(caption="recsys events preset NAME prints one; RECSYS_EVENTS__MAPPING=NAME uses it")
        table.add_column("preset", no_wrap=True)
        table.add_column("for")
        for known in presets():
            table.add_row(known, preset(known).partition("\n")[0].removeprefix("# ").partition(": ")[0].rstrip(".:"))
        results.print(table)
        return
    if name not in presets():
        raise InputFileError(f"{name}: there is no such preset; there are {', '.join(presets())}")
    print(preset(name), end="")


def _source(
    files: Sequence[str], topic: str, read_as: ReadAs, *, shows_summary: bool = False
) -> tuple[RecordSource, str]:
    """Return where records are, and how they are read."""
    settings = settings_for_command()
    if files and topic:
        raise InputFileError("FILE and --topic cannot be used together; give one of them")
    if files:
        envelope = CONTRACT if settings.events.envelope != "none" else ""
        read_as = read_as.or_mapping(settings.events.mapping or envelope)
        file = open_file(find_purchases(files), read_as, settings, shows_summary=shows_summary)
        check_user = ensure_fits_cluster if settings.redis.cluster else any_user
        return FileRecords(file, check_user), _how(read_as.mapping, settings)
    if flags := read_as.flags():
        raise InputFileError(f"{flags[0]} says how files are read; name one, or leave the option out")
    kafka = settings.kafka.model_copy(update={"topic": topic} if topic else {})
    events = settings.events.model_copy(update={"mapping": read_as.mapping} if read_as.mapping else {})
    settings = settings.model_copy(update={"kafka": kafka, "events": events})
    written = "" if events.format == "json" else f", {events.format}"
    reading = reading_of(events)
    mapping: Any = reading.description["mapping"]
    remedies = TOPIC if mapping is None else of_mapping(mapping, in_files=False)
    names = frozenset(Event.model_fields) if mapping is None else EventMapping.of(mapping).names
    names |= NAMES_OF_DATA if events.envelope == "cloudevents" else frozenset()
    records = TopicRecords(kafka, decoder_of(reading, settings), remedies, settings.history.max_event_ids, names)
    return records, _how(events.mapping, settings) + written


def _how(mapping: str, settings: Settings) -> str:
    inside = " in CloudEvents" if settings.events.envelope == "cloudevents" else ""
    return f"mapping {mapping}{inside}" if mapping else f"without a mapping{inside}"


def _become(shown: Sequence[SeenRecord]) -> str:
    events = sum(len(one.events) for one in shown)
    malformed = sum(one.malformed is not None for one in shown)
    without = sum(not one.events and one.malformed is None for one in shown)
    return (
        f"{counted(len(shown), 'record')}, {counted(events, 'event')}; {without:,} hold none that counts, "
        f"{malformed:,} malformed"
    )


def _print_preview(shown: Sequence[SeenRecord], names: frozenset[str]) -> None:
    most = _MOST_LINES * (results.width - 2)
    all_events = [event for one in shown for event in one.events]
    widths = [
        min(_WIDEST_ID, max((cell_len(text) for text in texts), default=0))
        for texts in zip(*(_cells(event) for event in all_events), strict=True)
    ]
    for one in shown:
        results.print(one.place if one.key is None else f"{one.place}, key {one.key[:_WIDEST_KEY]}", style="bold")
        results.print(_indented(record_text(one.value, names, most)), style="dim")
        if one.events:
            results.print(_indented(_events_table(one.events, widths)))
        for line in _passed_over(one.left_out):
            results.print(_indented(f"passed over: {line}"), style="yellow")
        if one.malformed is not None:
            results.print(_indented(f"malformed: {one.malformed}"), style="red")
        results.print()


def _indented(shown: str | Table) -> Padding:
    return Padding(shown, (0, 0, 0, 2), expand=False)


def _passed_over(left_out: Iterable[LeftOut]) -> Iterator[str]:
    """Yield each reason once, with the lines that it is that of."""
    lines: dict[str, list[str]] = {}
    for one in left_out:
        lines.setdefault(one.why, []).extend([] if one.number is None else [str(one.number)])
    for why, numbers in lines.items():
        more = f" and {len(numbers) - _MOST_NUMBERS:,} more" if len(numbers) > _MOST_NUMBERS else ""
        named = f"{'line' if len(numbers) == 1 else 'lines'} {', '.join(numbers[:_MOST_NUMBERS])}{more}: "
        yield (named if numbers else "") + why


def _events_table(events: Iterable[Event], widths: Sequence[int]) -> Table:
    """Return the events of a record; their columns stand where those of the other records do."""
    table = Table.grid(padding=(0, 2))
    for at, width in enumerate(widths):
        table.add_column(justify="right" if at in _NUMBERS else "left", min_width=width, overflow="fold")
    for event in events:
        table.add_row(*_cells(event))
    return table


_NUMBERS = (3, 5)
"""Columns of an event that hold numbers."""


def _cells(event: Event) -> list[str]:
    item = "" if event.item_id is None else f"item {event.item_id}"
    when = datetime.fromtimestamp(event.timestamp / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    quantity = "" if event.item_id is None else f"× {event.quantity:g}"
    cells = [event.type.value, f"user {event.user_id}", item, quantity, when]
    if not is_narrow():
        cells += ["" if event.price is None else f"{event.price:g}", event.event_id or ""]
    return cells


def _in_json(one: SeenRecord) -> dict[str, Any]:
    return {
        "place": one.place,
        "key": one.key,
        "value": None if one.value is None else one.value.decode(errors="replace"),
        "events": [event.model_dump(mode="json", exclude_none=True) for event in one.events],
        "passed_over": [{"line": left_out.number, "why": left_out.why} for left_out in one.left_out],
        "malformed": one.malformed,
    }
