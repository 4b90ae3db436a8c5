"""What all benchmarks share: the shop they measure, and how they time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recsys.data.event_log import EventLog
from recsys.data.interactions import Interactions
from recsys.data.vocabulary import Vocabulary
from recsys.demo import purchases
from recsys.model.confidence import confidences_of
from recsys.model.factor_model import FactorModel, gram
from recsys.training import als

FACTORS, OWNED, LISTED, BATCH = 64, 30, 50, 512
_ALPHA, _REGULARIZATION, _ITERATIONS = 1.0, 20.0, 15
K = TypeVar("K")
_CACHE = Path(__file__).parent.parent / ".cache" / "benchmarks"


def complete_journey() -> Interactions:
    """Return the whole year's purchases of the demo's grocer."""
    frame, _ = purchases.load()
    user_codes, users = frame["household_id"].astype(str).factorize()
    item_codes, items = frame["product_id"].astype(str).factorize()
    units = (frame["quantity"].clip(0, 1e6) * 1_000_000).astype(np.int64)
    seconds = frame["transaction_timestamp"].astype("datetime64[s]").astype(np.int64)
    return EventLog(
        list(users), user_codes, list(items), item_codes, units.to_numpy(), seconds.to_numpy()
    ).interactions()


def fitted_model(interactions: Interactions) -> FactorModel:
    """Return the model that the trainer's defaults make of purchases; kept on disk for the next run."""
    kept = _CACHE / f"factors-{len(interactions.items)}-{interactions.quantities.nnz}.npy"
    if kept.exists():
        factors = np.load(kept)
    else:
        confidences = confidences_of(
            interactions.owned, n_items=len(interactions.items), alpha=_ALPHA, half_life_days=0, reference_s=0
        )
        factors = als.fit(confidences, factors=FACTORS, regularization=_REGULARIZATION, iterations=_ITERATIONS, seed=0)
        _CACHE.mkdir(parents=True, exist_ok=True)
        np.save(kept, factors)
    return model_of(factors, interactions.items)


def model_of(factors: NDArray[np.float32], items: Vocabulary) -> FactorModel:
    """Return a model with these item factors."""
    return FactorModel(
        version="20261122T101500Z-1a2b3c",
        items=items,
        item_factors=factors,
        item_gram=gram(factors),
        alpha=_ALPHA,
        regularization=_REGULARIZATION,
    )


def enlarged(factors: NDArray[np.float32], n_items: int) -> NDArray[np.float32]:
    """Draw ``n_items`` item vectors with the norms and the spread of directions of given ones."""
    rng = np.random.default_rng(1)
    drawn = factors[rng.integers(0, len(factors), n_items)]
    turned = drawn + rng.normal(0, 0.3, drawn.shape).astype(np.float32) * np.std(factors, axis=0)
    norms = np.linalg.norm(turned, axis=1, keepdims=True)
    lengths = np.linalg.norm(drawn, axis=1, keepdims=True)
    return np.ascontiguousarray(turned / np.where(norms == 0, 1, norms) * lengths, dtype=np.float32)


def buyers(interactions: Interactions, n_users: int, *, owned: int = OWNED) -> csr_matrix:
    """Return users who each own ``owned`` items that one real household owns: csr_matrix, float32 ones."""
    rng = np.random.default_rng(2)
    bought = interactions.quantities
    rich = np.flatnonzero(np.diff(bought.indptr) >= owned)
    rows = []
    for household in rng.choice(rich, n_users).tolist():
        items = bought.indices[bought.indptr[household] : bought.indptr[household + 1]]
        rows.append(np.sort(rng.choice(items, owned, replace=False)))
    indices = np.concatenate(rows)
    return csr_matrix(
        (np.ones(len(indices), np.float32), indices, np.arange(n_users + 1) * owned),
        shape=(n_users, bought.shape[1]),
    )


def in_turns(
    candidates: Mapping[K, Callable[[], object]],
    *,
    rounds: int = 5,
    of: Callable[[list[float]], float] = statistics.median,
) -> dict[K, float]:
    """Return each candidate's seconds: they take turns, after one round that does not count.

    Documents quote the median of the rounds. What only guards a bar takes the least: whoever else uses the machine
    makes a round longer, never shorter.
    """
    seconds: dict[K, list[float]] = {name: [] for name in candidates}
    for turn in range(rounds + 1):
        for name, candidate in candidates.items():
            started = time.perf_counter()
            candidate()
            if turn:
                seconds[name].append(time.perf_counter() - started)
    return {name: of(taken) for name, taken in seconds.items()}
