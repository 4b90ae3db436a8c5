"""The exact top-N beside what else finds one: implicit, faiss, numpy; and beside the score matrix alone.

Run: .venv/bin/python -m benchmarks.top_n (for faiss: .venv/bin/pip install faiss-cpu)
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable

import numpy as np
from implicit.cpu.topk import topk
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits

from benchmarks.measuring import BATCH, LISTED, buyers, complete_journey, enlarged, fitted_model, medians
from recsys.fold_in import UserSolver
from recsys.model import gram
from recsys.ranking import ItemIndex, full_sort, top_n

_CHECKED_AT_ONCE = 200


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
        "recsys.ranking": lambda: top_n(users, index, excluded=excluded, n=LISTED),
        "implicit.cpu.topk": lambda: topk(factors, users, LISTED, filter_query_items=owned, num_threads=threads),
        "the score matrix alone": lambda: np.matmul(users, factors.T, out=scores),
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
                raise AssertionError("recsys.ranking is not a full sort")


def compare(title: str, factors: NDArray[np.float32], owned: csr_matrix, *, rounds: int = 9) -> dict[str, float]:
    """Print and return microseconds per user of each contender."""
    users = users_of(factors, owned)
    taken = medians(contenders(users, factors, owned), rounds=rounds)
    microseconds = {name: seconds / len(users) * 1e6 for name, seconds in taken.items()}
    ours = microseconds["recsys.ranking"]
    print(f"{title}, batch {len(users)}, {LISTED} best")
    for name, value in microseconds.items():
        print(f"  {name:<24} {value:10,.1f} us/user {value / ours:8.2f} x ours", flush=True)
    return microseconds


def main() -> None:
    """Compare at 65,000 items, at a million, and for a single user."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", type=int, default=10_000, help="users compared with a full sort first")
    parser.add_argument("--items", type=int, default=1_000_000, help="items of the large catalogue")
    options = parser.parse_args()
    interactions = complete_journey()
    factors = fitted_model(interactions).item_factors
    with threadpool_limits(os.cpu_count(), "blas"):
        if options.check:
            many = buyers(interactions, options.check)
            ensure_exact(users_of(factors, many), factors, many)
            print(f"{options.check:,} users: the same as a full sort", flush=True)
        owned = buyers(interactions, BATCH)
        compare(f"Complete Journey, {len(factors):,} items", factors, owned)
        compare(f"Complete Journey, {len(factors):,} items", factors, owned[:1], rounds=99)
        large = enlarged(factors, options.items)
        more = csr_matrix((owned.data, owned.indices, owned.indptr), shape=(BATCH, len(large)))
        compare(f"{len(large):,} items, norms and directions drawn from those", large, more, rounds=5)


if __name__ == "__main__":
    main()
