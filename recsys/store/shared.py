"""What all users share in Redis: the model pointer, the popular and similar lists, the hidden items."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from recsys.errors import InvalidModel
from recsys.refresh import RankedList
from recsys.store.connection import Connection
from recsys.store.keys import Keys
from recsys.store.list_json import items_json
from recsys.store.one_server import Call
from recsys.store.users import ModelStamp, json_time

log = logging.getLogger(__name__)


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
        """Return the items never to be recommended."""
        with self._connection.errors_translated():
            members: set[bytes] = self._connection.client.smembers(self._keys.hidden)
        return frozenset(member.decode(errors="replace") for member in members)

    def write_popular(self, items: RankedList, model: ModelStamp, *, at: datetime) -> None:
        """Write the list for users without one."""
        value = {
            "model": model.version,
            "generated_at": json_time(at),
            "items": orjson.Fragment(next(items_json([items]))),
        }
        with self._connection.errors_translated():
            self._connection.client.set(self._keys.popular, orjson.dumps(value))

    def popular(self) -> dict[str, Any] | None:
        """Return the popular list as apps see it."""
        with self._connection.errors_translated():
            value: bytes | None = self._connection.client.get(self._keys.popular)
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
