"""Which records are read how: a partition is cut where consumers began to read with other settings."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

BEFORE = "before"
"""The fingerprint of how records were read before this was kept: in the contract's own form."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A way to read records.

    Attributes
    ----------
    fingerprint : str
        The same for the same description.
    description : mapping
        All that decides what a record says, in JSON's types.
    """

    fingerprint: str
    description: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ReadingHistory:
    """How records are read, and from which one on.

    Attributes
    ----------
    begins : mapping of str → sequence of (int, str)
        Source (``<topic id>:<partition>``) → from which offset on records are read how, by fingerprint; ascending.
    descriptions : mapping of str → mapping
        What each fingerprint stands for, as in `Reading`.
    """

    begins: Mapping[str, Sequence[tuple[int, str]]] = field(default_factory=dict)
    descriptions: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def fingerprint(self, source: str, offset: int) -> str | None:
        """Return how a record is read, None where nothing is known of it."""
        begins = self.begins.get(source, ())
        place = bisect_right(begins, offset, key=lambda begin: begin[0])
        return begins[place - 1][1] if place else None
