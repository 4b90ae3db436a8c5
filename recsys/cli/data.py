"""`recsys import` and `recsys publish`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from recsys.cli.columns import reads_purchases
from recsys.cli.lock import held_lock
from recsys.cli.output import errors, results, settings_for_command
from recsys.errors import InputFileError
from recsys.kafka.producer import Publisher
from recsys.operations.import_history import import_file
from recsys.operations.publish import Pace, publish_paced, read_in_time_order
from recsys.operations.purchase_files import Columns, PurchaseFile
from recsys.redis import open_store
from recsys.runtime.clock import now
from recsys.runtime.progress import ProgressReporter
from recsys.storage.data_dir import open_data_dir

File = Annotated[Path, typer.Argument(help="A .parquet or .csv file of purchases.", metavar="FILE")]
Rejects = Annotated[
    Path | None,
    typer.Option("--rejects", metavar="PATH", help="File for rejected rows; default: FILE.rejects.csv in this folder."),
]


@reads_purchases
def import_command(
    file: File,
    rejects: Rejects = None,
    *,
    columns: Columns,
) -> None:
    """Import purchases from a file into archive and Redis, without Kafka.

    Importing the same file with the same options again counts nothing twice, so after an interruption run it again.
    The next retrain makes the lists.
    """
    settings = settings_for_command()
    purchases = PurchaseFile(file, columns)
    rejects_path = _rejects_path(file, rejects)
    with open_store(settings) as store:
        store.connection.check()
        try:
            with held_lock(settings, store) as lock:
                outcome = import_file(
                    purchases,
                    open_data_dir(settings).archive,
                    store.users,
                    rejects=rejects_path,
                    progress=ProgressReporter(console=errors),
                    clock=now,
                    before_write=lock.ensure_held,
                )
        except KeyboardInterrupt:
            errors.print("interrupted; run the same command again to complete the import, nothing is counted twice")
            raise typer.Exit(130) from None
    results.print(f"{outcome.accepted:,} rows imported: {outcome.applied:,} new, {outcome.duplicates:,} known before")
    _print_rejected(outcome.rejected, rejects_path)
    if outcome.applied:
        results.print("next: make the lists with recsys retrain, or python -m trainer --once")


@reads_purchases
def publish_command(
    file: File,
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
    columns: Columns,
) -> None:
    """Publish the purchases of a file to Kafka, the oldest first.

    Rows without an event id are new events each time they are published.
    """
    if rate is not None and speedup is not None:
        raise InputFileError("--rate and --speedup cannot be used together; give one of them")
    settings = settings_for_command()
    rejects_path = _rejects_path(file, rejects)
    events, rejected = read_in_time_order(PurchaseFile(file, columns), rejects_path)
    progress = ProgressReporter(console=errors)
    publisher = Publisher(settings.kafka)
    try:
        with publisher, progress.stage("publish", len(events)) as advance:
            publish_paced(publisher, events, Pace(rate, speedup), advance)
            publisher.flush()  # done when all are delivered, not when all are queued
    except KeyboardInterrupt:
        errors.print(f"interrupted; the oldest {publisher.delivered:,} of {len(events):,} events are published")
        raise typer.Exit(130) from None
    results.print(f"{publisher.delivered:,} events published to {settings.kafka.topic}")
    _print_rejected(rejected, rejects_path)


def _rejects_path(file: Path, rejects: Path | None) -> Path:
    path = rejects or Path(f"{file.stem}.rejects.csv")
    if path.resolve() == file.resolve():
        raise InputFileError(f"--rejects: {path} is the input file; choose another file")
    return path


def _print_rejected(count: int, path: Path) -> None:
    if count:
        results.print(f"{count:,} rows rejected; they are in {path}, each with its reason")
