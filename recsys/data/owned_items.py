"""Owned items of users, in arrays: histories and the archive are read into these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recsys.data.event import UNITS_PER_QUANTITY

UNITS: Final = 0
NEWEST: Final = 1
FIRST: Final = 2
PURCHASES: Final = 3
COLUMNS: Final = 4
"""Columns of `Owned.entries`."""
_DAY_S = 24 * 3600


@dataclass(frozen=True, eq=False)
class Owned:
    """The owned items of some users, one user after the other.

    Attributes
    ----------
    starts : int32, (n_users + 1,)
        Where each user's items begin in ``rows`` and ``entries``.
    rows : int32, (n,)
        Rows of the items, ascending for each user. So sums have a fixed order, and a list does not depend on the order
        in which a history is stored.
    entries : int64, (n, 4)
        Net quantity in millionths, above zero; times of the newest and of the first event, in epoch seconds; number
        of purchases.
    """

    starts: NDArray[np.int32]
    rows: NDArray[np.int32]
    entries: NDArray[np.int64]

    def __len__(self) -> int:
        """Return the number of users."""
        return len(self.starts) - 1

    @property
    def sizes(self) -> NDArray[np.int32]:
        """How many items each user owns: int32, (n_users,)."""
        return np.diff(self.starts)

    def owners(self) -> NDArray[np.int64]:
        """Return the user of each entry: int64, (n,)."""
        return np.repeat(np.arange(len(self)), self.sizes)

    @property
    def quantities(self) -> NDArray[np.float64]:
        """Net quantities: float64, (n,)."""
        quantities: NDArray[np.float64] = self.entries[:, UNITS] / UNITS_PER_QUANTITY
        return quantities

    def ages_days(self, reference_s: int) -> NDArray[np.float64]:
        """Return the age of each item's newest event at a moment, in days; 0 if it is later: float64, (n,)."""
        return np.maximum(0, reference_s - self.entries[:, NEWEST]) / _DAY_S

    def of(self, users: NDArray[np.integer]) -> Owned:
        """Return the items of the users at these places, in this order."""
        sizes = self.sizes[users]
        starts = np.concatenate(([0], np.cumsum(sizes, dtype=np.int64)))
        places = np.repeat(self.starts[users] - starts[:-1], sizes) + np.arange(starts[-1])
        return Owned(starts.astype(np.int32), self.rows[places], self.entries[places])

    def translated(self, row_of: NDArray[np.integer]) -> Owned:
        """Return the same items as rows of another model with the same order of items; −1 = the item is left out."""
        rows = row_of[self.rows]
        known = rows >= 0
        owners = self.owners()[known]
        starts = np.searchsorted(owners, np.arange(len(self) + 1)).astype(np.int32)
        return Owned(starts, rows[known].astype(np.int32), self.entries[known])

    def matrix(self, values: NDArray[np.floating], n_items: int) -> csr_matrix:
        """Return values, one per entry, as a csr_matrix (n_users, n_items)."""
        return csr_matrix((values, self.rows, self.starts), shape=(len(self), n_items))
