"""`recsys items`: titles, categories and availability of items."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from recsys.cli.lock import held_lock
from recsys.cli.output import errors, results, settings_for_command
from recsys.operations.item_files import ItemColumns, import_items, read_items
from recsys.redis import open_store
from recsys.storage.data_dir import open_data_dir

items_app = typer.Typer(
    help="Import titles, categories and availability of items.", add_completion=False, rich_markup_mode=None
)
_SHOWN = 10


@items_app.callback()
def items() -> None:
    """Import titles, categories and availability of items."""


@items_app.command("import")
def import_items_command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .parquet or .csv file of items.")],
    item_id_column: Annotated[str, typer.Option("--item-id-column", metavar="NAME")] = "item_id",
    title_column: Annotated[
        str,
        typer.Option("--title-column", metavar="NAME", help="Default: title, name or description, if there is one."),
    ] = "",
    category_column: Annotated[
        str, typer.Option("--category-column", metavar="NAME", help="Default: category, if there is one.")
    ] = "",
    available_column: Annotated[
        str,
        typer.Option(
            "--available-column", metavar="NAME", help="Column with true or false; default: available, if there is one."
        ),
    ] = "",
) -> None:
    """Import titles, categories and availability of items from a file; items that it does not name do not change.

    Lists that are computed from now on hold no item that is not available. The next retrain writes the popular lists
    of categories, and all lists.
    """
    found, rejected = read_items(file, ItemColumns(item_id_column, title_column, category_column, available_column))
    settings = settings_for_command()
    with open_store(settings) as store, held_lock(settings, store):
        catalogue = import_items(found, open_data_dir(settings), store)
    categories = set(catalogue.categories().values())
    results.print(
        f"{len(found.items):,} items imported; the catalogue has {len(catalogue.items):,}, in {len(categories):,} "
        f"categories, {len(catalogue.unavailable()):,} of them not available"
    )
    for one in rejected[:_SHOWN]:
        errors.print(f"row {one.row:,}: {one.reason}", markup=False)
    if rejected:
        errors.print(f"{len(rejected):,} rows rejected")
        raise typer.Exit(0 if found.items else 1)
