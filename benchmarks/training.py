"""One fit: the trainer's, implicit as it comes, and Spark's ALS, with what the factors are worth.

Run: .venv/bin/python -m benchmarks training
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
from implicit.cpu.als import AlternatingLeastSquares
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits

from benchmarks.measuring import FACTORS, complete_journey, in_turns
from benchmarks.results import TIMES, Measured
from recsys.model.confidence import confidences_of
from recsys.model.factor_model import gram
from recsys.model.fold_in import UserSolver
from recsys.model.top_n import ItemIndex, top_n
from recsys.training import als

_REGULARIZATION, _ITERATIONS, _LISTED = 20.0, 15, 20


def split(confidences: csr_matrix) -> tuple[csr_matrix, list[NDArray[np.int32]]]:
    """Hold back a fifth of each user's items."""
    rng = np.random.default_rng(4)
    held = rng.random(confidences.nnz) < 0.2
    users = np.repeat(np.arange(confidences.shape[0]), np.diff(confidences.indptr))
    kept = csr_matrix((confidences.data[~held], (users[~held], confidences.indices[~held])), shape=confidences.shape)
    bounds = np.searchsorted(users[held], np.arange(confidences.shape[0] + 1))
    rows = confidences.indices[held]
    return kept, [rows[start:stop] for start, stop in pairwise(bounds.tolist())]


def ndcg(factors: NDArray[np.float32], kept: csr_matrix, held: list[NDArray[np.int32]]) -> float:
    """Return the mean NDCG@20 of what was held back; users are folded in against the factors."""
    users = UserSolver(factors, gram(factors), regularization=_REGULARIZATION).fold_in(kept)
    owned = [kept.indices[start:stop] for start, stop in pairwise(kept.indptr.tolist())]
    ranked = top_n(users, ItemIndex.build(factors), excluded=owned, n=_LISTED)
    discounts = 1 / np.log2(np.arange(2, _LISTED + 2))
    found = [
        float((np.isin(best, wanted) * discounts[: len(best)]).sum() / discounts[: min(len(wanted), _LISTED)].sum())
        for (best, _), wanted in zip(ranked, held, strict=True)
        if len(wanted)
    ]
    return float(np.mean(found))


def spark_fit(kept: csr_matrix) -> tuple[Callable[[], object], Callable[[], NDArray[np.float32]]] | None:
    """Return a fit by Spark MLlib on local[2], and its item factors; None where pyspark is not installed."""
    try:
        from pyspark.ml.recommendation import ALS
        from pyspark.sql import SparkSession
    except ImportError:
        return None
    import pandas as pd

    folder = Path(tempfile.mkdtemp())
    users = np.repeat(np.arange(kept.shape[0]), np.diff(kept.indptr))
    # Spark's confidence is 1 + alpha * rating, ours is in the matrix.
    pd.DataFrame({"user": users.astype(np.int32), "item": kept.indices, "rating": kept.data - 1}).to_parquet(
        folder / "ratings.parquet", index=False
    )
    spark = (
        SparkSession.builder.master("local[2]")
        .config("spark.driver.memory", "6g")
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
        .config("spark.driver.extraJavaOptions", "-Xss16m")
        .config("spark.log.level", "ERROR")
        .getOrCreate()
    )
    spark.sparkContext.setCheckpointDir(str(folder / "checkpoints"))  # or the plan of fifteen iterations is too deep
    ratings = spark.read.parquet(str(folder / "ratings.parquet")).cache()
    ratings.count()
    # Spark multiplies lambda by the number of a row's ratings: here by that of a typical user and a typical item.
    regularization = _REGULARIZATION / math.sqrt(kept.nnz / kept.shape[0] * kept.nnz / kept.shape[1])
    model: list[object] = []

    def fit() -> None:
        model[:] = [
            ALS(
                rank=FACTORS,
                maxIter=_ITERATIONS,
                regParam=regularization,
                implicitPrefs=True,
                alpha=1.0,
                seed=0,
                userCol="user",
                itemCol="item",
                ratingCol="rating",
            ).fit(ratings)
        ]

    def factors() -> NDArray[np.float32]:
        frame = model[0].itemFactors.toPandas()  # type: ignore[attr-defined]
        found = np.zeros((kept.shape[1], FACTORS), np.float32)
        found[frame["id"].to_numpy()] = np.stack(frame["features"].to_numpy())
        return found

    return fit, factors


def measure(*, quick: bool) -> list[Measured]:
    """Compare at equal factors and iterations."""
    kept, held = split(
        confidences_of(
            complete_journey().owned, n_items=len(complete_journey().items), alpha=1.0, half_life_days=0, reference_s=0
        )
    )
    iterations = 3 if quick else _ITERATIONS
    factors: dict[str, NDArray[np.float32]] = {}

    def ours() -> None:
        factors["the trainer's fit"] = als.fit(
            kept, factors=FACTORS, regularization=_REGULARIZATION, iterations=iterations, seed=0
        )

    def implicit() -> None:
        with threadpool_limits(1, "blas"):
            model = AlternatingLeastSquares(
                factors=FACTORS,
                regularization=_REGULARIZATION,
                alpha=1.0,
                iterations=iterations,
                random_state=0,
                num_threads=os.cpu_count() or 1,
            )
            model.fit(kept, show_progress=False)
        factors["implicit's defaults"] = model.item_factors

    candidates: dict[str, Callable[[], object]] = {"the trainer's fit": ours, "implicit's defaults": implicit}
    taken = in_turns(candidates, rounds=3, of=min) if quick else in_turns(candidates)
    spark = None if quick else spark_fit(kept)
    if spark is not None:
        taken |= in_turns({"Spark MLlib, local[2]": spark[0]}, rounds=2)
        factors["Spark MLlib, local[2]"] = spark[1]()
    case = f"{kept.nnz:,} pairs, {FACTORS} factors, {iterations} iterations"
    found = [Measured("training", case, name, seconds, "s") for name, seconds in taken.items()]
    found += [Measured("training", case, f"NDCG@20, {name}", ndcg(f, kept, held), "") for name, f in factors.items()]
    own = taken["the trainer's fit"]
    ratio = taken["implicit's defaults"] / own
    found.append(Measured("training", case, "implicit / ours", ratio, TIMES, at_least=0.95))
    if spark is not None:
        found.append(
            Measured("training", case, "Spark / ours", taken["Spark MLlib, local[2]"] / own, TIMES, at_least=5)
        )
    return found
