"""Exact top-N: the best items by score x_u·y_i + b_i, ties by row, excluded rows never.

Items are sorted by what they can score at most, and are scored block by block. By Cauchy–Schwarz no item from a
place on can score more than the maximum of ‖x_u‖·‖y_i‖ + b_i from there on; a user whose worst listed score is
above it is done. Real models have a few long item vectors and very many short ones, so most users are done after a
few blocks (the "length-based pruning" of Teflioudi & Gemulla, 2016, Exact and approximate maximum inner product
search with LEMP, section 4.1). Within a block, scores come from one float32 matrix product, in which the bias is
one more dimension. Scores that are high enough for a list are computed again in float64, so the result does not
depend on batch, block or machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import overload

import numpy as np
from numpy.typing import NDArray

from recsys.model.top_n_kernels import enter, scan, sort_each, sort_heaps
from recsys.runtime.threads import map_ranges

_FIRST_BLOCK, _LARGEST_BLOCK = 512, 1536
_STRIDE = 64
_USER_NORMS = np.concatenate(([0.0], np.exp2(np.arange(-4, 6.5, 0.5))))

Ranked = tuple[NDArray[np.int64], NDArray[np.float32]]
"""Rows and scores of one user's items, best first."""


@dataclass(frozen=True, eq=False)
class ItemIndex:
    """Items in the order in which `top_n` scores them.

    Attributes
    ----------
    rows : int32, (n_items,)
        Row of the item at each place.
    factors : float32, (n_items, factors), C order
        Factors by place; with biases there is one more column, b_i.
    has_bias : bool
    """

    rows: NDArray[np.int32]
    factors: NDArray[np.float32]
    has_bias: bool = False

    @classmethod
    def build(
        cls, item_factors: NDArray[np.float32], item_bias: NDArray[np.float32] | None = None, *, user_norm: float = 1.0
    ) -> ItemIndex:
        """Sort items by what they can score with a user of this norm; equal ones by row.

        Parameters
        ----------
        item_factors : float32, (n_items, factors)
        item_bias : float32, (n_items,), or None
        user_norm : float
            ‖x_u‖ of a typical user. Any value gives correct results; a bad one costs time.
        """
        norms = _norms(item_factors)
        most = norms if item_bias is None else user_norm * norms + item_bias
        rows = np.argsort(-most, kind="stable").astype(np.int32)
        wide = item_factors if item_bias is None else np.column_stack((item_factors, item_bias))
        return cls(rows, np.ascontiguousarray(wide[rows]), item_bias is not None)

    def reach(self, user_norms: NDArray[np.float64], place: int) -> NDArray[np.float64]:
        """Return an upper bound of the scores from a place on, for users with these norms: float64, (n_users,)."""
        longest = self._longest[place]
        if not self.has_bias:
            reached: NDArray[np.float64] = user_norms * longest
            return reached
        # The maximum of ‖x_u‖·‖y_i‖ + b_i is convex in ‖x_u‖: a line between two points of it is never below, and it
        # rises by no more than the longest y_i.
        bounds: NDArray[np.float64] = np.interp(user_norms, _USER_NORMS, self._peaks[place // _STRIDE])
        bounds += longest * np.maximum(0, user_norms - _USER_NORMS[-1])
        return bounds

    @cached_property
    def _longest(self) -> NDArray[np.float64]:
        """The largest norm from each place on: float64, (n_items,)."""
        # The machine that built the index may round differently, so norms may increase even without biases.
        return np.maximum.accumulate(self.norms[::-1])[::-1]

    @cached_property
    def _peaks(self) -> NDArray[np.float64]:
        """The maximum of ρ‖y_i‖ + b_i from every `_STRIDE`-th place on, for each ρ of `_USER_NORMS`: float64."""
        firsts = np.arange(0, len(self.rows), _STRIDE)
        peaks = [np.maximum.reduceat(norm * self.norms + self.factors[:, -1], firsts) for norm in _USER_NORMS]
        return np.ascontiguousarray(np.maximum.accumulate(np.array(peaks)[:, ::-1], axis=1)[:, ::-1].T)

    @cached_property
    def norms(self) -> NDArray[np.float64]:
        """Norms of the item factors by place, without the bias: float64, (n_items,)."""
        return _norms(self.factors[:, :-1] if self.has_bias else self.factors)

    @cached_property
    def most(self) -> tuple[float, float]:
        """The largest norm and the largest absolute bias."""
        bias = np.abs(self.factors[:, -1]).max(initial=0) if self.has_bias else 0.0
        return float(self.norms.max(initial=0)), float(bias)

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
        The items of each user, best first.
    sizes : int64, (n_users,)
        Number of items of each user; the values after them are undefined.
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

    def with_others(
        self,
        starts: NDArray[np.int32],
        rows: NDArray[np.int32],
        boosts: NDArray[np.float64],
        affinity: float,
        user_factors: NDArray[np.float32],
        item_factors: NDArray[np.float32],
        *,
        n: int,
    ) -> Ranking:
        """Return the best ``n`` of these items and of other items that are not among them.

        Parameters
        ----------
        starts : int32, (n_users + 1,)
            Where each user's other items begin in ``rows`` and ``boosts``.
        rows : int32, (n_others,)
        boosts : float64, (n_others,)
        affinity : float
            Their scores are (1 + affinity) · x_u·y_i + boost; an item with a boost of −∞ is left out.
        user_factors, item_factors : float32, (n_users, factors), (n_items, factors)
        """
        width = min(n, self.rows.shape[1] + int(np.diff(starts).max(initial=0)))
        wide_rows, scores = np.zeros((len(self), width), np.int64), np.zeros((len(self), width), np.float32)
        kept = min(width, self.rows.shape[1])
        wide_rows[:, :kept], scores[:, :kept] = self.rows[:, :kept], self.scores[:, :kept]
        sizes = np.minimum(self.sizes, width)

        def part(start: int, stop: int) -> None:
            enter(
                starts[start : stop + 1],
                rows,
                boosts,
                1.0 + affinity,
                user_factors[start:stop],
                item_factors,
                wide_rows[start:stop],
                scores[start:stop],
                sizes[start:stop],
            )

        map_ranges(len(self), part)
        return Ranking(wide_rows, scores, sizes)

    def spread_to(self, users: NDArray[np.integer], n_users: int) -> Ranking:
        """Return a ranking of ``n_users`` users: these at the places ``users``, the others without items."""
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
    """Return each user's ``n`` best items by x_u·y_i + b_i.

    Parameters
    ----------
    user_factors : float32, (n_users, factors)
    index : ItemIndex
    excluded : integers, one array per user
        Rows of items that must not be in the list of this user, such as owned items.
    hidden : integers
        Rows of items that must not be in any list.
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

    parts = map_ranges(len(user_factors), part)
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
    if index.has_bias:
        user_factors = np.column_stack((user_factors, np.ones(n_users, np.float32)))
    # Twice what a float32 product of the longest vectors may be off (Higham 2002, Accuracy and stability, eq. 3.5).
    roundings = 2 * (user_factors.shape[1] + 2) * 2.0**-24
    longest, largest_bias = index.most
    slack = (roundings * (norms * longest + largest_bias)).astype(np.float32)
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
            users = users[index.reach(norms[users], start) >= limits[users]]
    sort_heaps(scores, rows, sizes)
    return Ranking(rows, scores, sizes)


def full_sort(
    user_factors: NDArray[np.float32],
    item_factors: NDArray[np.float32],
    *,
    excluded: Sequence[NDArray[np.integer]],
    n: int,
) -> list[Ranked]:
    """Return what `top_n` returns, by scoring and sorting all items: a readable version for tests and benchmarks."""
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
