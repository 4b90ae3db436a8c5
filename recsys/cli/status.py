"""`recsys status` says whether the shop is being served."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Annotated, Any

import orjson
import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from recsys.cli.output import new_table, print_json, results, settings_for_command
from recsys.operations.service_state import decide
from recsys.operations.status_facts import Facts, PartitionFacts, Unknown
from recsys.operations.status_line import Level, Line, State
from recsys.operations.status_look import look
from recsys.redis import Store, open_store
from recsys.redis.service_registry import ConsumerEntry, FoundServices
from recsys.runtime.clock import json_time, now
from recsys.runtime.escapes import escaped
from recsys.settings import Settings
from recsys.storage.data_dir import open_data_dir

_REDRAWN_EVERY_S = 2.0
_INTERRUPTED = 130
"""Exit code when there has been no look yet."""
_MOST_PARTITIONS = 8
_MOST_SERVICES = 12
STYLES = {Level.OK: "green", Level.WARNING: "yellow", Level.BROKEN: "red"}
MARKS = {Level.OK: "ok", Level.WARNING: "warning", Level.BROKEN: "BROKEN"}


def status_command(
    watch: Annotated[bool, typer.Option("--watch", help="Look again and again, until Ctrl-C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say whether the shop is being served, what is wrong, and what to do about it.

    Exit codes: 0 all is well, 1 there are warnings, 2 something is broken; with --watch those of the last look.
    """
    settings = settings_for_command()
    with open_store(settings) as store:
        if watch:
            raise typer.Exit(_watch(settings, store, as_json=as_json))
        facts, state = _look(settings, store)
    if as_json:
        print_json(orjson.dumps(described(facts, state), option=orjson.OPT_INDENT_2).decode())
    else:
        results.print(screen(facts, state))
    raise typer.Exit(int(state.level))


def _look(settings: Settings, store: Store) -> tuple[Facts, State]:
    facts = look(settings, store, open_data_dir(settings))
    return facts, decide(facts, settings.status, at=now())


def _watch(settings: Settings, store: Store, *, as_json: bool) -> int:
    """Show each look until Ctrl-C, as a line of JSON or in place of the last one; return the last one's exit code."""
    code = _INTERRUPTED
    try:
        with Live(console=results, auto_refresh=False, screen=results.is_terminal and not as_json) as live:
            while True:
                facts, state = _look(settings, store)
                code = int(state.level)
                if as_json:
                    print_json(orjson.dumps(described(facts, state)).decode())
                elif results.is_terminal:
                    live.update(screen(facts, state), refresh=True)
                else:
                    results.print(screen(facts, state))
                time.sleep(_REDRAWN_EVERY_S)
    except KeyboardInterrupt:
        return code


def screen(facts: Facts, state: State) -> RenderableType:
    """Return what the command shows."""
    parts: list[RenderableType] = [Text(state.sentence, style=STYLES[state.level]), lines_table(state.lines)]
    if not isinstance(facts.services, Unknown) and facts.services.entries:
        parts.append(services_table(facts.services))
    if not isinstance(facts.partitions, Unknown):
        parts.append(partitions_table(facts))
    return Group(*parts)


def lines_table(lines: Sequence[Line]) -> Table:
    """Return the lines; below one that is not well stands what to do."""
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True, min_width=max(map(len, MARKS.values())))
    table.add_column(no_wrap=True)
    table.add_column()
    for line in lines:
        said = Text(escaped(line.text))
        if line.remedy:
            said = Text(f"{escaped(line.text)}\n→ {escaped(line.remedy)}")
        table.add_row(Text(MARKS[line.level], style=STYLES[line.level]), line.name, said)
    return table


def services_table(found: FoundServices) -> Table:
    """Return which processes run."""
    shown = found.entries[:_MOST_SERVICES]
    left = len(found.entries) - len(shown)
    table = new_table("Services", caption=f"and {left:,} more" if left else "")
    for name in ("service", "host", "version", "since (UTC)"):
        table.add_column(name, overflow="fold")
    table.add_column("seen", justify="right")
    for entry in shown:
        ago_s = max(0.0, (now() - entry.at).total_seconds())
        host = f"{entry.host} ({entry.pid})"
        table.add_row(entry.kind, host, entry.version, f"{entry.since:%Y-%m-%d %H:%M}", f"{ago_s:.0f} s ago")
    return table


def partitions_table(facts: Facts) -> Table:
    """Return lag and rate of the partitions, those with the largest lag first."""
    partitions = [] if isinstance(facts.partitions, Unknown) else facts.partitions
    shown = sorted(partitions, key=lambda one: (-one.lag, one.partition))[:_MOST_PARTITIONS]
    left = len(partitions) - len(shown)
    table = new_table("Partitions", caption=f"and {left:,} more, with less lag" if left else "")
    table.add_column("partition", justify="right")
    for name in ("applied", "in Kafka", "lag", "records/s"):
        table.add_column(name, justify="right")
    rates = _rates(facts)
    for one in shown:
        applied = "none" if one.applied is None else f"{one.applied:,}"
        rate = f"{rates[one.partition]:,.1f}" if one.partition in rates else "not held"
        table.add_row(f"{one.partition}", applied, f"{one.end:,}", f"{one.lag:,}", rate)
    return table


def _rates(facts: Facts) -> dict[int, float]:
    """Return the records per second that consumers apply, of the partitions that are held."""
    entries = [] if isinstance(facts.services, Unknown) else facts.services.entries
    held = [entry.facts.partitions for entry in entries if isinstance(entry, ConsumerEntry)]
    return {partition: rate for one in held for partition, rate in one.items()}


def described(facts: Facts, state: State) -> dict[str, Any]:
    """Return what ``--json`` prints: see docs/operations.md."""
    services = [] if isinstance(facts.services, Unknown) else facts.services.entries
    partitions = [] if isinstance(facts.partitions, Unknown) else facts.partitions
    rates = _rates(facts)
    return {
        "at": json_time(now()),
        "level": state.level.name.lower(),
        "sentence": state.sentence,
        "lines": [
            {
                "code": line.code,
                "name": line.name,
                "level": line.level.name.lower(),
                "text": line.text,
                "remedy": line.remedy,
            }
            for line in state.lines
        ],
        "services": [entry.model_dump(mode="json") for entry in services],
        "partitions": [_partition(one, rates.get(one.partition)) for one in partitions],
    }


def _partition(one: PartitionFacts, records_per_s: float | None) -> dict[str, Any]:
    return {
        "partition": one.partition,
        "applied": one.applied,
        "end": one.end,
        "lag": one.lag,
        "oldest_s": one.oldest_s,
        "records_per_s": records_per_s,
    }
