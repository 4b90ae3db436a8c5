"""From purchases to matrices: ids become rows, events become one net quantity per user and item."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recsys.confidence import confidence
from recsys.events import UNITS_PER_QUANTITY
from recsys.vocabulary import Vocabulary


@dataclass(frozen=True)
class Interactions:
    """All users' owned items.

    Attributes
    ----------
    users, items : Vocabulary
    quantities : csr_matrix, float64, (n_users, n_items); net quantities, only those above zero
    """

    users: Vocabulary
    items: Vocabulary
    quantities: csr_matrix

    def confidences(self, *, alpha: float) -> csr_matrix:
        """Return the confidences c_ui of the owned items: csr_matrix, float32, (n_users, n_items)."""
        matrix = self.quantities
        return csr_matrix((confidence(matrix.data, alpha=alpha), matrix.indices, matrix.indptr), shape=matrix.shape)

    def buyers(self) -> NDArray[np.int64]:
        """Return the number of users who own each item: int64, (n_items,)."""
        return np.bincount(self.quantities.indices, minlength=len(self.items)).astype(np.int64)


def aggregate(
    user_ids: Sequence[str],
    user_codes: NDArray[np.integer],
    item_ids: Sequence[str],
    item_codes: NDArray[np.integer],
    units: NDArray[np.int64],
) -> Interactions:
    """Sum events into net quantities and keep what is owned.

    Parameters
    ----------
    user_ids, item_ids : sequences of distinct str, in any order
    user_codes, item_codes : integers, (n_events,); places in ``user_ids`` and ``item_ids``
    units : int64, (n_events,); signed quantities in millionths

    Returns
    -------
    Interactions
        Only users and items with at least one owned pair are in its vocabularies.
    """
    pairs = user_codes.astype(np.int64) * max(1, len(item_ids)) + item_codes
    order = np.argsort(pairs)
    pairs = pairs[order]
    starts = np.flatnonzero(np.diff(pairs, prepend=-1))
    net = np.add.reduceat(units[order], starts) if len(starts) else np.empty(0, np.int64)
    owned = net > 0
    pair_users, pair_items = np.divmod(pairs[starts[owned]], max(1, len(item_ids)))
    users, user_rows = _compact(user_ids, pair_users)
    items, item_rows = _compact(item_ids, pair_items)
    del pairs, order
    quantities = csr_matrix(
        (net[owned] / UNITS_PER_QUANTITY, (user_rows.astype(np.int32), item_rows.astype(np.int32))),
        shape=(len(users), len(items)),
        dtype=np.float64,
    )
    quantities.sort_indices()
    return Interactions(users, items, quantities)


def _compact(ids: Sequence[str], codes: NDArray[np.int64]) -> tuple[Vocabulary, NDArray[np.int64]]:
    """Keep the ids that occur in ``codes``, sorted, and translate the codes into their rows."""
    used = np.flatnonzero(np.bincount(codes, minlength=len(ids)))
    vocabulary = Vocabulary.of(ids[code] for code in used.tolist())
    row_of_code = np.zeros(len(ids), dtype=np.int64)
    row_of_code[used] = [vocabulary.rows[ids[code]] for code in used.tolist()]
    return vocabulary, row_of_code[codes]
