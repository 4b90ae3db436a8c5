"""`recsys show`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import typer
from pydantic import TypeAdapter, ValidationError
from rich.table import Table

from recsys.cli.output import results, settings_for_command
from recsys.errors import InputFileError, MalformedEvent
from recsys.events import Identifier
from recsys.history import History
from recsys.store import open_store

_TITLE_COLUMNS = ("title", "name", "description")


def show_command(
    user_id: Annotated[str, typer.Argument(metavar="USER_ID")],
    items: Annotated[
        Path | None,
        typer.Option(
            "--items", metavar="FILE", help="A .parquet or .csv file with item_id and title, name or description."
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
            f"{user_id[:40]!r} can be no user id: 1 to 256 characters, no control characters"
        ) from None
    titles = _read_titles(items) if items else {}
    with open_store(settings) as store:
        store.users.ensure_can_hold(user_id)
        state = store.users.read([user_id])[user_id]
        published = store.users.lists([user_id])[0]
        popular = store.shared.popular() if published is None else None
    if state.revision == 0 and not state.history.item_ids:
        results.print(f"user {user_id} is unknown: no purchase has been applied yet", markup=False)
    else:
        results.print(_history_table(user_id, state.history, titles, n))
    shown = published or popular
    if shown is None:
        results.print("no list: no model has been published yet")
        return
    title = f"Recommended to {user_id}" if published else "No list of their own; apps show the popular one"
    table = Table(title=f"{title} (model {shown['model']}, {shown['generated_at']})", title_justify="left")
    table.add_column("#", justify="right")
    table.add_column("item")
    if titles:
        table.add_column("title")
    table.add_column("score", justify="right")
    for place, entry in enumerate(shown["items"][:n], start=1):
        name = [titles.get(entry["item_id"], "")] if titles else []
        table.add_row(str(place), entry["item_id"], *name, f"{entry['score']:.4f}")
    results.print(table)


def _history_table(user_id: str, history: History, titles: dict[str, str], n: int) -> Table:
    rows = sorted(
        zip(history.item_ids, history.quantities.tolist(), history.last_event_s.tolist(), strict=True),
        key=lambda row: (-row[2], row[0]),
    )
    more = f", newest {n} of {len(rows)}" if len(rows) > n else ""
    table = Table(title=f"History of {user_id}{more}", title_justify="left")
    table.add_column("item")
    if titles:
        table.add_column("title")
    table.add_column("net quantity", justify="right")
    table.add_column("last event (UTC)")
    for item, quantity, last in rows[:n]:
        name = [titles.get(item, "")] if titles else []
        when = datetime.fromtimestamp(last, UTC).strftime("%Y-%m-%d %H:%M:%S")
        table.add_row(item, *name, f"{quantity:g}" + ("" if quantity > 0 else " (not owned)"), when)
    return table


def _read_titles(path: Path) -> dict[str, str]:
    """Return item id → title."""
    try:
        if path.suffix.lower() == ".parquet":
            table = pq.read_table(path)
        else:
            names = pyarrow.csv.open_csv(path).schema.names
            strings = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()))
            table = pyarrow.csv.read_csv(path, convert_options=strings)
    except (OSError, pa.ArrowException) as error:
        raise InputFileError(f"{path}: cannot be read: {error}") from error
    title = next((name for name in _TITLE_COLUMNS if name in table.column_names), None)
    if "item_id" not in table.column_names or title is None:
        raise InputFileError(
            f"{path}: columns item_id and one of {', '.join(_TITLE_COLUMNS)} are needed; "
            f"it has {', '.join(table.column_names)}"
        )
    ids, titles = table["item_id"].to_pylist(), table[title].to_pylist()
    return {str(item): str(name).strip() for item, name in zip(ids, titles, strict=True) if name is not None}
