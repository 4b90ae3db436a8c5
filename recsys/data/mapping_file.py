"""What a mapping file may say: keys, their values, and the expressions in them.

A mapping is a TOML file with JMESPath expressions: docs/connect.md.
"""

from __future__ import annotations

from importlib import resources
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, model_validator

from recsys.data.expressions import Expression, text_in_double_quotes

SCOPE = ("value", "key", "headers", "timestamp", "topic", "cloudevent")
"""What expressions find in a record."""
OF_ORDERS = frozenset({"order"})
"""What they also find in each of its orders, where a record has several."""
OF_LINES = frozenset({"line", "number"})
"""What they also find in each of its lines."""
_PRESETS = "presets"
CONTRACT = "contract"
"""The mapping of the contract's own fields, by its name."""


def _compiled(text: object) -> object:
    if isinstance(text, Expression):
        return text
    if not isinstance(text, str):
        raise ValueError("must be a JMESPath expression in quotation marks")
    return Expression.compile(text)


def _compiled_all(texts: object) -> object:
    return [_compiled(text) for text in (texts if isinstance(texts, list) else [texts])]


One = Annotated[Expression, BeforeValidator(_compiled), PlainSerializer(lambda expression: expression.text)]
Joined = Annotated[list[One], Field(min_length=1), BeforeValidator(_compiled_all)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


class FieldExpressions(_Strict):
    """Where the fields of an event are found; several expressions of an id are joined by colons."""

    user_id: Joined
    item_id: Joined
    quantity: One | None = None
    price: One | None = None
    timestamp: One | None = None
    type: One | None = None
    event_id: Joined | None = None

    def all(self) -> dict[str, list[Expression]]:
        """Return the expressions of each field that has some."""
        found = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: value if isinstance(value, list) else [value] for name, value in found.items() if value}


class MappingFile(_Strict):
    """What a mapping file says."""

    fields: FieldExpressions
    where: One | None = None
    orders: One | None = None
    lines: One | None = None
    types: dict[str, Literal["purchase", "return", "forget", "skip"]] = {}
    negative_quantity: Literal["return", "malformed"] = "malformed"
    zero_quantity: Literal["skip", "malformed"] = "malformed"
    missing_user: Literal["skip", "malformed"] = "malformed"
    missing_item: Literal["skip", "malformed"] = "malformed"
    lines_that_are_good: Literal["wait", "count"] = "wait"
    timestamp_unit: Literal["auto", "s", "ms", "us", "ns"] = "auto"
    timezone: str = ""

    @model_validator(mode="after")
    def _names_are_known(self) -> MappingFile:
        in_orders = {*SCOPE, *(OF_ORDERS if self.orders else ())}
        in_fields = {*in_orders, *(OF_LINES if self.lines else ())}
        tops = (("where", self.where, {*SCOPE}), ("orders", self.orders, {*SCOPE}), ("lines", self.lines, in_orders))
        used = [(name, one, known) for name, one, known in tops if one is not None]
        used += [(f"fields.{name}", one, in_fields) for name, parts in self.fields.all().items() for one in parts]
        for name, expression, known in used:
            if word := text_in_double_quotes(expression.text):
                raise ValueError(
                    f"{name}: {expression.text}: what is in double quotes is a name; text needs single quotes: {word!r}"
                )
            for root in sorted(expression.roots - known):
                raise ValueError(f"{name}: {_unknown(root, expression.text, known, everywhere=in_fields)}")
        if self.orders and not self.lines:
            raise ValueError("orders: needs lines, which says where the lines of each order are")
        if self.types and self.fields.type is None:
            raise ValueError("types: needs fields.type, which says where the words are")
        if self.lines_that_are_good == "count" and self.lines and not self.fields.event_id:
            raise ValueError(
                "lines_that_are_good: count needs fields.event_id: without ids, the good lines of a record that is "
                "mended and published again would count twice"
            )
        return self


def _unknown(root: str, text: str, known: set[str], *, everywhere: set[str]) -> str:
    if root == "@":
        return f"{text}: @ is not used: begin with one of {', '.join(sorted(known))}"
    if root in OF_LINES and root not in everywhere:
        return f"{text}: there is a {root} only where lines names the lines of a record"
    if root in OF_ORDERS and root not in everywhere:
        return f"{text}: there is an {root} only where orders names the orders of a record"
    if root in everywhere:
        return f"{text}: there is no {root} yet, only {', '.join(sorted(known))}"
    meant = f": did you mean value.{text}?" if text.startswith(root) else f": did you mean value.{root}?"
    return f"{text}: begins with {root}, which is none of {', '.join(sorted(known))}{meant}"


def presets() -> list[str]:
    """Return the names of the mappings that come with this package."""
    folder = resources.files("recsys.data").joinpath(_PRESETS)
    return sorted(file.name.removesuffix(".toml") for file in folder.iterdir() if file.name.endswith(".toml"))


def preset(name: str) -> str:
    """Return the text of a mapping that comes with this package."""
    return resources.files("recsys.data").joinpath(_PRESETS, f"{name}.toml").read_text(encoding="utf-8")
