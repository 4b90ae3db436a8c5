"""The confidence of a purchase: the only place with the formula."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recsys.data.owned_items import Owned


def confidence(
    quantities: NDArray[np.floating], ages_days: NDArray[np.floating], *, alpha: float, half_life_days: float
) -> NDArray[np.float32]:
    """Return the confidence c_ui = 1 + α·s_ui of owned items, with strength s_ui = log2(1 + net quantity)·2^(−age/h).

    Hu, Koren & Volinsky (2008), section 4. The logarithm keeps wholesale quantities small: one unit has strength 1,
    three have 2. The strength halves with every half-life since the newest event.

    Parameters
    ----------
    quantities : float, (n,)
        Net quantities, all above zero.
    ages_days : float, (n,)
        Time since each item's newest event, ≥ 0.
    alpha : float
        Weight of the strength, ≥ 0.
    half_life_days : float
        h, ≥ 0; 0 = strengths do not decay.

    Returns
    -------
    float32, (n,); empty for an empty input.
    """
    strengths = np.log2(1.0 + np.asarray(quantities, dtype=np.float64))
    if half_life_days:
        strengths *= np.exp2(-np.asarray(ages_days, dtype=np.float64) / half_life_days)
    return (1.0 + alpha * strengths).astype(np.float32)


def confidences_of(owned: Owned, *, n_items: int, alpha: float, half_life_days: float, reference_s: int) -> csr_matrix:
    """Return the confidences c_ui of what users own.

    Parameters
    ----------
    owned : Owned
    n_items : int
        Items of the vocabulary that the rows of ``owned`` refer to.
    alpha, half_life_days : float
        See `confidence`.
    reference_s : int
        The moment that ages are measured against, in epoch seconds.

    Returns
    -------
    csr_matrix, float32, (n_users, n_items)
    """
    ages_days = owned.ages_days(reference_s)
    return owned.matrix(confidence(owned.quantities, ages_days, alpha=alpha, half_life_days=half_life_days), n_items)
