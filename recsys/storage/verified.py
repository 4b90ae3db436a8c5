"""What the newest `recsys verify` has found, under ``data_dir``: status and alerts tell of it."""

from __future__ import annotations

from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from recsys.errors import DataDirError
from recsys.storage.files import NotAFile, Storage, TooLarge

_PATH = "verified.json"
_MOST_BYTES = 4_096
_Count = Annotated[int, Field(ge=0, lt=2**63)]


class VerifyRecord(BaseModel):
    """What one `recsys verify` has found."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    at: AwareDatetime
    users: _Count
    """Whose histories were checked."""
    differences: _Count


class VerifiedFile:
    """The file."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def read(self) -> VerifyRecord | None:
        """Return what the newest one has found, None if there was none.

        Raises
        ------
        DataDirError
            When the file is damaged.
        """
        try:
            return VerifyRecord.model_validate_json(self._storage.read_at_most(_PATH, _MOST_BYTES))
        except FileNotFoundError:
            return None
        except (ValidationError, NotAFile, TooLarge) as error:
            raise DataDirError(
                f"{self._storage.uri(_PATH)} is damaged; remove it, then run recsys verify again"
            ) from error

    def write(self, record: VerifyRecord) -> None:
        """Keep what one has found."""
        self._storage.write_file(_PATH, record.model_dump_json(indent=2).encode())
