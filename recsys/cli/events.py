"""`recsys events`: records and the events that they become, before anything counts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.cells import cell_len
from rich.padding import Padding
from rich.table import Table

from recsys.cli.output import counted, errors, is_narrow, new_table, print_json, results, settings_for_command
from recsys.cli.summary import new_summary, now_ms, print_summary
from recsys.data.event import Event
from recsys.data.mapping import LeftOut
from recsys.data.mapping_file import preset, presets
from recsys.errors import InputFileError
from recsys.kafka.decoder import make_decoder
from recsys.operations.record_sources import FileRecords, RecordSource, SeenRecord, TopicRecords, seen
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
_LARGE_STEP = 1_000
File = Annotated[
    Path | None,
    typer.Argument(metavar="[FILE]", help="JSON Lines, a record's value a line; - is standard input."),
]
TopicName = Annotated[str, typer.Option("--topic", metavar="T", help="A topic; default: that of the settings.")]
MappingName = Annotated[
    str, typer.Option("--mapping", metavar="NAME", help="A preset or a TOML file; default: that of the settings.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@events_app.command("preview")
def preview_command(
    file: File = None,
    topic: TopicName = "",
    mapping: MappingName = "",
    n: Annotated[int, typer.Option("-n", min=1, max=10_000, metavar="N", help="Records to show.")] = 20,
    oldest: Annotated[bool, typer.Option("--oldest", help="Show the oldest instead of the newest.")] = False,
    as_json: Json = False,
) -> None:
    """Show records beside the events that they become, or why they become none.

    Nothing is written, no group is joined, no offset is committed.
    """
    settings = _chosen(settings_for_command(), topic=topic, mapping=mapping)
    decoder = make_decoder(settings)
    with _source(file, topic, settings) as source:
        records = source.oldest(n) if oldest else source.newest(n)
        shown = [(source.place(record), seen(decoder, record)) for record in records]
    if as_json:
        print_json(orjson.dumps([_in_json(place, one) for place, one in shown], option=orjson.OPT_INDENT_2).decode())
        return
    if not shown:
        results.print(f"{source.name} holds no records")
        return
    _print_preview(shown)
    what = "oldest" if oldest else "newest"
    results.print(f"the {what} of {source.name}, {_how(settings)}: {_become(shown)}")


@events_app.command("check")
def check_command(
    file: File = None,
    topic: TopicName = "",
    mapping: MappingName = "",
    as_json: Json = False,
) -> None:
    """Read all records, and say what they come to and what looks wrong; exit code 1 if something does.

    Nothing is written, no group is joined, no offset is committed.
    """
    settings = _chosen(settings_for_command(), topic=topic, mapping=mapping)
    decoder = make_decoder(settings)
    summary = new_summary()
    with (
        _source(file, topic, settings) as source,
        ProgressReporter(console=errors).stage(f"check {source.name}", source.total) as advance,
    ):
        for record in source.all():
            found = seen(decoder, record)
            summary.note_record(found.events, found.left_out, found.malformed, place=source.place(record))
            if summary.records % _LARGE_STEP == 0:
                advance(_LARGE_STEP)
        advance(summary.records % _LARGE_STEP)
    if as_json:
        print_json(orjson.dumps(summary.as_json(), option=orjson.OPT_INDENT_2).decode())
    else:
        print_summary(f"{source.name}, {_how(settings)}", summary, unit="record")
    if summary.suspicions():
        raise typer.Exit(1)


@events_app.command("preset")
def preset_command(
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="Without a name they are listed.")] = "",
) -> None:
    """Print a mapping for a well-known system, to be used by its name, or copied and edited."""
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


def _chosen(settings: Settings, *, topic: str, mapping: str) -> Settings:
    """Return the settings with what the options say."""
    kafka = settings.kafka.model_copy(update={"topic": topic} if topic else {})
    events = settings.events.model_copy(update={"mapping": mapping} if mapping else {})
    return settings.model_copy(update={"kafka": kafka, "events": events})


def _source(file: Path | None, topic: str, settings: Settings) -> RecordSource:
    if file is None:
        return TopicRecords(settings.kafka)
    if topic:
        raise InputFileError("FILE and --topic cannot be used together; give one of them")
    return FileRecords(file, topic=settings.kafka.topic, now_ms=now_ms())


def _how(settings: Settings) -> str:
    inside = " in CloudEvents" if settings.events.envelope == "cloudevents" else ""
    return f"mapping {settings.events.mapping}{inside}" if settings.events.mapping else f"without a mapping{inside}"


def _become(shown: Iterable[tuple[str, SeenRecord]]) -> str:
    found = [one for _, one in shown]
    events = sum(len(one.events) for one in found)
    malformed = sum(one.malformed is not None for one in found)
    without = sum(not one.events and one.malformed is None for one in found)
    return (
        f"{counted(len(found), 'record')}, {counted(events, 'event')}; {without:,} hold none that counts, "
        f"{malformed:,} malformed"
    )


def _print_preview(shown: Sequence[tuple[str, SeenRecord]]) -> None:
    all_events = [event for _, one in shown for event in one.events]
    widths = [
        min(_WIDEST_ID, max((cell_len(text) for text in texts), default=0))
        for texts in zip(*(_cells(event) for event in all_events), strict=True)
    ]
    for place, one in shown:
        key = _key(one)
        results.print(place if key is None else f"{place}, key {key[:_WIDEST_KEY]}", style="bold")
        results.print(_indented(_text(one.record.value())), style="dim")
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


def _text(value: bytes | None) -> str:
    """Return what a record says, as far as it fits a few lines."""
    if value is None:
        return "(tombstone: no value)"
    most = _MOST_LINES * (results.width - 2)
    try:
        text = orjson.dumps(orjson.loads(value)).decode()
    except ValueError:
        text = value[: 4 * most].decode(errors="replace")
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _key(one: SeenRecord) -> str | None:
    key = one.record.key()
    return key.decode(errors="replace") if isinstance(key, bytes) else key


def _in_json(place: str, one: SeenRecord) -> dict[str, Any]:
    value = one.record.value()
    return {
        "place": place,
        "key": _key(one),
        "value": None if value is None else value.decode(errors="replace"),
        "events": [event.model_dump(mode="json", exclude_none=True) for event in one.events],
        "passed_over": [{"line": left_out.number, "why": left_out.why} for left_out in one.left_out],
        "malformed": one.malformed,
    }
