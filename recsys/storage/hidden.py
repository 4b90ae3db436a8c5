"""The items that operators hide, kept beside Redis: an emptied one must not bring them back into lists."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel, ValidationError

from recsys.errors import DataDirError
from recsys.storage.files import Storage

_PATH = "hidden.json"


@dataclass(frozen=True, slots=True)
class HiddenCopy:
    """A copy of the set in Redis, which knows the copy by its id."""

    id: str
    items: frozenset[str]


class _File(BaseModel):
    id: str
    items: list[str]


class HiddenFile:
    """The copy; the trainer alone writes it."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def read(self) -> HiddenCopy | None:
        """Return the copy, None if nothing was ever hidden.

        Raises
        ------
        DataDirError
            When the file is damaged.
        """
        try:
            found = _File.model_validate_json(self._storage.read_file(_PATH))
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise DataDirError(
                f"{self._storage.uri(_PATH)} is damaged; remove it, and it is made again from Redis"
            ) from error
        return HiddenCopy(found.id, frozenset(found.items))

    def write(self, copy: HiddenCopy) -> None:
        """Keep a copy in place of the one before."""
        content = _File(id=copy.id, items=sorted(copy.items)).model_dump_json(indent=2)
        self._storage.write_file(_PATH, content.encode())
