"""Which dead letters are done with, under ``data_dir``: a topic says of none of its records that it was dealt with."""

from __future__ import annotations

import fcntl
import io
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from recsys.errors import DataDirError
from recsys.runtime.private_files import make_folder
from recsys.storage.files import NotAFile, Storage, TooLarge

_FOLDER = "dead-letters"
_MOST_BYTES = 1 << 28
_SCHEMA = pa.schema(
    [
        ("how", pa.string()),
        ("reading", pa.string()),
        ("partition", pa.int32()),
        ("first", pa.int64()),
        ("end", pa.int64()),
    ]
)


class Handled(StrEnum):
    """What was done with a letter; of several things the first of these counts."""

    REDRIVEN = "redriven"
    PURGED = "purged"
    BEGUN = "begun"
    """Its events are about to be published, or are; it is to be redriven still, in the same way."""


class Mark(NamedTuple):
    """What was done with a letter, and for one that was redriven, how its record was read (`Reading.fingerprint`)."""

    how: Handled
    reading: str = ""


class OffsetRanges:
    """A set of offsets, few ranges however many they are."""

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._ends: list[int] = []

    def __contains__(self, offset: int) -> bool:
        at = bisect_right(self._firsts, offset)
        return at > 0 and offset < self._ends[at - 1]

    def __len__(self) -> int:
        return sum(end - first for first, end in self)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(list(zip(self._firsts, self._ends, strict=True)))

    def add(self, first: int, end: int) -> None:
        """Add the offsets from ``first`` up to, not including, ``end``."""
        low = bisect_right(self._ends, first - 1)
        high = bisect_right(self._firsts, end)
        if low < high:
            first, end = min(first, self._firsts[low]), max(end, self._ends[high - 1])
        self._firsts[low:high], self._ends[low:high] = [first], [end]

    def remove_below(self, offset: int) -> None:
        """Remove the offsets below one."""
        kept = [(max(first, offset), end) for first, end in self if end > offset]
        self._firsts, self._ends = [first for first, _ in kept], [end for _, end in kept]


_ORDER = {how: place for place, how in enumerate(Handled)}


class HandledLetters:
    """What was done with the letters of one topic.

    Parameters
    ----------
    storage : Storage
    topic_id : str
        Of the dead-letter topic: of one that was created again nothing is known.
    """

    def __init__(self, storage: Storage, topic_id: str) -> None:
        self._storage = storage
        # A name of a file, whatever the id of a broker without ids looks like.
        self._path = f"{_FOLDER}/{sha256(topic_id.encode()).hexdigest()[:16]}.parquet"
        self._ranges: dict[Mark, dict[int, OffsetRanges]] = {}
        self._read()

    @contextmanager
    def exclusively(self) -> Iterator[None]:
        """Keep other processes on this machine from handling letters meanwhile.

        Raises
        ------
        DataDirError
            When one does, or the folder cannot be written.
        """
        if not self._storage.is_local:
            yield
            return
        with self._storage.errors_translated(_FOLDER):
            folder = Path(self._storage.path(_FOLDER))
            make_folder(folder, shared_with=Path(self._storage.root))
            lock = (folder / "lock").open("a")
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise DataDirError("another process redrives or purges dead letters now; try again later") from None
            self._read()
            yield

    def mark(self, partition: int, offset: int) -> Mark | None:
        """Return what was done with a letter, None if nothing was."""
        found = [mark for mark, ranges in self._ranges.items() if partition in ranges and offset in ranges[partition]]
        return min(found, key=lambda mark: _ORDER[mark.how], default=None)

    def readings(self, partition: int, offset: int) -> set[str]:
        """Return how a letter's record was read when it was redriven, or when that was begun."""
        return {
            mark.reading
            for mark, ranges in self._ranges.items()
            if mark.reading and partition in ranges and offset in ranges[partition]
        }

    def add(self, mark: Mark, partition: int, offset: int) -> None:
        """Note what was done with a letter; `write` keeps it."""
        self._ranges.setdefault(mark, {}).setdefault(partition, OffsetRanges()).add(offset, offset + 1)

    def write(self, firsts: Mapping[int, int]) -> None:
        """Keep what was noted.

        Parameters
        ----------
        firsts : dict of int → int
            The oldest offset of each partition: nothing is kept of letters that are gone.

        Raises
        ------
        DataDirError
            When the folder cannot be written, or the file is damaged.
        """
        rows = []
        for (how, reading), partitions in sorted(self._ranges.items()):
            for partition, ranges in sorted(partitions.items()):
                ranges.remove_below(firsts.get(partition, 0))
                place = {"how": how.value, "reading": reading, "partition": partition}
                rows += [{**place, "first": first, "end": end} for first, end in ranges]
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA), buffer)
        self._storage.write_file(self._path, buffer.getvalue())

    def _read(self) -> None:
        try:
            table = pq.read_table(io.BytesIO(self._storage.read_at_most(self._path, _MOST_BYTES)), schema=_SCHEMA)
            rows = table.to_pylist()
            for row in rows:
                if not 0 <= row["first"] < row["end"]:
                    raise ValueError(row)
                of_mark = self._ranges.setdefault(Mark(Handled(row["how"]), row["reading"]), {})
                of_mark.setdefault(row["partition"], OffsetRanges()).add(row["first"], row["end"])
        except FileNotFoundError:
            return
        except (pa.ArrowException, ValueError, TypeError, KeyError, NotAFile, TooLarge) as error:
            raise DataDirError(
                f"{self._storage.uri(self._path)} is damaged; remove it: letters that were redriven or purged, and are "
                f"still in the topic, are listed again then"
            ) from error
