"""The pointer to the live model."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final

import orjson
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator

from recsys.data.version import ModelVersion
from recsys.errors import DamagedKey, InvalidModel
from recsys.logger import logger
from recsys.redis.connection import Connection
from recsys.redis.damage import damaged
from recsys.redis.keys import Keys
from recsys.redis.users import ModelStamp
from recsys.runtime.clock import json_time, now

log = logger(__name__)
_MOST_BYTES = 16 * 1024
_OTHER_KIND = b"of another kind"
"""As point.lua names it."""
CENTURY_S: Final = 100 * 365 * 24 * 3600
"""A sequence is a time: one that is so far ahead of the clock is none, and must not keep newer models out for good."""


class ModelPointer(BaseModel):
    """Which model is live."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())

    version: ModelVersion
    sequence: Annotated[int, Field(strict=True, ge=0, lt=2**53)]
    """Grows with every publication, also with a rollback; Lua compares it, whose numbers are exact up to here."""
    uri: str = ""
    """Folder of the artifact, for people: nothing follows it. Where a model is follows from its version."""
    manifest_sha256: Annotated[str, StringConstraints(strict=True, pattern=r"^[0-9A-Za-z]{1,64}$")]
    published_at: Annotated[str, StringConstraints(strict=True, max_length=64)]

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
        """Return the pointer to the live model, None before the first publication.

        Raises
        ------
        InvalidModel
            When it is damaged.
        """
        try:
            value = self.value()
            return self._parsed(value) if value else None
        except DamagedKey as error:
            raise InvalidModel(str(error)) from None

    def read_unless_damaged(self) -> ModelPointer | None:
        """Return the pointer; None also when it is damaged, which is said."""
        try:
            return self.read()
        except InvalidModel as error:
            log.warning("pointer_damaged", "{error}", error=error)
            return None

    def value(self) -> bytes:
        """Return the pointer as it is stored, for `move`; empty if there is none."""
        key = self._keys.model
        try:  # no more of it than this: what is longer is no pointer
            return bytes(self._connection.run([(key, ("GETRANGE", key, 0, _MOST_BYTES - 1))])[0])
        except DamagedKey:
            return _OTHER_KIND

    def _parsed(self, value: bytes) -> ModelPointer:
        if value == _OTHER_KIND:
            raise damaged(self._keys, self._keys.model, "it is no string")
        if len(value) >= _MOST_BYTES:
            raise damaged(self._keys, self._keys.model, f"it has {_MOST_BYTES:,} bytes or more")
        try:
            pointer = ModelPointer.model_validate_json(value)
        except ValidationError as error:
            problem = error.errors()[0]
            said = ": ".join([*(str(part)[:80] for part in problem["loc"]), problem["msg"]])
            raise damaged(self._keys, self._keys.model, said) from None
        if pointer.sequence > now().timestamp() + CENTURY_S:
            raise damaged(self._keys, self._keys.model, f"sequence: {pointer.sequence} is no time")
        return pointer

    def move(self, version: str, uri: str, manifest_sha256: str, *, seen: bytes, at: datetime) -> ModelPointer | None:
        """Point at another model and return the new pointer; None if another process has moved it since ``seen``."""
        previous = 0
        if seen:
            try:
                previous = self._parsed(seen).sequence
            except DamagedKey as error:
                log.warning("pointer_damaged", "{error}; it is replaced", error=error)
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
        moved = self._connection.run_script("point", [((self._keys.model,), (seen, value, _MOST_BYTES))])[0]
        if moved or self.value() == value:  # moved by a first try whose reply was lost
            return pointer
        return None
