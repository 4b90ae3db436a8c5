"""What lists are worth: how often a basket holds a product that an app would have shown just before."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

TOP: Final = 10
"""Products that an app shows."""
AGAIN: Final = 5
"""Of these, those that the household may buy again, where it has such a list; the rest is new to it."""
POPULAR: Final = "the popular list, the same for all"
FIRST_DAY: Final = "own lists, as of the month's first day"
REFRESHED: Final = "own lists, refreshed after each basket"


@dataclass(frozen=True, slots=True)
class OwnLists:
    """A household's lists in Redis: products new to it, and products that it may buy again."""

    new: Sequence[str] = ()
    again: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Shown:
    """What an app shows a household: ten products of any kind, or ten that it has never bought."""

    any: Collection[str]
    new: Collection[str]


def shown_from(own: OwnLists, otherwise: Shown) -> Shown:
    """Return what an app shows from a household's lists; the popular products if it has none."""
    if not own.new:
        return otherwise
    again = own.again[:AGAIN]
    return Shown(any=[*again, *own.new[: TOP - len(again)]], new=own.new[:TOP])


def shown_from_popular(popular: Sequence[str], owned: Collection[str]) -> Shown:
    """Return what an app shows from the popular list; as new products those that the household has never bought."""
    return Shown(any=popular[:TOP], new=[item for item in popular if item not in owned][:TOP])


@dataclass(slots=True)
class HitRates:
    """Counts baskets that hold at least one of ten products shown, by where these came from.

    Attributes
    ----------
    baskets, baskets_with_new : int
        All that were judged, and those of them with a product that the household had never bought.
    any, new : Counter
        Of these, those that hold one of the products shown, by the name of the list.
    """

    baskets: int = 0
    baskets_with_new: int = 0
    any: Counter[str] = field(default_factory=Counter)
    new: Counter[str] = field(default_factory=Counter)

    def count(self, bought: set[str], owned: Collection[str], shown: Mapping[str, Shown]) -> None:
        """Count one basket."""
        new_items = bought.difference(owned)
        self.baskets += 1
        self.baskets_with_new += bool(new_items)
        for name, products in shown.items():
            self.any[name] += not bought.isdisjoint(products.any)
            self.new[name] += not new_items.isdisjoint(products.new)
