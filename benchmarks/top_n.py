"""The exact top-N beside what else finds one: implicit, faiss, numpy; and beside the score matrix alone.

Run: .venv/bin/python -m benchmarks top-n
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable

import numpy as np
from implicit.cpu.topk import topk
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits

from benchmarks.measuring import BATCH, LISTED, buyers, complete_journey, enlarged, fitted_model, in_turns
from benchmarks.results import TIMES, Measured
from recsys.model.factor_model import gram
from recsys.model.fold_in import UserSolver
from recsys.model.top_n import ItemIndex, full_sort, top_n

_CHECKED_AT_ONCE = 200
_OURS, _IMPLICIT, _SCORES = "recsys.model.top_n", "implicit.cpu.topk", "the score matrix alone"
_JUDGED = (_OURS, _IMPLICIT, _SCORES)


def users_of(factors: NDArray[np.float32], owned: csr_matrix) -> NDArray[np.float32]:
    """Return the factors of users from what they own."""
    solver = UserSolver(factors, gram(factors), regularization=20.0)
    return solver.fold_in(csr_matrix((owned.data * 2, owned.indices, owned.indptr), shape=owned.shape))


def contenders(
    users: NDArray[np.float32], factors: NDArray[np.float32], owned: csr_matrix
) -> dict[str, Callable[[], object]]:
    """Return what is measured, by name: each finds the top-N of all users without what they own."""
    index = ItemIndex.build(factors)
    index.norms, index.places  # noqa: B018 - built with the model, not with a batch
    excluded = np.split(owned.indices, owned.indptr[1:-1])
    threads = os.cpu_count() or 1
    scores = np.empty((len(users), len(factors)), np.float32)

    def partitioned() -> None:
        np.matmul(users, factors.T, out=scores)
        for user, rows in enumerate(excluded):
            scores[user, rows] = -np.inf
            best = np.argpartition(scores[user], -LISTED)[-LISTED:]
            best[np.argsort(-scores[user, best])]

    found: dict[str, Callable[[], object]] = {
        _OURS: lambda: top_n(users, index, excluded=excluded, n=LISTED),
        _IMPLICIT: lambda: topk(factors, users, LISTED, filter_query_items=owned, num_threads=threads),
        _SCORES: lambda: np.matmul(users, factors.T, out=scores),
        "numpy argpartition": partitioned,
    }
    try:
        import faiss
    except ImportError:
        return found
    flat = faiss.IndexFlatIP(factors.shape[1])
    flat.add(factors)
    most = LISTED + int(np.diff(owned.indptr).max())  # it cannot leave out what is owned: so many more are asked for
    return {**found, "faiss IndexFlatIP": lambda: flat.search(users, most)}


def ensure_exact(users: NDArray[np.float32], factors: NDArray[np.float32], owned: csr_matrix) -> None:
    """Compare with a full sort, user by user."""
    index = ItemIndex.build(factors)
    excluded = np.split(owned.indices, owned.indptr[1:-1])
    for start in range(0, len(users), _CHECKED_AT_ONCE):
        part = slice(start, start + _CHECKED_AT_ONCE)
        found = top_n(users[part], index, excluded=excluded[part], n=LISTED)
        expected = full_sort(users[part], factors, excluded=excluded[part], n=LISTED)
        for (rows, scores), (true_rows, true_scores) in zip(found, expected, strict=True):
            if not (np.array_equal(rows, true_rows) and np.array_equal(scores, true_scores)):
                raise AssertionError(f"{_OURS} is not a full sort")


def compare(
    case: str, factors: NDArray[np.float32], owned: csr_matrix, *, quick: bool, rounds: int = 9
) -> list[Measured]:
    """Return microseconds per user of each contender; quick, only of those that a bar needs."""
    candidates = contenders(users_of(factors, owned), factors, owned)
    if quick:
        candidates = {name: candidate for name, candidate in candidates.items() if name in _JUDGED}
    taken = in_turns(candidates, rounds=rounds, of=min if quick else statistics.median)
    return [Measured("top-n", case, name, seconds / owned.shape[0] * 1e6, "µs/user") for name, seconds in taken.items()]


def judged(found: list[Measured], *, implicit: float, scores: float | None) -> list[Measured]:
    """Add the ratios with their bars."""
    value = {one.what: one.value for one in found}
    case, ours = found[0].case, value[_OURS]
    ratio = value[_IMPLICIT] / ours
    found = [*found, Measured("top-n", case, "implicit / ours", ratio, TIMES, at_least=implicit)]
    if scores is not None:
        share = ours / value[_SCORES]
        found.append(Measured("top-n", case, f"ours / {_SCORES}", share, TIMES, at_most=scores))
    return found


def measure(*, quick: bool) -> list[Measured]:
    """Compare at 68,000 items, at a million, for a single user; in full, also see how cost grows."""
    interactions = complete_journey()
    factors = fitted_model(interactions).item_factors
    found = []
    with threadpool_limits(os.cpu_count(), "blas"):
        checked = 500 if quick else 10_000
        many = buyers(interactions, checked)
        ensure_exact(users_of(factors, many), factors, many)
        found.append(Measured("top-n", "exact", "users with the list of a full sort", checked, "of as many"))
        owned = buyers(interactions, BATCH)
        case = f"{len(factors):,} items of Complete Journey, {LISTED} best"
        found += judged(compare(f"{case}, batch {BATCH}", factors, owned, quick=quick), implicit=6, scores=0.5)
        found += judged(
            compare(f"{case}, batch 1", factors, owned[:1], quick=quick, rounds=99), implicit=2, scores=None
        )
        for n_items in (1_000_000,) if quick else (10_000, 30_000, 100_000, 300_000, 1_000_000):
            large = enlarged(factors, n_items)
            more = csr_matrix((owned.data, owned.indices % n_items, owned.indptr), shape=(BATCH, n_items))
            more.sort_indices()
            case = f"{n_items:,} items drawn from those, batch {BATCH}"
            rows = compare(case, large, more, quick=quick, rounds=9 if quick else 5)
            found += judged(rows, implicit=10, scores=0.25) if n_items == 1_000_000 else rows
    return found
