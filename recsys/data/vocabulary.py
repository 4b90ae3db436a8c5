"""Ids and their rows, and the same ids as bytes for compiled code."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import numpy as np
import orjson
from numpy.typing import NDArray

from recsys.data.vocabulary_kernels import fill_table, find_each


@dataclass(frozen=True, eq=False)
class Texts:
    """Many texts in one array: the n-th is ``data[bounds[n]:bounds[n + 1]]``.

    Attributes
    ----------
    data : uint8, (n_bytes,)
    bounds : int64, (n_texts + 1,)
    """

    data: NDArray[np.uint8]
    bounds: NDArray[np.int64]

    @classmethod
    def of(cls, parts: Sequence[bytes]) -> Texts:
        """Join texts."""
        bounds = np.fromiter(accumulate(map(len, parts), initial=0), np.int64, len(parts) + 1)
        return cls(np.frombuffer(b"".join(parts), np.uint8), bounds)

    @classmethod
    def of_each(cls, parts: Iterable[bytes]) -> Texts:
        """Join texts that an iterator makes one by one: slower than `of`, but with little memory for a whole catalogue.

        A million texts kept at once would take many times their size: orjson makes each in a buffer of 4 KiB, and the
        allocator would keep the gaps.
        """
        data, bounds = bytearray(), array("q", (0,))
        for part in parts:
            data += part
            bounds.append(len(data))
        return cls(np.frombuffer(bytes(data), np.uint8), np.frombuffer(bounds, np.int64))


@dataclass(frozen=True)
class Vocabulary:
    """Ids in strictly increasing order; an id's place is its row."""

    ids: Sequence[str]

    @classmethod
    def of(cls, ids: Iterable[str]) -> Vocabulary:
        """Build from ids in any order, with duplicates."""
        return cls(sorted(set(ids)))

    @cached_property
    def rows(self) -> dict[str, int]:
        """Id → row."""
        return {id_: row for row, id_ in enumerate(self.ids)}

    @cached_property
    def encoded(self) -> Texts:
        """The ids in UTF-8."""
        return Texts.of_each(id_.encode() for id_ in self.ids)

    @cached_property
    def quoted(self) -> Texts:
        """The ids as JSON strings."""
        return Texts.of_each(map(orjson.dumps, self.ids))

    @cached_property
    def table(self) -> NDArray[np.int32]:
        """Hash table over `encoded`, for `recsys.data.vocabulary_kernels.find`: rows, −1 for an empty place."""
        table = np.full(1 << (2 * len(self.ids)).bit_length(), -1, np.int32)
        fill_table(self.encoded.data, self.encoded.bounds, table)
        return table

    def find(self, ids: Iterable[str]) -> NDArray[np.int64]:
        """Return the rows of ids, −1 for unknown ids: int64, (n,)."""
        known, asked = self.encoded, Texts.of_each(id_.encode() for id_ in ids)
        rows = np.empty(len(asked.bounds) - 1, np.int64)
        find_each(asked.data, asked.bounds, known.data, known.bounds, self.table, rows)
        return rows

    def __len__(self) -> int:
        return len(self.ids)
