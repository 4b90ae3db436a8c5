"""Ids with a large share of a file's rows: users who may be no customers, an item that may be none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

_LEAST_ROWS = 1_000
_COUNTERS = 1_000  # so a count is too small by a thousandth of the rows at most


class FrequentIds:
    """Finds ids with a large share of the rows: counters for the frequent ones only (Misra and Gries, 1982).

    Parameters
    ----------
    share : float
        More than so much of the rows, of 1,000 or more, is a large share.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._counters: Counter[str] = Counter()

    def note(self, id_: str) -> None:
        """Count a row."""
        counters = self._counters
        if id_ in counters or len(counters) < _COUNTERS:
            counters[id_] += 1
            return
        for other in list(counters):  # each loses one, and so does this row
            counters[other] -= 1
            if not counters[other]:
                del counters[other]

    def shares(self, rows: int) -> Iterator[tuple[str, float]]:
        """Yield each id with a large share of so many rows, with that share, the largest first."""
        if rows < _LEAST_ROWS:
            return
        for id_, count in self._counters.most_common():
            if (share := count / rows) > self._share:
                yield id_, share


LARGE_SHARE_OF_A_USER = 0.05
LARGE_SHARE_OF_AN_ITEM = 0.5
