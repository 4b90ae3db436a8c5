"""Interactions: ids become rows, events become one entry per user and item."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recsys.data.owned_items import Owned
from recsys.data.vocabulary import Vocabulary


@dataclass(frozen=True, eq=False)
class Interactions:
    """All users' owned items.

    Attributes
    ----------
    users, items : Vocabulary
    owned : Owned
        Of the users, in their order; its rows are those of ``items``.
    """

    users: Vocabulary
    items: Vocabulary
    owned: Owned

    @cached_property
    def quantities(self) -> csr_matrix:
        """Net quantities of what is owned: csr_matrix, float64, (n_users, n_items)."""
        return self.owned.matrix(self.owned.quantities, len(self.items))

    def of_items(self, kept: NDArray[np.bool_]) -> Interactions:
        """Return these items alone, bool, (n_items,), and the users who own any of them."""
        row_of = np.where(kept, np.cumsum(kept) - 1, -1)
        owned = self.owned.translated(row_of)
        users = np.flatnonzero(owned.sizes)
        items = Vocabulary([self.items.ids[row] for row in np.flatnonzero(kept).tolist()])
        return Interactions(Vocabulary([self.users.ids[row] for row in users.tolist()]), items, owned.of(users))

    def buyers(self) -> NDArray[np.int64]:
        """Return the number of users who own each item: int64, (n_items,)."""
        return np.bincount(self.owned.rows, minlength=len(self.items)).astype(np.int64)
