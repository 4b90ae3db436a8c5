from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from typing import Any

import numpy as np
import pytest

from recsys.data.vocabulary import Vocabulary
from recsys.errors import InvalidModel
from recsys.model.boosts import HABIT, Boosts
from recsys.model.factor_model import gram
from tests.builders import dense_gram, make_model

N_ITEMS, FACTORS = 5, 3


def with_value(value: float, *shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    array = np.ones(shape, dtype=np.float32)
    array[-1, -1] = value
    return array


def with_boosts(**changes: Any) -> Boosts:
    nothing = np.zeros(N_ITEMS, np.float32)
    return Boosts(
        **{"item_bias": nothing, "repeat_bias": nothing, "affinity": 0.0, "habit": np.zeros(len(HABIT)), **changes}
    )


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"item_factors": np.ones((N_ITEMS - 1, FACTORS), np.float32)}, "5 item ids, but 4 rows"),
        ({"item_factors": np.ones((N_ITEMS + 1, FACTORS), np.float32)}, "5 item ids, but 6 rows"),
        ({"item_factors": np.ones(N_ITEMS, np.float32)}, "shape"),
        ({"item_factors": np.ones((N_ITEMS, FACTORS, 1), np.float32)}, "shape"),
        ({"item_factors": np.ones((N_ITEMS, 0), np.float32)}, "shape"),
        ({"item_factors": np.array(1.0, np.float32)}, "shape"),
        ({"item_factors": np.ones((N_ITEMS, FACTORS), np.float64)}, "dtype"),
        ({"item_factors": np.ones((N_ITEMS, FACTORS), ">f4")}, "dtype"),
        ({"item_factors": np.ones((N_ITEMS, FACTORS), object)}, "dtype"),
        ({"item_factors": np.asfortranarray(np.ones((N_ITEMS, FACTORS), np.float32))}, "C order"),
        ({"item_factors": with_value(np.nan, N_ITEMS, FACTORS)}, "NaN"),
        ({"item_factors": with_value(np.inf, N_ITEMS, FACTORS)}, "infinity"),
        ({"item_factors": with_value(-np.inf, N_ITEMS, FACTORS)}, "infinity"),
        ({"item_gram": np.ones((FACTORS, FACTORS + 1), np.float32)}, "item_gram has shape"),
        ({"item_gram": np.ones((FACTORS + 1, FACTORS + 1), np.float32)}, "item_gram has shape"),
        ({"item_gram": np.ones(FACTORS, np.float32)}, "item_gram has shape"),
        ({"item_gram": np.ones((FACTORS, FACTORS), np.float64)}, "item_gram has dtype"),
        ({"item_gram": with_value(np.nan, FACTORS, FACTORS)}, "item_gram holds NaN"),
        ({"item_gram": with_value(np.inf, FACTORS, FACTORS)}, "item_gram holds NaN or infinity"),
        ({"items": Vocabulary(["a", "b", "c", "e", "d"])}, "increasing"),
        ({"items": Vocabulary(["a", "b", "b", "c", "d"])}, "increasing"),
        ({"items": Vocabulary(["e", "d", "c", "b", "a"])}, "increasing"),
        ({"items": Vocabulary(["a", "b", "c", "d"])}, "4 item ids, but 5 rows"),
        ({"items": Vocabulary([]), "item_factors": np.ones((0, FACTORS), np.float32)}, "no items"),
        ({"regularization": 0.0}, "regularization"),
        ({"regularization": -1.0}, "regularization"),
        ({"regularization": float("nan")}, "regularization"),
        ({"regularization": float("inf")}, "regularization"),
        ({"alpha": -0.1}, "alpha"),
        ({"alpha": float("nan")}, "alpha"),
        ({"alpha": float("inf")}, "alpha"),
        ({"half_life_days": -1.0}, "half_life_days"),
        ({"half_life_days": float("nan")}, "half_life_days"),
        ({"boosts": with_boosts(item_bias=np.ones(N_ITEMS + 1, np.float32))}, "item_bias has shape"),
        ({"boosts": with_boosts(item_bias=np.ones(N_ITEMS))}, "item_bias has dtype"),
        ({"boosts": with_boosts(repeat_bias=np.full(N_ITEMS, np.nan, np.float32))}, "repeat_bias holds NaN"),
        ({"boosts": with_boosts(affinity=float("nan"))}, "affinity"),
        ({"boosts": with_boosts(habit=np.ones(len(HABIT) + 1))}, "weights of habits"),
        ({"boosts": with_boosts(habit=np.full(len(HABIT), np.inf))}, "weight of habits"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_model_that_is_not_sound_is_refused(changes: dict[str, Any], problem: str) -> None:
    model = make_model(N_ITEMS, FACTORS)
    with pytest.raises(InvalidModel, match=problem) as caught:
        replace(model, **changes)
    assert model.version in str(caught.value)


@pytest.mark.parametrize(("n_items", "factors"), [(1, 1), (1, 8), (8, 1), (40, 6)])
def test_a_sound_model_is_taken(n_items: int, factors: int) -> None:
    model = make_model(n_items, factors, alpha=0.0, regularization=1e-6)
    assert model.item_factors.shape == (n_items, factors)
    assert model.items.rows[model.items.ids[-1]] == n_items - 1


def test_a_model_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        make_model().alpha = 3.0  # type: ignore[misc]


def test_gram_is_the_sum_of_outer_products() -> None:
    item_factors = make_model(300, 7, seed=2).item_factors
    found = gram(item_factors)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, dense_gram(item_factors), rtol=1e-6, atol=1e-6)


def test_gram_does_not_lose_small_factors_beside_large_ones() -> None:
    item_factors = np.full((2**20, 1), 2.0**-5, dtype=np.float32)
    item_factors[0] = 2.0**12
    assert gram(item_factors).tolist() == [[np.float32(2.0**24 + (2**20 - 1) * 2.0**-10)]]


def test_the_solver_is_made_once() -> None:
    model = make_model()
    assert model.solver is model.solver
