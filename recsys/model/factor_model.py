"""A fitted model: item factors and what is needed to fold users in."""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from recsys.data.vocabulary import Vocabulary
from recsys.errors import InvalidModel
from recsys.model.boosts import HABIT, Boosts
from recsys.model.fold_in import UserSolver
from recsys.model.top_n import ItemIndex

_ROWS_AT_ONCE = 65_536


def gram(item_factors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return YᵀY, summed in float64: float32, (factors, factors)."""
    wide = item_factors.astype(np.float64)
    return (wide.T @ wide).astype(np.float32)


@dataclass(frozen=True, eq=False)
class FactorModel:
    """An immutable model; shapes, dtypes and finiteness are checked here, once.

    Attributes
    ----------
    version : str; for example ``20261122T101500Z-1a2b3c``
    items : Vocabulary; item id ↔ row
    item_factors : float32, (n_items, factors), C order
    item_gram : float32, (factors, factors); YᵀY
    alpha : float; see `recsys.model.confidence.confidence`
    regularization : float; λ, above zero
    half_life_days : float; half-life of the strength of an owned item, 0 = no decay
    reference_s : int
        The moment that ages are measured against, in epoch seconds: the newest event that the model has seen. It is
        part of the model, so that a list follows from history and model alone and not from the time of day. Newer
        events have age 0.
    boosts : Boosts or None
        None = scores are x_u·y_i alone.
    stored_index : ItemIndex or None
        The index that was written with the model; None = it is built.

    Raises
    ------
    InvalidModel
        When a check fails; the text says which one.
    """

    version: str
    items: Vocabulary
    item_factors: NDArray[np.float32]
    item_gram: NDArray[np.float32]
    alpha: float
    regularization: float
    half_life_days: float = 0.0
    reference_s: int = 0
    boosts: Boosts | None = None
    stored_index: ItemIndex | None = None

    def __post_init__(self) -> None:
        def check(holds: bool, problem: str) -> None:
            if not holds:
                raise InvalidModel(f"model {self.version}: {problem}")

        factors, item_gram = self.item_factors, self.item_gram
        check(factors.ndim == 2 and factors.shape[1] >= 1, f"item_factors has shape {factors.shape}")
        check(len(self.items) == len(factors), f"{len(self.items)} item ids, but {len(factors)} rows of item_factors")
        check(len(factors) >= 1, "it has no items")
        expected = (factors.shape[1], factors.shape[1])
        check(item_gram.shape == expected, f"item_gram has shape {item_gram.shape}, not {expected}")
        check(factors.dtype == np.float32, f"item_factors has dtype {factors.dtype}, not float32")
        check(item_gram.dtype == np.float32, f"item_gram has dtype {item_gram.dtype}, not float32")
        check(factors.flags.c_contiguous, "item_factors is not in C order")
        check(bool(np.isfinite(factors).all()), "item_factors holds NaN or infinity")
        check(bool(np.isfinite(item_gram).all()), "item_gram holds NaN or infinity")
        check(np.isfinite(self.alpha) and self.alpha >= 0, f"alpha is {self.alpha}, must be ≥ 0")
        check(
            np.isfinite(self.regularization) and self.regularization > 0,
            f"regularization is {self.regularization}, must be > 0",
        )
        check(
            np.isfinite(self.half_life_days) and self.half_life_days >= 0,
            f"half_life_days is {self.half_life_days}, must be ≥ 0",
        )
        ids = self.items.ids
        check(all(a < b for a, b in pairwise(ids)), "item ids are not strictly increasing")
        if (boosts := self.boosts) is not None:
            for name, bias in (("item_bias", boosts.item_bias), ("repeat_bias", boosts.repeat_bias)):
                check(bias.shape == (len(factors),), f"{name} has shape {bias.shape}, not ({len(factors)},)")
                check(bias.dtype == np.float32, f"{name} has dtype {bias.dtype}, not float32")
                check(bool(np.isfinite(bias).all()), f"{name} holds NaN or infinity")
            check(np.isfinite(boosts.affinity), f"affinity is {boosts.affinity}")
            habit = boosts.habit
            check(habit.shape == (len(HABIT),), f"there are {habit.size} weights of habits, not {len(HABIT)}")
            check(bool(np.isfinite(habit).all()), "a weight of habits is NaN or infinite")
        if (index := self.stored_index) is not None:
            check(index.rows.dtype == np.int32, f"index_rows has dtype {index.rows.dtype}, not int32")
            whole = np.array_equal(np.sort(index.rows), np.arange(len(factors)))
            check(whole, "index_rows are not the rows of its items")
            check(self._is_index(index), "index_factors are not those of its items")

    def _is_index(self, index: ItemIndex) -> bool:
        wide = self.item_factors.shape[1]
        shape = (len(self.item_factors), wide + (self.boosts is not None))
        if (
            index.factors.dtype != np.float32
            or index.factors.shape != shape
            or index.has_bias != (self.boosts is not None)
        ):
            return False
        if self.boosts is not None and not np.array_equal(index.factors[:, wide], self.boosts.item_bias[index.rows]):
            return False
        parts = (slice(start, start + _ROWS_AT_ONCE) for start in range(0, shape[0], _ROWS_AT_ONCE))
        return all(np.array_equal(index.factors[part, :wide], self.item_factors[index.rows[part]]) for part in parts)

    @cached_property
    def index(self) -> ItemIndex:
        """The items in the order in which `top_n` scores them."""
        return self.stored_index or ItemIndex.build(
            self.item_factors, None if self.boosts is None else self.boosts.item_bias
        )

    def forget_pages(self) -> None:
        """Release the memory of mapped files: serving needs few of the pages that checking has read."""
        stored = () if self.stored_index is None else (self.stored_index.factors,)
        for array in (self.item_factors, *stored):
            _forget_pages(array)

    @cached_property
    def solver(self) -> UserSolver:
        """The fold-in solver of this model."""
        return UserSolver(self.item_factors, self.item_gram, regularization=self.regularization)


def _forget_pages(array: NDArray[np.float32]) -> None:
    """Release the memory of a mapped file; pages that are read again come from the page cache."""
    source: object = array
    while isinstance(source, np.ndarray):
        source = source.base
    if isinstance(source, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        source.madvise(mmap.MADV_DONTNEED)
