from __future__ import annotations

import math

import numpy as np
import pytest

from recsys.confidence import confidence


@pytest.mark.parametrize(
    ("quantity", "alpha", "expected"),
    [(1.0, 1.0, 2.0), (3.0, 1.0, 3.0), (7.0, 10.0, 31.0), (1.0, 0.0, 1.0), (1_000_000.0, 0.0, 1.0), (1023.0, 0.5, 6.0)],
)
def test_confidence_is_one_plus_alpha_times_the_binary_logarithm(
    quantity: float, alpha: float, expected: float
) -> None:
    assert confidence(np.array([quantity]), alpha=alpha).tolist() == [expected]


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0, 40.0])
def test_confidences_agree_with_plain_arithmetic(alpha: float) -> None:
    quantities = [1e-6, 0.5, 1.0, 2.5, 12.0, 999_999.5, 1e12]
    found = confidence(np.array(quantities), alpha=alpha)
    assert found.dtype == np.float32
    assert found.tolist() == pytest.approx([1 + alpha * math.log(1 + q) / math.log(2) for q in quantities], rel=1e-6)


def test_one_event_of_a_millionth_still_counts_a_little_more_than_nothing() -> None:
    assert confidence(np.array([1e-6]), alpha=1.0)[0] > 1.0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_no_quantities_give_no_confidences(dtype: type[np.floating]) -> None:
    found = confidence(np.array([], dtype=dtype), alpha=1.0)
    assert found.shape == (0,)
    assert found.dtype == np.float32


def test_the_quantities_are_left_as_they_are() -> None:
    quantities = np.array([1.0, 2.0])
    confidence(quantities, alpha=3.0)
    assert quantities.tolist() == [1.0, 2.0]
