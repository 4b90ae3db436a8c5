"""`recsys evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from recsys.cli.columns import ReadAs, find_purchases, open_purchases, reads_purchases
from recsys.cli.output import errors, is_narrow, new_table, print_json, results, settings_for_command
from recsys.data.event_log import EventLog
from recsys.errors import InputFileError, NoModel
from recsys.evaluation.compare import ALL, NEW, Score
from recsys.evaluation.metrics import Interval
from recsys.evaluation.split import NEWCOMERS, SEGMENTS
from recsys.evaluation.verdict import TOO_FEW, glossary, is_telling
from recsys.files.event_file import EventFile
from recsys.operations.evaluate import (
    LENGTHS,
    Evaluation,
    cut_of_archive,
    cut_of_file,
    evaluate_model,
    judged_model,
    read_events,
    with_history,
)
from recsys.operations.evaluation_report import html_report
from recsys.redis import open_store
from recsys.runtime.clock import now
from recsys.runtime.private_files import create_file
from recsys.runtime.progress import ProgressReporter
from recsys.settings import Settings
from recsys.storage.archive import Archive
from recsys.storage.data_dir import open_data_dir
from recsys.storage.manifest import Manifest

_RECOMMENDERS = 5


@reads_purchases
def evaluate_command(
    model: Annotated[
        str, typer.Option("--model", metavar="VERSION", help="Version of the model; default: the live one.")
    ] = "",
    live: Annotated[bool, typer.Option("--live", help="Evaluate the live model.")] = False,
    data: Annotated[
        list[str] | None,
        typer.Option(
            "--data",
            metavar="FILE",
            help="Purchases to measure by, a file, glob, folder or -; may be given several times; default: the "
            "archive.",
        ),
    ] = None,
    since: Annotated[
        datetime | None,
        typer.Option("--since", metavar="TIME", help="Measure by what was bought from this time on (UTC)."),
    ] = None,
    n: Annotated[int, typer.Option("--n", metavar="N", help="Length of the lists in the table: 10 or 20.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="PATH", help="Also write a report with plots to this file.")
    ] = None,
    *,
    read_as: ReadAs,
) -> None:
    """Measure a model's lists by what users bought afterwards, beside lists that need no model.

    Without --data, the newest RECSYS_TRAINER__HOLDOUT_DAYS of the archive count; the measured model has not seen them.
    With --data, the purchases that are newer than the model's count; earlier ones come from the file or the archive.
    """
    if n not in LENGTHS:
        raise InputFileError(f"--n must be {' or '.join(map(str, LENGTHS))}, not {n}")
    if read_as.mapping and not data:
        raise InputFileError("--mapping says how files are read; name them with --data")
    if model and live:
        raise InputFileError("--model and --live cannot be used together; give one of them")
    if html is not None:
        import_module("matplotlib.figure")  # so that a missing library is reported before the work
    settings = settings_for_command()
    file = open_purchases(find_purchases(data), read_as, settings) if data else None
    data_dir = open_data_dir(settings)
    progress = ProgressReporter(console=errors)
    models = data_dir.models
    version = _live_version(settings) if model in ("", "live") else model
    manifest = models.manifest(version)
    since_s = None if since is None else int(since.replace(tzinfo=since.tzinfo or UTC).timestamp())
    events, cut_s = _events(settings, data_dir.archive, manifest, file, since_s, progress)
    with progress.stage("load the model"):
        judged = judged_model(models, version, cut_s)
    with progress.stage("judge", _RECOMMENDERS) as advance:
        found = evaluate_model(version, judged, events, cut_s, on_recommender=lambda: advance(1))
    if html is not None:
        try:
            with open(create_file(html), "w", encoding="utf-8") as report:
                report.write(html_report(found))
        except OSError as error:
            raise InputFileError(f"--html: {html} cannot be written: {error.strerror}") from error
    if as_json:
        print_json(found.model_dump_json(indent=2))
        return
    for line in found.verdict(n):
        results.print(line)
    for table in evaluation_tables(found, n):
        results.print(table)
    for line in glossary():
        results.print(line, style="dim")
    if html is not None:
        results.print(f"report written to {html}", markup=False)


def _live_version(settings: Settings) -> str:
    with open_store(settings) as store:
        pointer = store.pointer.read()
    if pointer is None:
        raise NoModel("no model is live; make one with recsys retrain, or python -m trainer --once")
    return pointer.version


def _events(
    settings: Settings,
    archive: Archive,
    manifest: Manifest,
    file: EventFile | None,
    since_s: int | None,
    progress: ProgressReporter,
) -> tuple[EventLog, int]:
    """Return what to judge by, and the cut."""
    holdout_days = settings.trainer.holdout_days

    def archived() -> EventLog:
        with progress.stage("read the archive"):
            events = archive.events()
        return events.where(events.seconds <= int(now().timestamp()))  # what lies in the future was never bought

    if file is None:
        events = archived()
        return events, since_s or cut_of_archive(events, int(now().timestamp()), holdout_days=holdout_days)
    with progress.stage(f"read {file.name}", file.rows, unit="rows") as advance:
        events, counts = read_events(file, advance)
    for line in counts.equations({"valid": counts.valid}):
        errors.print(line)
    if counts.rejected:
        errors.print("recsys import of this file writes the reasons to a file")
    cut_s = since_s or cut_of_file(events, manifest, holdout_days=holdout_days)
    return with_history(events, archived, cut_s), cut_s


def evaluation_tables(found: Evaluation, n: int) -> list[Table]:
    """Return what was measured: one table, or where there is no room for it one for each kind of lists."""
    kinds = [(NEW,), (ALL,)] if is_narrow() else [(NEW, ALL)]
    return [_table(found, n, columns) for columns in kinds]


def _table(found: Evaluation, n: int, columns: Sequence[str]) -> Table:
    stands_in = " (its holdout model, which has not seen these purchases)" if found.stands_in else ""
    table = new_table(
        f"Model {found.model}{stands_in}: {found.users:,} users' purchases from {found.cut} to {found.end}",
        caption="new: without already purchased items · all: with them · ±: half of the 95 % interval",
    )
    table.add_column("")
    for column in columns:
        for name in (f"NDCG@{n}, {column}", f"recall@{n}", f"hit rate@{n}", "coverage", "novelty"):
            table.add_column(name, justify="right")
    names = list(dict.fromkeys(score.recommender for score in found.scores))
    for segment in (*SEGMENTS, NEWCOMERS):
        scores = {name: {column: found.score(name, segment, column, n) for column in columns} for name in names}
        users = {column: found.users_of(segment, column, n) for column in columns}
        if not any(users.values()):
            continue
        table.add_section()
        few = [column for column in columns if not is_telling(users[column])]
        table.add_row(f"{segment}: {max(users.values()):,}", style="bold")
        if few:
            table.add_row(f"  {TOO_FEW}" if len(few) == len(columns) else f"  {', '.join(few)}: {TOO_FEW}", style="dim")
        for name, both in scores.items():
            cells = (
                Text(cell, style="dim" if column in few else "") for column in columns for cell in _cells(both[column])
            )
            table.add_row(Text(f"  {name}", style="dim" if len(few) == len(columns) else ""), *cells)
    return table


def _cells(score: Score | None) -> list[str]:
    if score is None or not score.ndcg.users:
        return ["–"] * 5
    return [
        _with_half(score.ndcg),
        *(f"{mean.mean:.4f}" for mean in (score.recall, score.hit_rate)),
        f"{score.coverage:.3f}",
        f"{score.novelty:.2f}",
    ]


def _with_half(mean: Interval) -> str:
    return f"{mean.mean:.4f} ±{(mean.high - mean.low) / 2:.4f}"
