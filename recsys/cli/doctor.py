"""`recsys doctor` looks end to end, from this machine with these settings, for what is wrong or will be."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Annotated, Any

import orjson
import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from recsys.cli.output import print_json, results, settings_for_command
from recsys.cli.status import MARKS, STYLES
from recsys.operations.asking import Asking
from recsys.operations.doctor import examine
from recsys.operations.finding import KINDS, Finding, not_checked, of_state, sentence, worst
from recsys.operations.probe import CODES, LIMIT_S, probe
from recsys.operations.service_state import decide
from recsys.operations.status_line import Level
from recsys.operations.status_look import look
from recsys.redis import Service, open_store
from recsys.runtime.clock import json_time, now
from recsys.runtime.escapes import escaped
from recsys.runtime.terminal import Unpadded
from recsys.settings import Settings
from recsys.storage.data_dir import open_data_dir

_ASKS_OF_STATUS = 6
"""Twice as many as its look needs at most, for the checks run beside it."""
_COLUMNS = 80
"""Of a usual terminal: a longer line of a command may be copied from it as two."""
_INDENT = "  "
_WORD = re.compile(r"""(?:'[^']*'|"(?:\\.|[^"\\])*"|\\.|[^\s'"\\])+""")
"""A word of a command, as a shell takes it."""


class As(StrEnum):
    """Whose rights these settings must have."""

    CONSUMER = "consumer"
    TRAINER = "trainer"
    API = "api"
    COMMAND = "command"

    @property
    def service(self) -> Service:
        """Who it is among those who use Redis."""
        return Service[self.name]


def doctor_command(
    as_: Annotated[As, typer.Option("--as", help="Whose rights these settings must have.")] = As.COMMAND,
    with_probe: Annotated[
        bool, typer.Option("--probe", help="Send a purchase of a reserved user through everything, and forget it.")
    ] = False,
    within: Annotated[
        float, typer.Option("--within", min=0.1, help="Seconds that each step of the probe may take.")
    ] = LIMIT_S,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Look end to end for what is wrong, or will be: what it endangers, and what mends it. Nothing is changed.

    Exit codes: 0 nothing is wrong, 1 there are warnings, 2 something is broken.
    """
    settings = settings_for_command()
    if with_probe and as_ is not As.COMMAND:
        raise typer.BadParameter(
            "it takes the rights of a command, so it goes with no other --as", param_hint="--probe"
        )
    findings = _findings(settings, as_.service, within_s=within if with_probe else None)
    if as_json:
        print_json(orjson.dumps(described(findings), option=orjson.OPT_INDENT_2).decode())
    else:
        results.print(screen(findings), crop=False)  # a command's line that is too long is left to the terminal
    raise typer.Exit(int(worst(findings)))


def _findings(settings: Settings, service: Service, *, within_s: float | None) -> list[Finding]:
    data_dir = open_data_dir(settings)
    with open_store(settings) as store:
        ask = Asking(_ASKS_OF_STATUS * max(settings.kafka.timeout_s, settings.redis.timeout_s))
        status = None
        if service is Service.COMMAND:  # a service has not the rights to see all that status looks at
            status = ask.begin(lambda: decide(look(settings, store, data_dir), settings.status, at=now()))
        found = examine(settings, service, store, data_dir)
        if status is not None:
            found.append(of_state(ask.end(status)))
        if within_s is None:
            return found
        unusable = [one.code for one in found if one.code in ("kafka", "redis") and one.level is Level.BROKEN]
        if unusable:
            return [*found, *(not_checked(code, f"{' and '.join(unusable)} cannot be used") for code in CODES)]
        return [*found, *probe(settings, store, within_s=within_s)]


def screen(findings: Sequence[Finding]) -> RenderableType:
    """Return what the command shows: by area; below what is not well stands what it endangers, and what mends it."""
    parts: list[RenderableType] = [Text(sentence(findings), style=STYLES[worst(findings)])]
    area = None
    for finding in findings:
        if finding.kind.area is not area:
            area = finding.kind.area
            parts.append(_row(Text(""), Text(area.value, style="bold"), ""))
        parts.extend(_shown(finding))
    return Unpadded(Group(*parts))


def _shown(finding: Finding) -> Iterator[RenderableType]:
    """Yield the finding, its command on lines of its own, and below it what to do besides."""
    said = escaped(finding.text)
    if finding.level and finding.is_checked:
        said += f"\nendangered: {finding.kind.endangers}"
    mark = Text(MARKS[finding.level], style=STYLES[finding.level])
    yield _row(mark, Text(finding.kind.name), said)
    if finding.command:
        yield Text(folded(escaped(finding.command)), no_wrap=True, overflow="ignore")
    if finding.level and finding.advice:
        yield _row(Text(""), Text(""), f"→ {escaped(finding.advice)}")


def _row(mark: Text, name: Text, said: str) -> Table:
    """Return one row; all rows have the same columns."""
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True, min_width=max(map(len, MARKS.values())))
    table.add_column(no_wrap=True, min_width=max(len(kind.name) for kind in KINDS.values()))
    table.add_column()
    table.add_row(mark, name, Text(said))
    return table


def folded(command: str) -> str:
    """Return a command in short lines that a shell reads as one."""
    most = _COLUMNS - len(" \\")
    lines: list[str] = []
    for word in _WORD.findall(command):
        if lines and len(lines[-1]) + len(f" {word}") <= most:
            lines[-1] += f" {word}"
        else:
            lines.append(f"{_INDENT}{_INDENT if lines else ''}{word}")
    return " \\\n".join(lines)


def described(findings: Sequence[Finding]) -> dict[str, Any]:
    """Return what ``--json`` prints: see docs/operations.md."""
    return {
        "at": json_time(now()),
        "level": worst(findings).name.lower(),
        "sentence": sentence(findings),
        "findings": [
            {
                "code": finding.code,
                "area": finding.kind.area.name.lower(),
                "name": finding.kind.name,
                "level": finding.level.name.lower(),
                "checked": finding.is_checked,
                "text": finding.text,
                "endangers": finding.kind.endangers if finding.level and finding.is_checked else "",
                "command": finding.command,
                "advice": finding.advice,
            }
            for finding in findings
        ],
    }
