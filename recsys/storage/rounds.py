"""The records of the trainer's rounds, under ``data_dir``: they outlive Redis, like the models they tell of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict, ValidationError

from recsys.evaluation.gate_record import Decision, GateRecord
from recsys.logger import logger
from recsys.storage.files import NotAFile, Storage, TooLarge

log = logger(__name__)
_FOLDER = "rounds"
_KEPT = 200
_MOST_BYTES = 256 * 1024
"""Of a record; usual ones have a few thousand."""
_PUBLISHED = "-published"


class RoundRecord(BaseModel):
    """One round of the trainer, or a rollback."""

    model_config = ConfigDict(extra="ignore")

    kind: str
    """``retrain``, ``rollback``, or ``refresh``: lists that a round or rollback had left were written."""
    asked_by: str
    """``schedule``, ``request``, ``signal``, ``operator``, or ``loss``: Redis had lost lists."""
    request: int = 0
    """Number of the newest request that it served; 0 where there was none yet."""
    started_at: str
    finished_at: str
    state: str
    """``succeeded``, ``rejected`` or ``failed``."""
    published: bool = False
    """Whether its version became the live one; if the round failed afterwards, not all lists may be of it."""
    version: str = ""
    """The model that was published or rejected."""
    live_before: str = ""
    error: str = ""
    counts: dict[str, int] = {}
    durations_s: dict[str, float] = {}
    gate: GateRecord | None = None

    @property
    def is_choice(self) -> bool:
        """Whether an operator has chosen its version: by a rollback, or against the gate."""
        return self.kind == "rollback" or (self.gate is not None and self.gate.decision is Decision.FORCED)


class RoundLog:
    """The records, one file each, under ``data_dir``."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def add(self, record: RoundRecord, *, at: datetime) -> str:
        """Keep a record and return its path. Call it only while holding the lock.

        The oldest beyond 200 leave; publications beyond 200 publications, for failures must not push them out.
        """
        path = f"{_FOLDER}/{self._new_name(at)}{_PUBLISHED if record.published else ''}.json"
        self.write(path, record)
        paths = self._paths()
        for kept in ([p for p in paths if _is_publication(p)], [p for p in paths if not _is_publication(p)]):
            for oldest in kept[: max(0, len(kept) - _KEPT)]:
                self._storage.delete(oldest)
        return path

    def write(self, path: str, record: RoundRecord) -> None:
        """Write a record that was added before anew."""
        self._storage.write_file(path, record.model_dump_json(indent=2).encode())

    def newest_first(self) -> Iterator[RoundRecord]:
        """Yield all records."""
        return self._read(reversed(self._paths()))

    def publications(self) -> Iterator[RoundRecord]:
        """Yield those that made a version live, the newest first."""
        found = self._read(path for path in reversed(self._paths()) if _is_publication(path))
        return (record for record in found if record.published)

    def last_of(self, version: str) -> tuple[RoundRecord | None, bool]:
        """Return the newest record of a version that was made live, and whether an operator has chosen it then.

        None if nothing is known of it.
        """
        own = [record for record in self.publications() if record.version == version]
        made_live = next((record for record in own if record.kind != "refresh"), None)
        return next(iter(own), None), made_live is not None and made_live.is_choice

    def _read(self, paths: Iterable[str]) -> Iterator[RoundRecord]:
        for path in paths:
            try:
                yield RoundRecord.model_validate_json(self._storage.read_at_most(path, _MOST_BYTES))
            except FileNotFoundError:  # it left meanwhile
                continue
            except (ValidationError, NotAFile, TooLarge):
                log.warning(
                    "round_record_damaged", "{path} is damaged and was skipped; remove it", path=self._storage.uri(path)
                )

    def _new_name(self, at: datetime) -> str:
        """Name a record that sorts after all before it, whatever the clock says."""
        name = at.astimezone(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        paths = self._paths()
        newest = paths[-1].split("/")[-1].removesuffix(".json").removesuffix(_PUBLISHED) if paths else ""
        if newest < name:
            return name
        before, _, count = newest.partition("~")
        return f"{before}~{int(count or 0) + 1:06d}"

    def _paths(self) -> Sequence[str]:
        return self._storage.files(_FOLDER, ".json")


def _is_publication(path: str) -> bool:
    return path.endswith(f"{_PUBLISHED}.json")
