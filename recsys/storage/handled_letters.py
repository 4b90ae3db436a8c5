"""Which dead letters are done with, under ``data_dir``: a topic says of none of its records that it was dealt with."""

from __future__ import annotations

import io
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator
from enum import StrEnum
from hashlib import sha256

import pyarrow as pa
import pyarrow.parquet as pq

from recsys.errors import DataDirError
from recsys.storage.files import NotAFile, Storage, TooLarge

_FOLDER = "dead-letters"
_MOST_BYTES = 1 << 28
_SCHEMA = pa.schema([("how", pa.string()), ("partition", pa.int32()), ("first", pa.int64()), ("end", pa.int64())])


class Handled(StrEnum):
    """What was done with a letter."""

    REDRIVEN = "redriven"
    PURGED = "purged"


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
        self._ranges: dict[tuple[Handled, int], OffsetRanges] = defaultdict(OffsetRanges)
        self._read()

    def how(self, partition: int, offset: int) -> Handled | None:
        """Return what was done with a letter, None if nothing was."""
        return next((how for how in Handled if offset in self._ranges[how, partition]), None)

    def add(self, how: Handled, partition: int, offset: int) -> None:
        """Note that a letter is done with; `write` keeps it."""
        self._ranges[how, partition].add(offset, offset + 1)

    def write(self, firsts: dict[int, int]) -> None:
        """Keep what was noted, beside what another process has kept meanwhile.

        Parameters
        ----------
        firsts : dict of int → int
            The oldest offset of each partition: nothing is kept of letters that are gone.

        Raises
        ------
        DataDirError
            When the folder cannot be written, or the file is damaged.
        """
        self._read()
        rows = []
        for (how, partition), ranges in sorted(self._ranges.items()):
            ranges.remove_below(firsts.get(partition, 0))
            rows += [{"how": how.value, "partition": partition, "first": first, "end": end} for first, end in ranges]
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
                self._ranges[Handled(row["how"]), row["partition"]].add(row["first"], row["end"])
        except FileNotFoundError:
            return
        except (pa.ArrowException, ValueError, TypeError, KeyError, NotAFile, TooLarge) as error:
            raise DataDirError(
                f"{self._storage.uri(self._path)} is damaged; remove it: letters that were redriven are listed again, "
                f"and count once all the same when they are redriven again"
            ) from error
