"""`recsys items`: titles, categories and availability of items."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from recsys.cli.lock import held_lock
from recsys.cli.output import counted, errors, results, settings_for_command
from recsys.errors import InputFileError
from recsys.files.inputs import find_inputs
from recsys.files.items import ItemColumns, read_items
from recsys.files.rejects import RejectsFile, rejects_path
from recsys.files.tables import CsvForm
from recsys.operations.import_items import import_items
from recsys.redis import open_store
from recsys.storage.data_dir import open_data_dir

items_app = typer.Typer(
    help="Import titles, categories and availability of items.", add_completion=False, rich_markup_mode=None
)


@items_app.callback()
def items() -> None:
    """Import titles, categories and availability of items."""


@items_app.command("import")
def import_items_command(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE", help="Items in CSV, JSON Lines or Parquet, also packed, or - for standard input."
        ),
    ],
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
            "--available-column",
            metavar="NAME",
            help="Column with true, false or the number in stock; default: available, if there is one.",
        ),
    ] = "",
    integer_ids: Annotated[
        bool | None,
        typer.Option(
            "--integer-ids/--no-integer-ids",
            help="Read ids such as 17850.0 as 17850; default: if all ids of the column are such.",
        ),
    ] = None,
    encoding: Annotated[str, typer.Option("--encoding", metavar="NAME", help="Encoding of a CSV file.")] = "utf8",
    delimiter: Annotated[
        str, typer.Option("--delimiter", metavar="C", help="Delimiter of a CSV file; \\t for a tab.")
    ] = ",",
    rejects: Annotated[
        Path | None,
        typer.Option("--rejects", metavar="PATH", help="File for rejected rows; default: FILE.rejects.csv here."),
    ] = None,
) -> None:
    """Import titles, categories and availability of items from a file; items that it does not name do not change.

    Lists that are computed from now on hold no item that is not available. The next retrain writes the popular lists
    of categories, and all lists.
    """
    inputs = find_inputs([file])
    rejected_to = rejects_path(inputs, rejects)
    columns = ItemColumns(item_id_column, title_column, category_column, available_column)
    found = read_items(inputs, columns, CsvForm(encoding, delimiter), integer_ids=integer_ids)
    for remark in found.remarks:
        errors.print(f"note: {remark}")
    with RejectsFile(rejected_to, found.table) as rejected:
        rejected.add(found.rejects)
    see = f"; {rejected_to} says why; mend it, and import it" if found.rejects else ""
    equation = f"{counted(found.rows, 'row')} read = {found.valid:,} valid + {len(found.rejects):,} rejected"
    if not found.valid:
        raise InputFileError(f"{inputs.label}: no row is a valid item: {equation}{see}")
    settings = settings_for_command()
    with open_store(settings) as store, held_lock(settings, store, "recsys items import"):
        catalogue = import_items(found.catalogue, open_data_dir(settings), store)
    categories = set(catalogue.categories().values())
    results.print(
        f"{counted(len(found.catalogue.items), 'item')} imported; the catalogue has {len(catalogue.items):,}, in "
        f"{counted(len(categories), 'category', 'categories')}, {len(catalogue.unavailable()):,} of them not available"
    )
    results.print(f"{equation}{see}")
