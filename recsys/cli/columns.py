"""Options that say how to read a file of purchases: the same for every command that reads one."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields
from functools import wraps
from typing import Annotated, Any, get_type_hints

import typer

from recsys.operations.purchase_files import Columns


def _column(flag: str, meaning: str) -> Any:
    return Annotated[str, typer.Option(flag, metavar="NAME", help=meaning)]


_OPTIONS = {
    "user_id": _column("--user-id-column", "Column with the user id."),
    "item_id": _column("--item-id-column", "Column with the item id."),
    "quantity": _column("--quantity-column", "Column with the quantity; without it, 1."),
    "timestamp": _column("--timestamp-column", "Column with the time."),
    "price": _column("--price-column", "Column with the price of one unit."),
    "event_id": _column("--event-id-column", "Column with a unique id of the event."),
    "type": _column("--type-column", "Column with purchase, return or forget."),
    "timezone": Annotated[
        str, typer.Option("--timezone", metavar="ZONE", help="Time zone of times that have none, e.g. Europe/London.")
    ],
    "timestamp_format": Annotated[
        str,
        typer.Option("--timestamp-format", metavar="FORMAT", help="strptime format of times; default: ISO 8601."),
    ],
    "negative_returns": Annotated[
        bool,
        typer.Option(
            "--negative-returns", help="Read a negative quantity as a return; without it such rows are rejected."
        ),
    ],
    "encoding": Annotated[str, typer.Option("--encoding", metavar="NAME", help="Encoding of a CSV file.")],
    "delimiter": Annotated[str, typer.Option("--delimiter", metavar="C", help="Delimiter of a CSV file.")],
}
"""Field of `Columns` → option."""


def reads_purchases(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command these options; it gets what they say as the argument ``columns``."""

    @wraps(command)
    def with_columns(**given: Any) -> None:
        columns = Columns(**{name: given.pop(name) for name in _OPTIONS})
        command(columns=columns, **given)

    hints = get_type_hints(command, include_extras=True)
    own = [p for p in inspect.signature(command).parameters.values() if p.name != "columns"]
    defaults = {field.name: field.default for field in fields(Columns)}
    parameters = [inspect.Parameter(p.name, p.KEYWORD_ONLY, default=p.default, annotation=hints[p.name]) for p in own]
    parameters += [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=defaults[name], annotation=option)
        for name, option in _OPTIONS.items()
    ]
    with_columns.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_columns.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return with_columns
