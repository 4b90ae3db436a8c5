"""What all users share in Redis: the model pointer, the popular and similar lists, the hidden items."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from recsys.errors import InvalidModel
from recsys.recommend.user_lists import RankedList
from recsys.redis.connection import Connection
from recsys.redis.keys import Keys
from recsys.redis.list_json import items_json
from recsys.redis.single_server import Call
from recsys.redis.users import ModelStamp, json_time

log = logging.getLogger(__name__)
T = TypeVar("T")
_AT_ONCE = 1_000


class ModelPointer(BaseModel):
    """Which model is live."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())

    version: str
    sequence: Annotated[int, Field(ge=0, lt=2**53)]
    """Grows with every publication, also with a rollback; Lua compares it, whose numbers are exact up to here."""
    uri: str
    """Folder of the artifact."""
    manifest_sha256: str
    published_at: str

    @field_validator("published_at")
    @classmethod
    def _is_time_with_zone(cls, value: str) -> str:
        if datetime.fromisoformat(value).tzinfo is None:
            raise ValueError("published_at has no zone")
        return value

    @property
    def stamp(self) -> ModelStamp:
        """Version and sequence."""
        return ModelStamp(self.version, self.sequence)


class SharedStore:
    """State that all users share."""

    def __init__(self, connection: Connection, keys: Keys) -> None:
        self._connection = connection
        self._keys = keys

    def model_pointer(self) -> ModelPointer | None:
        """Return the pointer to the live model, None before the first publication."""
        value = self.model_pointer_value()
        if not value:
            return None
        try:
            return ModelPointer.model_validate_json(value)
        except ValidationError as error:
            problem = error.errors()[0]
            said = ": ".join([*(str(part) for part in problem["loc"]), problem["msg"]])
            raise InvalidModel(
                f"the pointer in {self._keys.model} is damaged: {said}; the trainer's next round writes a new one"
            ) from None

    def model_pointer_value(self) -> bytes:
        """Return the pointer as it is stored, for `move_model_pointer`; empty if there is none."""
        with self._connection.errors_translated():
            value: bytes | None = self._connection.client.get(self._keys.model)
        return value or b""

    def move_model_pointer(
        self, version: str, uri: str, manifest_sha256: str, *, seen: bytes, at: datetime
    ) -> ModelPointer | None:
        """Point at another model and return the new pointer; None if another process has moved it since ``seen``."""
        try:
            previous = ModelPointer.model_validate_json(seen).sequence if seen else 0
        except ValidationError:
            log.warning("the pointer in %s was damaged and is replaced", self._keys.model)
            previous = 0
        pointer = ModelPointer(
            version=version,
            # Seconds since 1970 unless the last one is ahead: a lost pointer must not bring the sequence back,
            # or lists of the lost sequence could never be overwritten.
            sequence=max(previous + 1, int(at.timestamp())),
            uri=uri,
            manifest_sha256=manifest_sha256,
            published_at=json_time(at),
        )
        value = orjson.dumps(pointer.model_dump())
        moved = self._connection.run_script("point", [((self._keys.model,), (seen, value))])[0]
        if moved or self.model_pointer_value() == value:  # moved by a first try whose reply was lost
            return pointer
        return None

    def hidden(self) -> frozenset[str]:
        """Return the items not to be recommended: those that an operator hides, and those that are not available."""
        members = self._connection.run(
            [(key, ("SMEMBERS", key)) for key in (self._keys.hidden, self._keys.unavailable)]
        )
        return frozenset(member.decode(errors="replace") for found in members for member in found)

    def write_catalogue(self, titles: Mapping[str, str], unavailable: Collection[str]) -> None:
        """Replace what is known of items: titles by item id, and the items that are not available."""
        client, titles_key, unavailable_key = self._connection.client, self._keys.titles, self._keys.unavailable
        with self._connection.errors_translated():
            gone = {key.decode() for key in client.hkeys(titles_key)} - titles.keys()
            for part in _parts(list(titles.items())):
                client.hset(titles_key, mapping=dict(part))
            for names in _parts(sorted(gone)):
                client.hdel(titles_key, *names)
            back = {member.decode() for member in client.smembers(unavailable_key)} - set(unavailable)
            for names in _parts(sorted(unavailable)):
                client.sadd(unavailable_key, *names)
            for names in _parts(sorted(back)):
                client.srem(unavailable_key, *names)
            client.set(self._keys.catalogue, uuid.uuid4().hex)

    def catalogue_stamp(self) -> bytes:
        """Return what changes with every import of the catalogue; empty before the first."""
        with self._connection.errors_translated():
            return self._connection.client.get(self._keys.catalogue) or b""

    def hide(self, item_id: str) -> bool:
        """Keep an item out of all lists; return whether it was in them."""
        with self._connection.errors_translated():
            return bool(self._connection.client.sadd(self._keys.hidden, item_id))

    def unhide(self, item_id: str) -> bool:
        """Let an item be recommended again; return whether it was hidden."""
        with self._connection.errors_translated():
            return bool(self._connection.client.srem(self._keys.hidden, item_id))

    def titles(self, item_ids: Sequence[str]) -> dict[str, str]:
        """Return item id → title of those that have one."""
        if not item_ids:
            return {}
        with self._connection.errors_translated():
            found = self._connection.client.hmget(self._keys.titles, list(item_ids))
        return {item: title.decode() for item, title in zip(item_ids, found, strict=True) if title is not None}

    def write_popular(
        self,
        items: RankedList,
        model: ModelStamp,
        *,
        at: datetime,
        category: str | None = None,
        ttl_s: int | None = None,
    ) -> None:
        """Write the list for users without one, or one of a category, which may expire."""
        value = {
            **({} if category is None else {"category": category}),
            "model": model.version,
            "generated_at": json_time(at),
            "items": orjson.Fragment(next(items_json([items]))),
        }
        with self._connection.errors_translated():
            self._connection.client.set(self._keys.popular_in(category), orjson.dumps(value), ex=ttl_s)

    def remove_popular(self, categories: Collection[str]) -> None:
        """Remove the lists of categories that have nothing to list."""
        keys = [self._keys.popular_in(category) for category in sorted(categories)]
        self._connection.run([(key, ("DEL", key)) for key in keys])

    def popular(self, category: str | None = None) -> dict[str, Any] | None:
        """Return the popular list as apps see it, overall or of a category."""
        with self._connection.errors_translated():
            value: bytes | None = self._connection.client.get(self._keys.popular_in(category))
        return orjson.loads(value) if value else None

    def write_similar(
        self, item_ids: Sequence[str], lists: Sequence[RankedList], model: ModelStamp, *, at: datetime, ttl_s: int
    ) -> None:
        """Write the similar-items lists of some items."""
        generated_at = json_time(at)
        calls: list[Call] = []
        for item_id, items in zip(item_ids, items_json(lists), strict=True):
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
        with self._connection.errors_translated():
            value: bytes | None = self._connection.client.get(self._keys.similar(item_id))
        return orjson.loads(value) if value else None


def _parts(values: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(values), _AT_ONCE):
        yield values[start : start + _AT_ONCE]
