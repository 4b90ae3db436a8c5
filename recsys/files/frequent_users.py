"""Users with a large share of a file's rows, who may be no customers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

_LEAST_ROWS = 1_000
_LARGE_SHARE = 0.05
_COUNTERS = 1_000  # so a count is too small by a thousandth of the rows at most


class FrequentUsers:
    """Finds customers with a large share of the rows: counters for the frequent ones only (Misra and Gries, 1982)."""

    def __init__(self) -> None:
        self._counters: Counter[str] = Counter()

    def note(self, user: str) -> None:
        """Count a row."""
        counters = self._counters
        if user in counters or len(counters) < _COUNTERS:
            counters[user] += 1
            return
        for other in list(counters):  # each loses one, and so does this row
            counters[other] -= 1
            if not counters[other]:
                del counters[other]

    def shares(self, rows: int) -> Iterator[tuple[str, float]]:
        """Yield each user with more than a twentieth of so many rows, with that share, the largest first."""
        if rows < _LEAST_ROWS:
            return
        for user, count in self._counters.most_common():
            if (share := count / rows) > _LARGE_SHARE:
                yield user, share
