from __future__ import annotations

import math

import numpy as np
import pytest

from recsys.model.confidence import confidence

NEW = np.zeros(1)


@pytest.mark.parametrize(
    ("quantity", "alpha", "expected"),
    [(1.0, 1.0, 2.0), (3.0, 1.0, 3.0), (7.0, 10.0, 31.0), (1.0, 0.0, 1.0), (1_000_000.0, 0.0, 1.0), (1023.0, 0.5, 6.0)],
)
def test_confidence_is_one_plus_alpha_times_the_binary_logarithm(
    quantity: float, alpha: float, expected: float
) -> None:
    assert confidence(np.array([quantity]), NEW, alpha=alpha, half_life_days=0).tolist() == [expected]


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0, 40.0])
def test_confidences_agree_with_plain_arithmetic(alpha: float) -> None:
    quantities = [1e-6, 0.5, 1.0, 2.5, 12.0, 999_999.5, 1e12]
    found = confidence(np.array(quantities), np.zeros(len(quantities)), alpha=alpha, half_life_days=0)
    assert found.dtype == np.float32
    assert found.tolist() == pytest.approx([1 + alpha * math.log(1 + q) / math.log(2) for q in quantities], rel=1e-6)


def test_one_event_of_a_millionth_still_counts_a_little_more_than_nothing() -> None:
    assert confidence(np.array([1e-6]), NEW, alpha=1.0, half_life_days=0)[0] > 1.0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_no_quantities_give_no_confidences(dtype: type[np.floating]) -> None:
    found = confidence(np.array([], dtype=dtype), np.array([]), alpha=1.0, half_life_days=30)
    assert found.shape == (0,)
    assert found.dtype == np.float32


def test_the_quantities_are_left_as_they_are() -> None:
    quantities, ages = np.array([1.0, 2.0]), np.array([3.0, 4.0])
    confidence(quantities, ages, alpha=3.0, half_life_days=5)
    assert quantities.tolist() == [1.0, 2.0]
    assert ages.tolist() == [3.0, 4.0]


def test_the_strength_halves_with_every_half_life() -> None:
    found = confidence(np.full(4, 3.0), np.array([0.0, 30.0, 60.0, 15.0]), alpha=4.0, half_life_days=30)
    assert found.tolist() == pytest.approx([9.0, 5.0, 3.0, 1 + 8 / math.sqrt(2)])


def test_without_a_half_life_age_does_not_matter() -> None:
    found = confidence(np.ones(2), np.array([0.0, 1e6]), alpha=1.0, half_life_days=0)
    assert found.tolist() == [2.0, 2.0]
