"""JMESPath expressions over a record (https://jmespath.org), compiled once and evaluated for each record or line."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import jmespath
from jmespath.exceptions import JMESPathError
from jmespath.functions import Functions

Scope = dict[str, Any]
Evaluate = Callable[[Scope], Any]
EVERY_NAME: Final = "*"
_LONGEST_SHOWN = 100
_COMPARED_WITH_A_NAME = re.compile(r"""[=!]=\s*"([^"\\]*)"(?!\s*[.\[])""")


@dataclass(frozen=True, slots=True)
class Expression:
    """A compiled expression.

    Attributes
    ----------
    text : str
        As it was written.
    evaluate : callable
        Returns what the expression finds in a scope, None where nothing is; raises ValueError where it cannot be
        evaluated, as when a function gets a value of another type.
    roots : frozenset of str
        The names of the scope that it uses.
    needs : frozenset of str
        Those of them without which it finds nothing: not what it looks at if something else is absent.
    names : frozenset of str
        All names in it, at whatever place; `EVERY_NAME` among them if it looks at others as well.
    """

    text: str
    evaluate: Evaluate
    roots: frozenset[str]
    names: frozenset[str] = frozenset()
    needs: frozenset[str] = frozenset()

    @classmethod
    def compile(cls, text: str) -> Expression:
        """Compile an expression.

        Raises
        ------
        ValueError
            When it is none.
        """
        try:
            compiled = jmespath.compile(text)
            tree = compiled.parsed
            _ensure_functions_exist(tree)
            direct, roots, names = _direct(tree), frozenset(_roots(tree)), frozenset(_names(tree))
            needs = _needs(tree)
        except (JMESPathError, RecursionError) as error:
            why = "it is nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())
            shown = text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"
            raise ValueError(f"{shown!r} is no JMESPath expression: {why[:_LONGEST_SHOWN]}") from None

        def searched(scope: Scope) -> Any:
            try:
                return compiled.search(scope)
            except (JMESPathError, ArithmeticError, TypeError, RecursionError) as error:
                raise ValueError(f"{text}: {' '.join(str(error).split())}") from None

        return cls(text, direct or searched, roots, names, needs)


def text_in_double_quotes(text: str) -> str:
    """Return what an expression compares with and has in double quotes, which JMESPath takes for a name; or nothing."""
    found = _COMPARED_WITH_A_NAME.search(text)
    return found[1] if found else ""


def is_false(value: Any) -> bool:
    """Whether JMESPath takes a value for false: null, false, and what is empty; 0 is true."""
    return value is None or value is False or (isinstance(value, str | list | dict) and not value)


def _ensure_functions_exist(tree: Mapping[str, Any]) -> None:
    """Refuse a function that there is none, or with another number of arguments than it takes: it would never work."""
    if tree["type"] == "function_expression":
        name, given = tree["value"], len(tree["children"])
        known = Functions.FUNCTION_TABLE.get(name)
        if known is None:
            raise ValueError(f"{name}() is no function of JMESPath")
        takes = known["signature"]
        is_variadic = bool(takes) and bool(takes[-1].get("variadic"))
        if given < len(takes) or (given > len(takes) and not is_variadic):
            raise ValueError(f"{name}() takes {len(takes)}{' or more' if is_variadic else ''} arguments, not {given}")
    for child in tree["children"]:
        if isinstance(child, dict):  # a slice has numbers
            _ensure_functions_exist(child)


def _roots(tree: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names that an expression looks up in the scope itself, ``@`` for the whole scope."""
    kind, children = tree["type"], tree["children"]
    if kind == "field":
        yield tree["value"]
    elif kind == "current":
        yield "@"
    elif kind in _AT_THE_LEFT:
        yield from _roots(children[0])
    elif kind == "expref":  # & in a function: looked up in the elements that the function goes through
        return
    else:  # all parts are looked up in the same place
        for child in children:
            yield from _roots(child)


def _needs(tree: Mapping[str, Any]) -> frozenset[str]:
    """Return the names of the scope without which an expression finds nothing."""
    kind, children = tree["type"], tree["children"]
    if kind == "or_expression" or (kind == "function_expression" and tree["value"] == "not_null"):
        return frozenset.intersection(*map(_needs, children))
    if kind in _AT_THE_LEFT:
        return _needs(children[0])
    if kind in ("field", "expref"):
        return frozenset(_roots(tree))
    return frozenset[str]().union(*map(_needs, children))


def _names(tree: Mapping[str, Any]) -> Iterator[str]:
    """Yield all names that an expression looks up, wherever, and ``*`` if it looks at all that something holds."""
    kind, children = tree["type"], tree["children"]
    if kind == "field":
        yield tree["value"]
    if kind == "value_projection" or (kind == "function_expression" and any(map(_is_whole, children))):
        yield EVERY_NAME
    for child in children:
        if isinstance(child, dict):  # a slice has numbers
            yield from _names(child)


def _is_whole(argument: Mapping[str, Any]) -> bool:
    return argument["type"] in ("field", "current")


_AT_THE_LEFT = frozenset(
    {"subexpression", "index_expression", "pipe", "projection", "filter_projection", "value_projection"}
)
"""In these what follows is looked up in what the first part has found."""


def _direct(tree: Mapping[str, Any]) -> Evaluate | None:
    """Return a function that does without jmespath's interpreter, for what nearly all mappings consist of: paths."""
    kind, children = tree["type"], tree["children"]
    value: Any = tree.get("value")
    if kind == "literal":
        return lambda scope: value
    if kind == "field":
        return lambda scope: scope.get(value)
    if kind in ("subexpression", "index_expression"):
        first, steps = _direct(children[0]), [_step(child) for child in children[1:]]
        if first is None or None in steps:
            return None
        return _path(first, [step for step in steps if step is not None])
    if kind in _OF_TWO:
        left, right = map(_direct, children)
        return _OF_TWO[kind](left, right) if left and right else None
    if kind == "comparator" and value in ("eq", "ne"):
        left, right = map(_direct, children)
        return _compared(left, right, equal=value == "eq") if left and right else None
    if kind == "not_expression":
        inner = _direct(children[0])
        return (lambda scope: is_false(inner(scope))) if inner else None
    return None


def _step(tree: Mapping[str, Any]) -> Callable[[Any], Any] | None:
    """Return what looks up one part of a path in what the parts before have found."""
    kind, children = tree["type"], tree["children"]
    value: Any = tree.get("value")
    if kind == "field":
        return lambda found: found.get(value) if type(found) is dict else None
    if kind == "index":

        def at(found: Any) -> Any:
            return found[value] if type(found) is list and -len(found) <= value < len(found) else None

        return at
    if kind == "index_expression":
        steps = [_step(child) for child in children]
        if None not in steps:
            return _path(None, [step for step in steps if step is not None])
    return None


def _path(first: Evaluate | None, steps: list[Callable[[Any], Any]]) -> Callable[[Any], Any]:
    if first is not None and len(steps) == 1:
        step = steps[0]
        return lambda scope: step(first(scope))

    def followed(scope: Any) -> Any:
        found = scope if first is None else first(scope)
        for step in steps:
            found = step(found)
        return found

    return followed


def _either(left: Evaluate, right: Evaluate) -> Evaluate:
    def first_true(scope: Scope) -> Any:
        found = left(scope)
        return right(scope) if is_false(found) else found

    return first_true


def _both(left: Evaluate, right: Evaluate) -> Evaluate:
    def first_false(scope: Scope) -> Any:
        found = left(scope)
        return found if is_false(found) else right(scope)

    return first_false


_OF_TWO = {"or_expression": _either, "and_expression": _both}


def _compared(left: Evaluate, right: Evaluate, *, equal: bool) -> Evaluate:
    def are_so(scope: Scope) -> bool:
        one, other = left(scope), right(scope)
        # In JSON true is not 1, in Python it is.
        return (one == other and isinstance(one, bool) == isinstance(other, bool)) is equal

    return are_so
