"""Lists of users in a file: for a mailing, a warehouse, another shop system.

The users are taken in the order of their ids, so many at a time; each part is a file of its own until all are there.
An export that was interrupted goes on behind its last part, and the file appears when it is whole.
"""

from __future__ import annotations

import csv
import fcntl
import hashlib
import io
import json
import os
import shutil
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from recsys.errors import InputFileError, NoModel
from recsys.files.marks import without_formula
from recsys.redis import Store
from recsys.runtime import fail_points
from recsys.runtime.full_disk import problem_of
from recsys.runtime.private_files import create_file, ensure_can_be_created, make_folder
from recsys.runtime.progress import ProgressReporter

_USERS_PER_PART = 20_000
_USERS_PER_READ = 500
_STATE = "parts.json"
_LOCK = "lock"
PERSONAL, POPULAR = "personal", "popular"
_SCHEMA = pa.schema(
    [
        ("user_id", pa.string()),
        ("place", pa.int32()),
        ("item_id", pa.string()),
        ("score", pa.float64()),
        ("source", pa.string()),
        ("model", pa.string()),
        ("generated_at", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class ExportedList:
    """What is written of a user.

    Attributes
    ----------
    user_id : str
    source : str
        `PERSONAL`, or `POPULAR` where the user has no list: what apps show then.
    model, generated_at : str
        As the list says.
    items : sequence of mapping
        ``item_id`` and ``score``, best first.
    """

    user_id: str
    source: str
    model: str
    generated_at: str
    items: Sequence[Mapping[str, Any]]

    def rows(self) -> Iterator[tuple[str, int, str, float, str, str, str]]:
        """Yield a row for each item."""
        for place, item in enumerate(self.items, start=1):
            yield self.user_id, place, item["item_id"], item["score"], self.source, self.model, self.generated_at


class ExportFormat(ABC):
    """How lists are written, as parts and as the whole of them."""

    @abstractmethod
    def write_part(self, file: BinaryIO, lists: Iterable[ExportedList]) -> None:
        """Write some lists."""

    @abstractmethod
    def join(self, file: BinaryIO, parts: Sequence[Path]) -> None:
        """Write the whole."""


class CsvLists(ExportFormat):
    """A row for each item. Ids with which a formula would begin in a spreadsheet begin with ``'``."""

    def write_part(self, file: BinaryIO, lists: Iterable[ExportedList]) -> None:
        """Write some lists, without names of columns."""
        text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
        writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
        for one in lists:
            for user, place, item, *rest in one.rows():
                writer.writerow((without_formula(user), place, without_formula(item), *rest))
        text.detach()

    def join(self, file: BinaryIO, parts: Sequence[Path]) -> None:
        """Write the whole."""
        file.write((",".join(f'"{name}"' for name in _SCHEMA.names) + "\n").encode())
        _append(file, parts)


class JsonLists(ExportFormat):
    """JSON Lines: a line for each user, with the items of the list."""

    def write_part(self, file: BinaryIO, lists: Iterable[ExportedList]) -> None:
        """Write some lists."""
        for one in lists:
            file.write(orjson.dumps(one, option=orjson.OPT_APPEND_NEWLINE))

    def join(self, file: BinaryIO, parts: Sequence[Path]) -> None:
        """Write the whole."""
        _append(file, parts)


class ParquetLists(ExportFormat):
    """A row for each item."""

    def write_part(self, file: BinaryIO, lists: Iterable[ExportedList]) -> None:
        """Write some lists, all in one row group."""
        columns = list(zip(*(row for one in lists for row in one.rows()), strict=True)) or [()] * len(_SCHEMA)
        arrays = [pa.array(column, type) for column, type in zip(columns, _SCHEMA.types, strict=True)]
        pq.write_table(pa.Table.from_arrays(arrays, schema=_SCHEMA), file)

    def join(self, file: BinaryIO, parts: Sequence[Path]) -> None:
        """Write the whole."""
        with pq.ParquetWriter(file, _SCHEMA, compression="zstd") as writer:
            for part in parts:
                writer.write_table(pq.read_table(part, schema=_SCHEMA))


FORMATS: Mapping[str, ExportFormat] = {".csv": CsvLists(), ".jsonl": JsonLists(), ".parquet": ParquetLists()}


def format_of(destination: Path) -> ExportFormat:
    """Return how a file is written, as its name ends.

    Raises
    ------
    InputFileError
    """
    if (found := FORMATS.get(destination.suffix.lower())) is None:
        raise InputFileError(f"{destination}: the name must end with {', '.join(FORMATS)}")
    return found


class ExportOutcome(NamedTuple):
    """What was exported."""

    users: int
    personal: int


class _Part(NamedTuple):
    last_user: str
    users: int
    personal: int


def export_lists(
    store: Store, destination: Path, users: Sequence[str] | None, n: int, progress: ProgressReporter
) -> ExportOutcome:
    """Write the lists of users into a file, whole or not at all.

    Parameters
    ----------
    store : Store
    destination : Path
        Its suffix says the format. A file of that name is replaced.
    users : sequence of str or None
        Whose lists; None: those of all who have a history.
    n : int
        Items of each, at most. Hidden items are left out.
    progress : ProgressReporter

    Raises
    ------
    InputFileError
        When the file cannot be written, or another export with this name was interrupted or is going on.
    NoModel
        When there are no lists yet.
    RedisError
        When Redis does not answer; the export may go on later.
    """
    form = format_of(destination)
    popular = store.item_lists.popular()
    if popular is None:
        raise NoModel("there are no lists: no model has been published yet; make one with python -m trainer --once")
    of = hashlib.sha256("\n".join(sorted(users)).encode()).hexdigest() if users is not None else "all"
    with _errors_named(destination), _folder_of(destination) as folder:
        parts = _Parts(folder, {"n": n, "users": of})
        chosen = sorted(set(_everybody(store) if users is None else users))
        hidden = store.catalogue.hidden()
        begin = bisect_right(chosen, parts.last_user) if parts.done else 0
        with progress.stage("export lists", len(chosen), unit="users") as advance:
            advance(begin)
            for at in range(begin, len(chosen), _USERS_PER_PART):
                batch = chosen[at : at + _USERS_PER_PART]
                found = list(_lists(store, batch, popular, hidden, n))
                with parts.next_file() as file:
                    form.write_part(file, found)
                fail_points.reach("exported")
                parts.note(_Part(batch[-1], len(batch), sum(one.source == PERSONAL for one in found)))
                advance(len(batch))
        _write_whole(destination, form, parts)
        shutil.rmtree(folder)
    return ExportOutcome(sum(part.users for part in parts.done), sum(part.personal for part in parts.done))


def _everybody(store: Store) -> Iterator[str]:
    for batch in store.users.user_ids():
        yield from batch


def _lists(
    store: Store, users: Sequence[str], popular: dict[str, Any], hidden: frozenset[str], n: int
) -> Iterator[ExportedList]:
    for at in range(0, len(users), _USERS_PER_READ):
        batch = users[at : at + _USERS_PER_READ]
        for user, own in zip(batch, store.users.lists(batch), strict=True):
            shown = own or popular
            items = [item for item in shown["items"] if item["item_id"] not in hidden][:n]
            yield ExportedList(user, PERSONAL if own else POPULAR, shown["model"], shown["generated_at"], items)


class _Parts:
    """The parts that are written so far."""

    def __init__(self, folder: Path, of: dict[str, object]) -> None:
        self._folder = folder
        self._of = of
        self.done: list[_Part] = []
        try:
            state = json.loads((folder / _STATE).read_bytes())
            self.done = [_Part(*part) for part in state["parts"]]
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError) as error:
            raise InputFileError(f"{folder} is damaged; remove it, then export again") from error
        if state.get("of") != of:
            raise InputFileError(
                f"{folder} is left of an export of other users or with another -n, which was interrupted; run that one "
                f"again, or remove the folder"
            )

    @property
    def last_user(self) -> str:
        """Up to which user they reach."""
        return self.done[-1].last_user

    @property
    def paths(self) -> list[Path]:
        """Their files, in their order."""
        return [self._path(number) for number in range(len(self.done))]

    @contextmanager
    def next_file(self) -> Iterator[BinaryIO]:
        """Open the file of the next one."""
        with open(create_file(self._path(len(self.done))), "wb") as file:
            yield file
            _sync(file)

    def note(self, part: _Part) -> None:
        """Note that the next one is written."""
        self.done.append(part)
        temporary = self._folder / f"{_STATE}.tmp"
        with open(create_file(temporary), "wb") as file:
            file.write(json.dumps({"of": self._of, "parts": self.done}).encode())
            _sync(file)
        temporary.replace(self._folder / _STATE)

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:06d}"


@contextmanager
def _folder_of(destination: Path) -> Iterator[Path]:
    """Yield the folder of the parts, which no other export uses meanwhile."""
    ensure_can_be_created(destination)
    folder = destination.with_name(f"{destination.name}.parts")
    make_folder(folder)
    with (folder / _LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputFileError(f"another export writes {destination}") from None
        yield folder


def _write_whole(destination: Path, form: ExportFormat, parts: _Parts) -> None:
    temporary = destination.with_name(f"{destination.name}.tmp")
    try:
        with open(create_file(temporary), "wb") as file:
            form.join(file, parts.paths)
            _sync(file)
        temporary.replace(destination)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def _errors_named(destination: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputFileError(f"{destination} cannot be written: {problem_of(error, destination.parent)}") from error


def _append(file: BinaryIO, parts: Sequence[Path]) -> None:
    for part in parts:
        with part.open("rb") as opened:
            shutil.copyfileobj(opened, file, 1 << 20)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
