"""The pointer to the live model."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Annotated, TypeVar

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from recsys.errors import InvalidModel
from recsys.redis.connection import Connection
from recsys.redis.keys import Keys
from recsys.redis.users import ModelStamp
from recsys.runtime.clock import json_time

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
            raise ValueError("published_at has no time zone")
        return value

    @property
    def stamp(self) -> ModelStamp:
        """Version and sequence."""
        return ModelStamp(self.version, self.sequence)


class ModelPointerStore:
    """Reads the pointer and moves it, by compare-and-set."""

    def __init__(self, connection: Connection, keys: Keys) -> None:
        self._connection = connection
        self._keys = keys

    def read(self) -> ModelPointer | None:
        """Return the pointer to the live model, None before the first publication."""
        value = self.value()
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

    def value(self) -> bytes:
        """Return the pointer as it is stored, for `move`; empty if there is none."""
        with self._connection.errors_translated():
            value: bytes | None = self._connection.client.get(self._keys.model)
        return value or b""

    def move(self, version: str, uri: str, manifest_sha256: str, *, seen: bytes, at: datetime) -> ModelPointer | None:
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
        if moved or self.value() == value:  # moved by a first try whose reply was lost
            return pointer
        return None
