"""The lists that all users share: popular items, overall and by category, and similar items."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Any, TypeVar

import orjson

from recsys.redis.connection import Connection
from recsys.redis.damage import damaged, json_object, list_problem
from recsys.redis.keys import Keys
from recsys.redis.single_server import Call
from recsys.redis.users import ModelStamp
from recsys.runtime.clock import json_time

T = TypeVar("T")
_AT_ONCE = 1_000


class ItemListStore:
    """Popular and similar items."""

    def __init__(self, connection: Connection, keys: Keys) -> None:
        self._connection = connection
        self._keys = keys

    def write_popular(
        self,
        items: bytes,
        model: ModelStamp,
        *,
        at: datetime,
        category: str | None = None,
        ttl_s: int | None = None,
    ) -> None:
        """Write the list for users without one, or one of a category, which may expire; ``items`` is JSON."""
        value = {
            **({} if category is None else {"category": category}),
            "model": model.version,
            "generated_at": json_time(at),
            "items": orjson.Fragment(items),
        }
        with self._connection.errors_translated():
            self._connection.client.set(self._keys.popular_in(category), orjson.dumps(value), ex=ttl_s)

    def remove_popular(self, categories: Collection[str]) -> None:
        """Remove the lists of categories that have nothing to list."""
        keys = [self._keys.popular_in(category) for category in sorted(categories)]
        self._connection.run([(key, ("DEL", key)) for key in keys])

    def popular(self, category: str | None = None) -> dict[str, Any] | None:
        """Return the popular list as apps see it, overall or of a category."""
        key = self._keys.popular_in(category)
        return self._list(key, self._connection.run([(key, ("GET", key))])[0])

    def write_similar(
        self, item_ids: Sequence[str], lists: Iterable[bytes], model: ModelStamp, *, at: datetime, ttl_s: int
    ) -> None:
        """Write the similar-items lists of some items, given in JSON."""
        generated_at = json_time(at)
        calls: list[Call] = []
        for item_id, items in zip(item_ids, lists, strict=True):
            key = self._keys.similar(item_id)
            value = {
                "item_id": item_id,
                "model": model.version,
                "generated_at": generated_at,
                "items": orjson.Fragment(items),
            }
            calls.append((key, ("SET", key, orjson.dumps(value), "EX", ttl_s)))
        self._connection.run(calls)

    def similar(self, item_id: str) -> dict[str, Any] | None:
        """Return an item's similar items as apps see them."""
        return self.similar_many([item_id])[0]

    def similar_many(self, item_ids: Sequence[str]) -> list[dict[str, Any] | None]:
        """Return the similar items of many items, in order."""
        keys = [self._keys.similar(item_id) for item_id in item_ids]
        values = self._connection.run([(key, ("GET", key)) for key in keys])
        return [self._list(key, value) for key, value in zip(keys, values, strict=True)]

    def _list(self, key: str, value: bytes | None) -> dict[str, Any] | None:
        if not value:
            return None
        found = json_object(self._keys, key, value)
        if problem := list_problem(found):
            raise damaged(self._keys, key, problem)
        return found
