"""`recsys import` and `recsys publish`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from recsys.cli.columns import ReadAs, find_purchases, open_purchases, reads_purchases
from recsys.cli.lock import held_lock
from recsys.cli.output import counted, errors, prices_left_out, results, settings_for_command
from recsys.cli.summary import new_summary, print_summary
from recsys.errors import InputFileError
from recsys.files.batches import RowCounts
from recsys.files.event_file import EventFile
from recsys.files.inputs import Inputs
from recsys.files.rejects import ensure_usable
from recsys.kafka.producer import Publisher
from recsys.operations.import_history import ImportOutcome, import_file
from recsys.operations.publish import Pace, publish_paced, read_in_time_order
from recsys.redis import open_store
from recsys.runtime.clock import now
from recsys.runtime.progress import ProgressReporter
from recsys.storage.data_dir import open_data_dir

Files = Annotated[
    list[str],
    typer.Argument(
        metavar="FILE...",
        help="Purchases in CSV, JSON Lines or Parquet, also gzip, Zstandard or ZIP: files, globs, folders of Parquet, "
        "or - for standard input; with --mapping also orders with lines.",
    ),
]
Rejects = Annotated[
    Path | None,
    typer.Option("--rejects", metavar="PATH", help="File for rejected rows; default: FILE.rejects.csv in this folder."),
]


@reads_purchases
def import_command(
    files: Files,
    rejects: Rejects = None,
    as_new: Annotated[
        bool,
        typer.Option("--as-new", help="Count all purchases without event id, also those that equal imported ones."),
    ] = False,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Read the file first, and import nothing if something in it looks wrong."),
    ] = False,
    *,
    read_as: ReadAs,
) -> None:
    """Import purchases from files into archive and Redis, without Kafka; several files are one import.

    Purchases that were imported before, from these files or others, are recognized and count once: by event id, or
    else by user, item, type, quantity and time. After an interruption run the same command again. recsys imports lists
    all imports and takes one back. The next retrain makes the lists.
    """
    settings = settings_for_command()
    inputs = find_purchases(files)
    if rejects is not None:
        ensure_usable(rejects, inputs)
    purchases = open_purchases(inputs, read_as, settings, shows_summary=True)
    rejected_to = purchases.rejects_path(rejects)
    if strict:
        _ensure_nothing_suspicious(purchases)
    summary = new_summary(purchases.remedies)
    with open_store(settings) as store:
        store.connection.check()
        try:
            with held_lock(settings, store, "recsys import") as lock:
                outcome = import_file(
                    purchases,
                    open_data_dir(settings),
                    store.users,
                    rejects=rejected_to,
                    as_new=as_new,
                    progress=ProgressReporter(console=errors),
                    clock=now,
                    before_write=lock.ensure_held,
                    on_batch=summary.note_batch,
                )
        except KeyboardInterrupt:
            errors.print("interrupted; run the same command again to complete the import, nothing is counted twice")
            raise typer.Exit(130) from None
    _print_import(outcome, inputs, rejected_to)
    print_summary(inputs.name, summary, unit="row")
    if outcome.new:
        results.print("next: make the lists with recsys retrain, or python -m trainer --once")


@reads_purchases
def publish_command(
    files: Files,
    rate: Annotated[
        float | None,
        typer.Option("--rate", min=0.001, metavar="N", help="Events per second; default: as fast as possible."),
    ] = None,
    speedup: Annotated[
        float | None,
        typer.Option("--speedup", min=0.001, metavar="N", help="Publish N times faster than the purchases happened."),
    ] = None,
    rejects: Rejects = None,
    *,
    read_as: ReadAs,
) -> None:
    """Publish the purchases of files to Kafka, the oldest first.

    Rows without an event id are new events each time they are published.
    """
    if rate is not None and speedup is not None:
        raise InputFileError("--rate and --speedup cannot be used together; give one of them")
    settings = settings_for_command()
    inputs = find_purchases(files)
    if rejects is not None:
        ensure_usable(rejects, inputs)
    file = open_purchases(inputs, read_as, settings)
    rejected_to = file.rejects_path(rejects)
    events, counts = read_in_time_order(file, rejected_to)
    _ensure_some_valid(counts, inputs, rejected_to)
    progress = ProgressReporter(console=errors)
    publisher = Publisher(settings.kafka)
    try:
        with publisher, progress.stage("publish", len(events), unit="events") as advance:
            publish_paced(publisher, events, Pace(rate, speedup), advance)
            publisher.flush()  # done when all are delivered, not when all are queued
    except KeyboardInterrupt:
        errors.print(f"interrupted; the oldest {publisher.delivered:,} of {len(events):,} events are published")
        raise typer.Exit(130) from None
    results.print(f"{counted(publisher.delivered, 'event')} published to {settings.kafka.topic}")
    _print_rows({"published": publisher.delivered}, counts, rejected_to)


def _print_import(outcome: ImportOutcome, inputs: Inputs, rejected_to: Path) -> None:
    rows = outcome.rows
    _ensure_some_valid(rows, inputs, rejected_to)
    what = "row" if rows.read == rows.rows else "line"
    results.print(
        f"{counted(rows.valid, what)} imported: {outcome.new:,} new, {outcome.known:,} known before "
        f"(import {outcome.id})"
    )
    _print_rows({"new": outcome.new, "known": outcome.known}, rows, rejected_to)
    for line in _notes(outcome):
        results.print(line)


def _ensure_nothing_suspicious(purchases: EventFile) -> None:
    """Read a file to its end, and refuse it if something in it looks wrong."""
    summary = new_summary(purchases.remedies)
    with ProgressReporter(console=errors).stage(f"check {purchases.name}", purchases.rows, unit="rows") as advance:
        for batch in purchases.batches():
            summary.note_batch(batch)
            advance(batch.rows)
    if suspicions := summary.suspicions():
        print_summary(purchases.name, summary, unit="row")
        raise InputFileError(
            f"{purchases.label}: {counted(len(suspicions), 'suspicion')}, so nothing was imported; "
            f"without --strict it is imported as it is"
        )


def _notes(outcome: ImportOutcome) -> Iterator[str]:
    """Yield what should be said about the purchases that were known, or count twice."""
    if outcome.dates_only and outcome.new and outcome.alike:
        yield (
            f"note: times of this file are dates only, so {counted(outcome.alike, 'purchase')} cannot be told from "
            f"what was imported before; if the file has other purchases: recsys imports undo {outcome.id}, then import "
            f"it with --as-new"
        )
    if outcome.repeated_ids:
        rows = counted(outcome.repeated_ids, "row repeats", "rows repeat")
        yield (
            f"note: {rows} the event id of an earlier row, which alone counts; if these are other purchases, the "
            f"column of event ids holds something else, such as orders"
        )
    if outcome.like_stream:
        rows = counted(outcome.like_stream, "row of this file equals a purchase", "rows of this file equal purchases")
        yield (
            f"warning: {rows} of the topic, so that they count twice now; recsys imports undo {outcome.id} takes the "
            f"import back; leave out what the topic holds, or use ids"
        )


def _print_rows(became: dict[str, int], rows: RowCounts, rejected_to: Path) -> None:
    for equation in rows.equations(became):
        results.print(equation)
    if rows.unread_prices:
        results.print(prices_left_out(rows.unread_prices))
    if rows.rejected_rows:
        results.print(f"{counted(rows.rejected_rows, 'row')} rejected: {rejected_to} says why; mend it, and import it")


def _ensure_some_valid(rows: RowCounts, inputs: Inputs, rejected_to: Path) -> None:
    """Refuse files of which nothing can be taken."""
    if rows.valid:
        return
    see = f"; {rejected_to} says why" if rows.rejected else ""
    raise InputFileError(f"{inputs.label}: no row is a valid purchase: {'; '.join(rows.equations({}))}{see}")
