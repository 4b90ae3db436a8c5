"""Counting what is distinct, and what comes again, in bounded memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable

_MOST_HELD = 500_000
"""Hashes, of about 100 bytes each."""
_SPREAD = 0x9E3779B97F4A7C15
_BITS = 64


def hash_of(value: Hashable) -> int:
    """Return a hash of 64 bits that is evenly spread."""
    hashed: int = (hash(value) * _SPREAD) % (1 << _BITS)
    return hashed


def is_sampled(hashed: int, halvings: int) -> bool:
    """Whether a hash is below a bound that was halved so many times."""
    return not hashed >> (_BITS - halvings)


class DistinctCounter:
    """Counts distinct values: exactly up to half a million of them, then to about half a percent.

    Hashes are held with how often each has come. When there are too many, the bound below which they are held is halved
    (adaptive sampling; Flajolet, 1990): how many are held then stands for all. How often they came does not: what comes
    again may be a few values only, held or not.
    """

    def __init__(self, most_held: int = _MOST_HELD) -> None:
        self.most_held = most_held
        self._held: Counter[int] = Counter()
        self._halvings = 0

    @property
    def is_exact(self) -> bool:
        """Whether all values are held."""
        return self._halvings == 0

    @property
    def distinct(self) -> int:
        """How many values are different."""
        return len(self._held) << self._halvings

    @property
    def repeats(self) -> int | None:
        """How many values equal an earlier one; None where that is not known any more."""
        return self._held.total() - len(self._held) if self.is_exact else None

    def note(self, value: Hashable) -> None:
        """Count a value."""
        hashed = hash_of(value)
        if not is_sampled(hashed, self._halvings):
            return
        self._held[hashed] += 1
        while len(self._held) > self.most_held:
            self._halvings += 1
            kept = {one: count for one, count in self._held.items() if is_sampled(one, self._halvings)}
            self._held = Counter(kept)
