"""`recsys imports`: which files were imported, and taking one back."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Annotated

import typer
from rich.table import Table

from recsys.cli.lock import held_lock
from recsys.cli.output import counted, errors, is_narrow, new_table, results, settings_for_command
from recsys.operations.undo_import import imports, undo_import
from recsys.redis import open_store
from recsys.runtime.clock import now
from recsys.runtime.progress import ProgressReporter
from recsys.storage.data_dir import open_data_dir
from recsys.storage.imports import ImportRecord

imports_app = typer.Typer(help="List imports, and take one back.", add_completion=False, rich_markup_mode=None)


@imports_app.command("list")
def list_command() -> None:
    """List the imports that the archive holds, the oldest first."""
    data_dir = open_data_dir(settings_for_command())
    found = imports(data_dir)
    undoing = {undoing.id for undoing in data_dir.imports.undoing()}
    if not found and not undoing:
        results.print("nothing was imported; recsys import FILE does that")
        return
    results.print(imports_table(found, undoing))
    for import_id in sorted(undoing - {record.id for record in found}):
        results.print(f"the undo of {import_id} was interrupted; run recsys imports undo {import_id} again")


@imports_app.command("undo")
def undo_command(
    import_id: Annotated[str, typer.Argument(metavar="ID", help="The import, as recsys imports list shows it.")],
    accept_loss: Annotated[
        bool, typer.Option("--accept-loss", help="Continue although not everything of its users can be restored.")
    ] = False,
) -> None:
    """Take an import back, as if it had never been made; consumers may run meanwhile.

    Its purchases leave the archive, and the histories and lists of its users are made again from what is left. Run it
    again if it is interrupted. The live model has still learned from the purchases, until the next retrain.
    """
    settings = settings_for_command()
    with open_store(settings) as store:
        store.connection.check()
        try:
            with held_lock(settings, store, "recsys imports undo") as lock:
                undone = undo_import(
                    settings,
                    store,
                    open_data_dir(settings),
                    ProgressReporter(console=errors),
                    import_id,
                    clock=now,
                    before_write=lock.ensure_held,
                    accept_loss=accept_loss,
                )
        except KeyboardInterrupt:
            errors.print(f"interrupted; run recsys imports undo {import_id} again to complete it")
            raise typer.Exit(130) from None
    results.print(
        f"{counted(undone.purchases, 'purchase')} removed; {counted(undone.users, 'user')} made again from what is left"
    )
    for record in undone.relying:
        results.print(f"import {record.file} again (import {record.id}): it held some of these purchases as well")
    results.print("next: make a model without them with recsys retrain, or python -m trainer --once")


def imports_table(found: Iterable[ImportRecord], undoing: Collection[str]) -> Table:
    """Return the imports, and which of them are on their way out."""
    names = ("rows", "new") if is_narrow() else ("rows", "new", "known", "rejected", "skipped")
    caption = "new: purchases that count because of the import"
    if is_narrow():
        caption += "\nnot shown below 150 characters: known, rejected, skipped"
    table = new_table(caption=caption)
    table.add_column("import", no_wrap=True)
    table.add_column("started (UTC)", no_wrap=True)
    table.add_column("file", overflow="fold")
    for name in names:
        table.add_column(name, justify="right")
    for record in found:
        state = " (undo interrupted)" if record.id in undoing else "" if record.finished_at else " (interrupted)"
        counts = (record.read, record.new, record.known, record.rejected, record.no_user + record.left_out)
        cells = [f"{count:,}" if record.read else "–" for count in counts[: len(names)]]
        table.add_row(record.id, record.started_at[:16].replace("T", " "), record.file + state, *cells)
    return table
