"""Exact top-N: the best items by score, ties by row, excluded rows never.

The items stand in the order of their norms, longest first, and are scored block by block. By Cauchy–Schwarz no item
from some place on can score more than ‖x_u‖·‖y_i‖ there; a user whose worst listed score is above that is done. Real
models have a few long item vectors and very many short ones, so most users are done after a few blocks (the
"length-based pruning" of Teflioudi & Gemulla, 2016, Exact and approximate maximum inner product search with LEMP,
section 4.1). Within a block, scores come from one float32 matrix product; those near enough to a list to be in it are
computed again in float64. What is returned therefore does not depend on batch, block or machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import overload

import numpy as np
from numpy.typing import NDArray

from recsys.cores import spread
from recsys.ranking_kernels import scan, sort_each, sort_heaps

_FIRST_BLOCK, _LARGEST_BLOCK = 512, 1536

Ranked = tuple[NDArray[np.int64], NDArray[np.float32]]
"""Rows and scores of one user's items, best first."""


@dataclass(frozen=True, eq=False)
class ItemIndex:
    """Item factors in the order in which `top_n` looks at them.

    Attributes
    ----------
    rows : int32, (n_items,)
        Row of the item at each place.
    factors : float32, (n_items, factors), C order
        Of the items by place; norms do not increase.
    """

    rows: NDArray[np.int32]
    factors: NDArray[np.float32]

    @classmethod
    def build(cls, item_factors: NDArray[np.float32]) -> ItemIndex:
        """Sort items by the norm of their factors, float32, (n_items, factors); equal norms by row."""
        rows = np.argsort(-_norms(item_factors), kind="stable").astype(np.int32)
        return cls(rows, np.ascontiguousarray(item_factors[rows]))

    @cached_property
    def norms(self) -> NDArray[np.float64]:
        """Norms by place, none below one that follows: float64, (n_items,)."""
        # Whoever made the index may have rounded otherwise.
        return np.maximum.accumulate(_norms(self.factors)[::-1])[::-1]

    @cached_property
    def places(self) -> NDArray[np.int32]:
        """Place of each row: int32, (n_items,)."""
        places = np.empty_like(self.rows)
        places[self.rows] = np.arange(len(self.rows), dtype=np.int32)
        return places


@dataclass(frozen=True, eq=False)
class Ranking(Sequence[Ranked]):
    """The best items of many users: a sequence of (rows int64, scores float32), one per user.

    Attributes
    ----------
    rows, scores : int64, float32, (n_users, n)
        Of each user's items, best first.
    sizes : int64, (n_users,)
        How many of them there are; what follows means nothing.
    """

    rows: NDArray[np.int64]
    scores: NDArray[np.float32]
    sizes: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.sizes)

    @overload
    def __getitem__(self, place: int) -> Ranked: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Ranked]: ...
    def __getitem__(self, place: int | slice) -> Ranked | Sequence[Ranked]:
        if isinstance(place, slice):
            return [self[at] for at in range(*place.indices(len(self)))]
        size = self.sizes[place]
        return self.rows[place, :size], self.scores[place, :size]

    def spread_to(self, users: NDArray[np.integer], n_users: int) -> Ranking:
        """Return the ranking of ``n_users`` users of which these are the given ones; the others have no items."""
        if len(users) == n_users:
            return self
        rows = np.zeros((n_users, self.rows.shape[1]), np.int64)
        scores, sizes = np.zeros(rows.shape, np.float32), np.zeros(n_users, np.int64)
        rows[users], scores[users], sizes[users] = self.rows, self.scores, self.sizes
        return Ranking(rows, scores, sizes)


def top_n(
    user_factors: NDArray[np.float32],
    index: ItemIndex,
    *,
    excluded: Sequence[NDArray[np.integer]],
    hidden: NDArray[np.integer] | None = None,
    n: int,
) -> Ranking:
    """Return each user's ``n`` best items by x_u·y_i.

    Parameters
    ----------
    user_factors : float32, (n_users, factors)
    index : ItemIndex
    excluded : integers, one array per user
        Rows of items that this user must not be given, for one that owns them.
    hidden : integers
        Rows of items that nobody must be given.
    n : int
        Length of the lists, ≥ 1; a list is shorter only when fewer items are left.

    Returns
    -------
    Ranking
        Best first; equal scores in order of row, which is the order of item ids. A score is the product summed in
        float64 and rounded once.
    """
    bounds = np.concatenate(([0], np.cumsum([len(rows) for rows in excluded], dtype=np.int64)))
    owned_places = index.places[np.concatenate(excluded)] if bounds[-1] else np.empty(0, np.int32)
    hidden_places = np.sort(index.places[[] if hidden is None else hidden]).astype(np.int64)
    n = min(n, len(index.rows))

    def part(start: int, stop: int) -> Ranking:
        return _top_n_of(user_factors[start:stop], index, owned_places, bounds[start : stop + 1], hidden_places, n)

    parts = spread(len(user_factors), part)
    if len(parts) == 1:
        return parts[0]
    return Ranking(
        np.concatenate([part.rows for part in parts]),
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.sizes for part in parts]),
    )


def _top_n_of(
    user_factors: NDArray[np.float32],
    index: ItemIndex,
    excluded: NDArray[np.int32],
    bounds: NDArray[np.int64],
    hidden: NDArray[np.int64],
    n: int,
) -> Ranking:
    n_users, n_items = len(user_factors), len(index.rows)
    sort_each(excluded, bounds)
    norms = _norms(user_factors)
    # Twice what a float32 product of the longest vectors may be off (Higham 2002, Accuracy and stability, eq. 3.5).
    roundings = 2 * (user_factors.shape[1] + 2) * 2.0**-24
    slack = (roundings * norms * index.norms[0]).astype(np.float32)
    limits = np.full(n_users, -np.inf, np.float32)
    scores, rows = np.zeros((n_users, n), np.float32), np.zeros((n_users, n), np.int64)
    sizes = np.zeros(n_users, np.int64)
    excluded_next, excluded_end = bounds[:-1].copy(), bounds[1:]
    users = np.arange(n_users)
    start, width = 0, max(_FIRST_BLOCK, 8 * n)
    while start < n_items and len(users):
        stop = min(start + width, n_items)
        block = (user_factors if len(users) == n_users else user_factors[users]) @ index.factors[start:stop].T
        if len(hidden):
            first, last = np.searchsorted(hidden, (start, stop))
            block[:, hidden[first:last] - start] = -np.inf
        scan(
            block,
            start,
            users,
            user_factors,
            index.factors,
            index.rows,
            excluded,
            excluded_next,
            excluded_end,
            scores,
            rows,
            sizes,
            limits,
            slack,
        )
        start, width = stop, min(2 * width, _LARGEST_BLOCK)
        if start < n_items:
            users = users[norms[users] * index.norms[start] >= limits[users]]
    sort_heaps(scores, rows, sizes)
    return Ranking(rows, scores, sizes)


def full_sort(
    user_factors: NDArray[np.float32],
    item_factors: NDArray[np.float32],
    *,
    excluded: Sequence[NDArray[np.integer]],
    n: int,
) -> list[Ranked]:
    """Return what `top_n` returns, by scoring and sorting everything: its readable twin, for tests and benchmarks."""
    wide = item_factors.astype(np.float64)
    ranked = []
    for user, rows in zip(user_factors, excluded, strict=True):
        scores = (wide * user).sum(axis=1).astype(np.float32)
        left = np.setdiff1d(np.arange(len(wide)), rows)
        best = left[np.lexsort((left, -scores[left]))[:n]]
        ranked.append((best, scores[best]))
    return ranked


def _norms(factors: NDArray[np.float32]) -> NDArray[np.float64]:
    squares: NDArray[np.float64] = np.einsum("ik,ik->i", factors, factors, dtype=np.float64)
    return np.sqrt(squares)
