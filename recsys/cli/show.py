"""`recsys show`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import TypeAdapter, ValidationError
from rich.table import Table

from recsys.cli.output import is_narrow, new_table, results, settings_for_command
from recsys.data.event import UNITS_PER_QUANTITY, Identifier
from recsys.data.history import History
from recsys.errors import MalformedEvent
from recsys.files.items import ItemColumns, read_items
from recsys.operations.histories import ensure_histories
from recsys.redis import open_store
from recsys.storage.data_dir import open_data_dir


def show_command(
    user_id: Annotated[str, typer.Argument(metavar="USER_ID")],
    items: Annotated[
        Path | None,
        typer.Option(
            "--items",
            metavar="FILE",
            help="A .parquet or .csv file with item_id and title; default: the imported items.",
        ),
    ] = None,
    n: Annotated[int, typer.Option("--n", min=1, metavar="N", help="Rows of each table.")] = 20,
) -> None:
    """Show a user's history, newest first, and list, best first."""
    settings = settings_for_command()
    try:
        TypeAdapter(Identifier).validate_python(user_id)
    except ValidationError:
        raise MalformedEvent(
            f"{user_id[:40]!r} is not a valid user id: use 1 to 256 characters, no control characters"
        ) from None
    titles = read_items(items, ItemColumns()).catalogue.titles() if items else {}
    with open_store(settings) as store:
        store.users.ensure_can_hold(user_id)
        state = store.users.read([user_id])[user_id]
        published = store.users.lists([user_id])[0]
        popular = store.item_lists.popular() if published is None else None
        again = store.users.again_lists([user_id])[0]
        if not titles:
            shown_lists = [one for one in (published, popular, again) if one]
            listed = {entry["item_id"] for one in shown_lists for entry in one["items"]}
            titles = store.catalogue.titles(sorted(listed | state.history.entries.keys()))
        if published is None and popular is None and state.revision == 0:
            ensure_histories(settings, store, open_data_dir(settings))
    if state.revision == 0 and not state.history.entries:
        results.print(f"user {user_id} is unknown: no purchase has been applied yet", markup=False)
    else:
        results.print(history_table(user_id, state.history, titles, n))
    shown = published or popular
    if shown is None:
        results.print("no list: no model has been published yet")
        return
    title = f"Recommended to {user_id}" if published else "No own list; apps show the popular list"
    results.print(list_table(f"{title} (model {shown['model']}, {shown['generated_at']})", shown, titles, n))
    if again is not None:
        results.print(list_table(f"What {user_id} may buy again", again, titles, n))


def list_table(title: str, shown: dict[str, Any], titles: dict[str, str], n: int) -> Table:
    """Return a list as apps see it, best first."""
    table = new_table(title)
    table.add_column("#", justify="right")
    table.add_column("item")
    if titles:
        table.add_column("title")
    table.add_column("score", justify="right")
    for place, entry in enumerate(shown["items"][:n], start=1):
        name = [titles.get(entry["item_id"], "")] if titles else []
        table.add_row(str(place), entry["item_id"], *name, f"{entry['score']:.4f}")
    return table


def history_table(user_id: str, history: History, titles: dict[str, str], n: int) -> Table:
    """Return what a user bought, newest first."""
    rows = sorted(history.entries.items(), key=lambda row: (-row[1].newest_s, row[0]))
    more = f", newest {n} of {len(rows)}" if len(rows) > n else ""
    table = new_table(f"History of {user_id}{more}")
    table.add_column("item")
    if titles:
        table.add_column("title")
    table.add_column("quantity" if is_narrow() else "net quantity", justify="right")
    if not is_narrow():
        table.add_column("purchases", justify="right")
    table.add_column("last event (UTC)")
    for item, entry in rows[:n]:
        name = [titles.get(item, "")] if titles else []
        quantity = f"{entry.units / UNITS_PER_QUANTITY:g}" + ("" if entry.units > 0 else " (not owned)")
        when = datetime.fromtimestamp(entry.newest_s, UTC).strftime("%Y-%m-%d %H:%M:%S")
        table.add_row(item, *name, quantity, *([] if is_narrow() else [str(entry.purchases)]), when)
    return table
