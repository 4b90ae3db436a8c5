"""Cached lists, as apps are given them: what may not be shown left out, titles added."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from recsys.logger import logger
from recsys.redis.damage import list_problem
from recsys.storage.catalogue import Item

log = logger(__name__)

Listed = dict[str, Any]
"""An item of a list: item_id, score, and title and category if they are known."""


_UNKNOWN = Item()
_NEXT_ITEM = b'},{"item_id":'
"""Between two items, and never inside a string, which holds no quotation mark without a backslash before it."""


def parse_list(content: bytes | None, most: int | None = None) -> Listed | None:
    """Parse a cached list, or so many of its items; None if there is none, or it is no list, which is said."""
    if content is None:
        return None
    found: Listed | None
    try:
        found = orjson.loads(content) if most is None else parse_start(content, most)
        problem = list_problem(found)
    except orjson.JSONDecodeError as error:
        found, problem = None, str(error)
    if problem:
        log.warning("list_damaged", "a list in Redis is damaged, {problem}: it is passed over", problem=problem)
        return None
    return found


def parse_start(content: bytes, most: int) -> dict[str, Any]:
    """Parse a cached list with so many of its items, if it has more: they are most of the work."""
    parts = content.split(_NEXT_ITEM, most)
    if len(parts) > most:
        content = content[: len(content) - len(parts[-1]) - len(_NEXT_ITEM)] + b"}]}"
    found: dict[str, Any] = orjson.loads(content)
    return found


@dataclass(frozen=True, slots=True)
class ListFilter:
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

    def apply(self, items: Iterable[Listed], n: int, *, owned: Collection[str] | None = None) -> list[Listed]:
        """Return the first n items that may be shown, with titles and categories; none that the user owns."""
        if owned:
            items = [item for item in items if item["item_id"] not in owned]
        hidden, excluded, catalogue, category = self.hidden, self.excluded, self.catalogue, self.category
        found: list[Listed] = []
        for item in items:
            item_id = item["item_id"]
            if item_id in hidden or item_id in excluded:
                continue
            known = catalogue.get(item_id, _UNKNOWN)
            if category is not None and known.category != category:
                continue
            if known is not _UNKNOWN:
                if known.title:
                    item["title"] = known.title
                if known.category:
                    item["category"] = known.category
            found.append(item)
            if len(found) == n:
                break
        return found

    def about(self, item_id: str) -> dict[str, str]:
        """Return title and category of an item, if they are known."""
        known = self.catalogue.get(item_id, _UNKNOWN)
        return {name: text for name, text in (("title", known.title), ("category", known.category)) if text}
