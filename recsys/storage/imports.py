"""The records of imports, under ``data_dir``, beside the segments that they wrote."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, ValidationError

from recsys.errors import DataDirError
from recsys.storage.files import Storage
from recsys.storage.segments import IMPORT_PREFIX

_FOLDER = "archive/imports"
_UNDOING = ".undo"
_UNDONE = ".undone"


class ImportRecord(BaseModel):
    """One import.

    Attributes
    ----------
    id : str
        16 hexadecimal digits: what the file holds, and how it is read.
    file, content_sha256 : str
        The file's name and what it held.
    options : mapping
        How it was read, as far as that differs from the default.
    """

    model_config = ConfigDict(extra="ignore")

    id: str
    file: str
    content_sha256: str
    options: dict[str, str] = {}
    started_at: str
    run: int = 0
    """The partition of its source: unlike that of the same import before it was taken back."""
    finished_at: str = ""
    """Empty if it was interrupted."""
    read: int = 0
    """Rows, or their lines where a row has several, all of them: those of the next five together."""
    new: int = 0
    """Rows that are in the archive because of this import."""
    known: int = 0
    rejected: int = 0
    no_user: int = 0
    left_out: int = 0
    """Those that a mapping leaves out, for other reasons than that they have no user."""
    relies_on: list[str] = []
    """Other imports that had brought some of its purchases before."""

    @property
    def source(self) -> str:
        """The name of its segments' source."""
        return f"{IMPORT_PREFIX}{self.id}"


@dataclass(frozen=True, slots=True)
class Undoing:
    """An undo that has begun.

    Attributes
    ----------
    id : str
        Of the import.
    users : frozenset of str
        Whose histories have to be made again.
    purchases : int or None
        That leave the archive, all of them; None if an earlier version began the undo.
    """

    id: str
    users: frozenset[str]
    purchases: int | None


class _UndoFile(BaseModel):
    users: list[str]
    purchases: int | None = None


class ImportLog:
    """The records, one file each, and the undoing that is under way."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def write(self, record: ImportRecord) -> None:
        """Keep a record in place of the one before."""
        self._storage.write_file(f"{_FOLDER}/{record.id}.json", record.model_dump_json(indent=2).encode())

    def records(self) -> Mapping[str, ImportRecord]:
        """Return id → record, the oldest first.

        Raises
        ------
        DataDirError
            When one is damaged.
        """
        records = []
        for path in self._storage.files(_FOLDER, ".json"):
            try:
                records.append(ImportRecord.model_validate_json(self._storage.read_file(path)))
            except ValidationError as error:
                raise DataDirError(
                    f"{self._storage.uri(path)} is damaged; remove it: the import stays, its description is lost"
                ) from error
        return {record.id: record for record in sorted(records, key=lambda record: record.started_at)}

    def remove(self, import_id: str) -> None:
        """Remove a record, if it is there."""
        self._storage.delete(f"{_FOLDER}/{import_id}.json")

    def begin_undo(self, undoing: Undoing) -> None:
        """Keep what an undo needs to go on after an interruption."""
        content = _UndoFile(users=sorted(undoing.users), purchases=undoing.purchases).model_dump_json().encode()
        self._storage.write_file(f"{_FOLDER}/{undoing.id}{_UNDOING}", content)

    def undoing(self) -> list[Undoing]:
        """Return the undos that have begun and not ended."""
        found = []
        for path in self._storage.files(_FOLDER, _UNDOING):
            import_id = path.rpartition("/")[2].removesuffix(_UNDOING)
            content = _UndoFile.model_validate_json(self._storage.read_file(path))
            found.append(Undoing(import_id, frozenset(content.users), content.purchases))
        return found

    def end_undo(self, import_id: str, at: str) -> None:
        """Note that everything is done, and when."""
        self._storage.write_file(f"{_FOLDER}/{import_id}{_UNDONE}", at.encode())
        self.remove(import_id)
        self._storage.delete(f"{_FOLDER}/{import_id}{_UNDOING}")

    def undone_at(self, import_id: str) -> str:
        """Return when an import was taken back the last time, or nothing."""
        try:
            return self._storage.read_file(f"{_FOLDER}/{import_id}{_UNDONE}").decode()
        except FileNotFoundError:
            return ""
