"""What is known of items: titles, and which of them may not be recommended."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TypeVar

from recsys.errors import DamagedKey
from recsys.logger import logger
from recsys.redis.connection import Connection
from recsys.redis.keys import Keys

log = logger(__name__)
T = TypeVar("T")
_AT_ONCE = 1_000


class CatalogueStore:
    """Titles, and items that are hidden by an operator or not available."""

    def __init__(self, connection: Connection, keys: Keys) -> None:
        self._connection = connection
        self._keys = keys

    def hidden(self) -> frozenset[str]:
        """Return the items not to be recommended: those that an operator hides, and those that are not available."""
        members = self._connection.run(
            [(key, ("SMEMBERS", key)) for key in (self._keys.hidden, self._keys.unavailable)]
        )
        return frozenset(member.decode(errors="replace") for found in members for member in found)

    def hidden_by_operators(self) -> tuple[frozenset[str], str]:
        """Return the items that operators hide, and the id of the copy that was made of them; empty if none was."""
        key, copy = self._keys.hidden, self._keys.hidden_copy
        members, known = self._connection.run([(key, ("SMEMBERS", key)), (copy, ("GET", copy))])
        return frozenset(member.decode(errors="replace") for member in members), (known or b"").decode(errors="replace")

    def note_hidden_copy(self, copy_id: str) -> None:
        """Note the id of the copy, which follows the set from now on."""
        self._connection.run([(self._keys.hidden_copy, ("SET", self._keys.hidden_copy, copy_id))])

    def hide_all(self, item_ids: Collection[str]) -> None:
        """Keep items out of all lists."""
        for names in _parts(sorted(item_ids)):
            self._connection.run([(self._keys.hidden, ("SADD", self._keys.hidden, *names))])

    def hide(self, item_id: str) -> bool:
        """Keep an item out of all lists; return whether it was in them."""
        with self._connection.errors_translated(self._keys.hidden):
            return bool(self._connection.client.sadd(self._keys.hidden, item_id))

    def unhide(self, item_id: str) -> bool:
        """Let an item be recommended again; return whether it was hidden."""
        with self._connection.errors_translated(self._keys.hidden):
            return bool(self._connection.client.srem(self._keys.hidden, item_id))

    def titles(self, item_ids: Sequence[str]) -> dict[str, str]:
        """Return item id → title of those that have one."""
        if not item_ids:
            return {}
        with self._connection.errors_translated(self._keys.titles):
            found = self._connection.client.hmget(self._keys.titles, list(item_ids))
        return {
            item: title.decode(errors="replace")
            for item, title in zip(item_ids, found, strict=True)
            if title is not None
        }

    def write(self, titles: Mapping[str, str], unavailable: Collection[str]) -> None:
        """Replace what is known of items: titles by item id, and the items that are not available."""
        client, titles_key, unavailable_key = self._connection.client, self._keys.titles, self._keys.unavailable
        for key, count in ((titles_key, "HLEN"), (unavailable_key, "SCARD")):
            try:
                self._connection.run([(key, (count, key))])
            except DamagedKey as error:
                log.warning("catalogue_damaged", "{error}; it is written anew", error=error)
                self._connection.run([(key, ("DEL", key))])
        with self._connection.errors_translated():
            gone = set(client.hkeys(titles_key)) - {item.encode() for item in titles}
            for part in _parts(list(titles.items())):
                client.hset(titles_key, mapping=dict(part))
            for names in _parts(sorted(gone)):
                client.hdel(titles_key, *names)
            back = set(client.smembers(unavailable_key)) - {item.encode() for item in unavailable}
            for names in _parts(sorted(unavailable)):
                client.sadd(unavailable_key, *names)
            for names in _parts(sorted(back)):
                client.srem(unavailable_key, *names)
            client.set(self._keys.catalogue, uuid.uuid4().hex)

    def stamp(self) -> bytes:
        """Return what changes with every import of the catalogue; empty before the first."""
        with self._connection.errors_translated(self._keys.catalogue):
            return self._connection.client.get(self._keys.catalogue) or b""


def _parts(values: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(values), _AT_ONCE):
        yield values[start : start + _AT_ONCE]
