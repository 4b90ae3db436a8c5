"""Options that say how to read files of purchases or orders: the same for every command that reads them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from typing import Annotated, Any, get_type_hints

import typer

from recsys.cli.output import errors
from recsys.errors import ColumnMissing, InputFileError
from recsys.files.columns import DEFAULTS, EVENT_FIELDS, Columns
from recsys.files.event_file import EventFile
from recsys.files.inputs import Inputs, find_inputs
from recsys.files.mapped import MappedFile
from recsys.files.purchases import PurchaseFile
from recsys.files.tables import CsvForm
from recsys.kafka.readings import event_reading, load_mapping
from recsys.runtime.clock import now
from recsys.runtime.progress import ProgressReporter, Stage, no_stage
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


_MAPPING = Annotated[
    str,
    typer.Option(
        "--mapping",
        metavar="NAME",
        help="Read each row as a record of a topic, such as an order with its lines: a preset or a TOML file.",
    ),
]
_WITH_MAPPING = frozenset({"no_user", "encoding", "delimiter"})
"""What a mapping does not say."""


@dataclass(frozen=True, slots=True)
class ReadAs:
    """How a command was told to read files.

    Attributes
    ----------
    columns : Columns
    mapping : str
        A preset or a file; empty: each field has a column.
    given : tuple of str
        The fields of `Columns` that the operator has named, be it with the value that they have anyway.
    """

    columns: Columns
    mapping: str = ""
    given: tuple[str, ...] = ()

    def flags(self) -> list[str]:
        """Return the options that were given, the mapping aside."""
        return [self._flag(name) for name in self.given]

    def ensure_possible(self) -> None:
        """Refuse options that say what a mapping says.

        Raises
        ------
        InputFileError
        """
        for name in self.given if self.mapping else ():
            if name not in _WITH_MAPPING:
                raise InputFileError(
                    f"{self._flag(name)} and --mapping cannot be used together: the mapping says where fields are and "
                    f"how they are read"
                )

    def or_mapping(self, mapping: str) -> ReadAs:
        """Return this with a mapping, unless there is one, or options that say what a mapping says."""
        says_itself = not _WITH_MAPPING.issuperset(self.given)
        return self if self.mapping or says_itself else replace(self, mapping=mapping)

    def _flag(self, name: str) -> str:
        """Return the option of a field of `Columns`, as it was given."""
        words = name.replace("_", "-")
        if name in EVENT_FIELDS:
            return f"--{words}-column"
        return f"--no-{words}" if getattr(self.columns, name) is False else f"--{words}"


def reads_purchases(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command these options; it gets what they say as the argument ``read_as``."""

    @wraps(command)
    def with_options(context: typer.Context, **given: Any) -> None:
        mapping = given.pop("mapping")
        options = {name: given.pop(name) for name in _OPTIONS}
        named = tuple(name for name in _OPTIONS if _is_named(context, name))
        read_as = ReadAs(Columns(**options | {"no_user": tuple(options["no_user"])}), mapping, named)
        read_as.ensure_possible()
        command(read_as=read_as, **given)

    hints = get_type_hints(command, include_extras=True)
    own = [p for p in inspect.signature(command).parameters.values() if p.name != "read_as"]
    defaults = DEFAULTS | {"no_user": [], "mapping": ""}
    parameters = [inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)]
    parameters += [inspect.Parameter(p.name, p.KEYWORD_ONLY, default=p.default, annotation=hints[p.name]) for p in own]
    parameters += [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=defaults[name], annotation=option)
        for name, option in ({"mapping": _MAPPING} | _OPTIONS).items()
    ]
    with_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_options.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return with_options


def _is_named(context: typer.Context, option: str) -> bool:
    source = context.get_parameter_source(option)
    return source is not None and source.name == "COMMANDLINE"


def find_purchases(given: Sequence[str]) -> Inputs:
    """Find the files that a command was told to read; standard input is read to its end.

    Raises
    ------
    InputFileError
        When one cannot be found.
    """
    return find_inputs(given, ProgressReporter(console=errors).stage)


def open_purchases(inputs: Inputs, read_as: ReadAs, settings: Settings, *, shows_summary: bool = False) -> EventFile:
    """Open files, read them once, and say how their columns are read; see `open_file`.

    Raises
    ------
    InputFileError
        When they cannot be read, or hold no row.
    """
    file = open_file(inputs, read_as, settings, shows_summary=shows_summary)
    if not file.rows:
        raise InputFileError(f"{inputs.label}: there is a header and no row")
    return file


def open_file(inputs: Inputs, read_as: ReadAs, settings: Settings, *, shows_summary: bool = False) -> EventFile:
    """Open files, and say how their columns are read; to tell that, those of purchases are read once.

    Users who may be no customers are named here, unless the command ``shows_summary``, in which they are.

    Raises
    ------
    InputFileError
        When they cannot be read.
    """
    stage = ProgressReporter(console=errors).stage if inputs.size > _LARGE_BYTES else no_stage
    file = _file(inputs, read_as, settings, stage)
    for remark in file.remarks if shows_summary else [*file.remarks, *file.frequent_users]:
        errors.print(f"note: {remark}", markup=False)
    return file


def _file(inputs: Inputs, read_as: ReadAs, settings: Settings, stage: Stage) -> EventFile:
    columns, events = read_as.columns, event_reading(settings.events)
    if not read_as.mapping:
        try:
            return PurchaseFile(inputs, columns, events=events, now=now(), stage=stage)
        except ColumnMissing as error:
            if not settings.events.mapping:
                raise
            raise InputFileError(
                f"{error}, or read the rows as services read records, with --mapping {settings.events.mapping}"
            ) from None
    try:
        mapping = load_mapping(read_as.mapping)
    except InputFileError as error:
        raise InputFileError(f"--mapping: {error}") from None
    return MappedFile(
        inputs,
        mapping,
        form=CsvForm(columns.encoding, columns.delimiter),
        events=replace(events, no_user=events.no_user | {word.lower() for word in columns.no_user}),
        now=now(),
        is_wrapped=settings.events.envelope == "cloudevents",
        stage=stage,
    )
