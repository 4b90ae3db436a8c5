"""Options that say how to read a file of purchases."""

from __future__ import annotations

from typing import Annotated

import typer

UserColumn = Annotated[str, typer.Option("--user-id-column", metavar="NAME", help="Column with the user id.")]
ItemColumn = Annotated[str, typer.Option("--item-id-column", metavar="NAME", help="Column with the item id.")]
QuantityColumn = Annotated[
    str, typer.Option("--quantity-column", metavar="NAME", help="Column with the quantity; 1 if absent.")
]
TimestampColumn = Annotated[str, typer.Option("--timestamp-column", metavar="NAME", help="Column with the time.")]
PriceColumn = Annotated[str, typer.Option("--price-column", metavar="NAME", help="Column with the price of one unit.")]
EventIdColumn = Annotated[
    str, typer.Option("--event-id-column", metavar="NAME", help="Column that identifies a row for good.")
]
TypeColumn = Annotated[
    str, typer.Option("--type-column", metavar="NAME", help="Column with purchase, return or forget.")
]
Timezone = Annotated[
    str, typer.Option("--timezone", metavar="ZONE", help="Zone of times that carry none, e.g. Europe/London.")
]
TimestampFormat = Annotated[
    str,
    typer.Option("--timestamp-format", metavar="FORMAT", help="strptime format of times in text; default ISO 8601."),
]
NegativeReturns = Annotated[
    bool, typer.Option("--negative-returns", help="Read a negative quantity as a return; else such rows are rejected.")
]
Encoding = Annotated[str, typer.Option("--encoding", metavar="NAME", help="Encoding of a CSV file.")]
Delimiter = Annotated[str, typer.Option("--delimiter", metavar="C", help="Between the fields of a CSV file.")]
