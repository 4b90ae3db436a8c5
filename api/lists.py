"""Cached lists, as apps are given them: what may not be shown left out, titles added."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from recsys.catalogue import Item

Listed = dict[str, Any]
"""An item of a list: item_id, score, and title and category if they are known."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What may be shown of a list.

    Attributes
    ----------
    hidden : collection of str
        Items that are never shown.
    catalogue : mapping
        Items by id, for titles and categories.
    category : str or None
        Only items of this category.
    excluded : collection of str
        More items that are not wanted.
    """

    hidden: Collection[str]
    catalogue: Mapping[str, Item]
    category: str | None = None
    excluded: Collection[str] = frozenset()

    def of(self, items: Iterable[Listed], n: int) -> list[Listed]:
        """Return the first n items that may be shown."""
        hidden, excluded = self.hidden, self.excluded
        if hidden or excluded:
            items = (item for item in items if item["item_id"] not in hidden and item["item_id"] not in excluded)
        if self.category is not None:
            items = (item for item in items if self._category(item["item_id"]) == self.category)
        found = list(islice(items, n))
        if self.catalogue:
            for item in found:
                item.update(self.about(item["item_id"]))
        return found

    def about(self, item_id: str) -> dict[str, str]:
        """Return title and category of an item, if they are known."""
        known = self.catalogue.get(item_id)
        if known is None:
            return {}
        return {name: text for name, text in (("title", known.title), ("category", known.category)) if text}

    def _category(self, item_id: str) -> str:
        known = self.catalogue.get(item_id)
        return "" if known is None else known.category
