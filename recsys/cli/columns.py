"""Options that say how to read a file of purchases: the same for every command that reads one."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import wraps
from typing import Annotated, Any, get_type_hints

import typer

from recsys.cli.output import errors
from recsys.errors import InputFileError
from recsys.files.columns import Columns
from recsys.files.inputs import Inputs, find_inputs
from recsys.files.purchases import PurchaseFile
from recsys.kafka.decoder import event_reading
from recsys.runtime.clock import now
from recsys.runtime.progress import ProgressReporter, no_stage
from recsys.settings import Settings

_LARGE_BYTES = 10_000_000
"""A file of this size takes a second or two to look through: longer than one waits without a word."""


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
    "timestamp_unit": Annotated[
        str,
        typer.Option(
            "--timestamp-unit",
            metavar="UNIT",
            help="Unit of numbers since 1970: s, ms, us or ns; default: the only one that fits.",
        ),
    ],
    "decimal": Annotated[
        str,
        typer.Option("--decimal", metavar="C", help="Decimal mark, . or ,; default: as the column shows."),
    ],
    "thousands": Annotated[
        str, typer.Option("--thousands", metavar="C", help="Mark between thousands, such as . or ,; default: none.")
    ],
    "integer_ids": Annotated[
        bool | None,
        typer.Option(
            "--integer-ids/--no-integer-ids",
            help="Read ids such as 17850.0 as 17850; default: if all ids of the column are such.",
        ),
    ],
    "no_user": Annotated[
        list[str],
        typer.Option(
            "--no-user",
            metavar="ID",
            help="An id that is no customer, such as that of guests: its rows are skipped; may be given several times.",
        ),
    ],
    "every_user": Annotated[
        bool,
        typer.Option("--every-user", help="Take ids such as 0 and NULL for customers; without it they are skipped."),
    ],
    "negative_returns": Annotated[
        bool,
        typer.Option(
            "--negative-returns", help="Read a negative quantity as a return; without it such rows are rejected."
        ),
    ],
    "encoding": Annotated[str, typer.Option("--encoding", metavar="NAME", help="Encoding of a CSV file.")],
    "delimiter": Annotated[
        str, typer.Option("--delimiter", metavar="C", help="Delimiter of a CSV file; \\t for a tab.")
    ],
}
"""Field of `Columns` → option."""


def reads_purchases(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command these options; it gets what they say as the argument ``columns``."""

    @wraps(command)
    def with_columns(**given: Any) -> None:
        options = {name: given.pop(name) for name in _OPTIONS}
        columns = Columns(**options | {"no_user": tuple(options["no_user"])})
        command(columns=columns, **given)

    hints = get_type_hints(command, include_extras=True)
    own = [p for p in inspect.signature(command).parameters.values() if p.name != "columns"]
    defaults = {field.name: field.default for field in fields(Columns)} | {"no_user": []}
    parameters = [inspect.Parameter(p.name, p.KEYWORD_ONLY, default=p.default, annotation=hints[p.name]) for p in own]
    parameters += [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=defaults[name], annotation=option)
        for name, option in _OPTIONS.items()
    ]
    with_columns.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_columns.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return with_columns


def find_purchases(given: Sequence[str]) -> Inputs:
    """Find the files that a command was told to read; standard input is read to its end.

    Raises
    ------
    InputFileError
        When one cannot be found.
    """
    return find_inputs(given, ProgressReporter(console=errors).stage)


def open_purchases(inputs: Inputs, columns: Columns, settings: Settings) -> PurchaseFile:
    """Open files of purchases, read them once, and say how their columns are read.

    Raises
    ------
    InputFileError
        When it cannot be read.
    """
    stage = ProgressReporter(console=errors).stage if inputs.size > _LARGE_BYTES else no_stage
    file = PurchaseFile(inputs, columns, events=event_reading(settings.events), now=now(), stage=stage)
    if not file.rows:
        raise InputFileError(f"{inputs.label}: there is a header and no row")
    for remark in file.remarks:
        errors.print(f"note: {remark}", markup=False)
    return file
