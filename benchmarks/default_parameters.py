"""Compare α and λ on items new to the user: NDCG@20 and hit rate@10 on a temporal split.

Run: .venv/bin/python benchmarks/default_parameters.py [online-retail.parquet]

Complete Journey comes with the demo extra; UCI Online Retail is taken from the file if one is given (columns user_id,
item_id, quantity, timestamp).
"""

from __future__ import annotations

import sys
from itertools import product

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recsys.data.event_log import EventLog
from recsys.data.interactions import Interactions
from recsys.demo import purchases
from recsys.model.confidence import confidences_of
from recsys.model.factor_model import gram
from recsys.model.fold_in import UserSolver
from recsys.model.top_n import ItemIndex, top_n
from recsys.training import als

ALPHAS, REGULARIZATIONS = (1.0, 3.0, 10.0, 30.0), (1.0, 20.0, 100.0)
FACTORS, ITERATIONS, N = 64, 15, 20


def main() -> None:
    """Print one line per pair of parameters and data set."""
    if len(sys.argv) > 1:
        retail = pd.read_parquet(sys.argv[1])
        compare("Online Retail", retail[["user_id", "item_id", "quantity", "timestamp"]], "2011-11-09")
    transactions, _ = purchases.load()
    journey = transactions[transactions["quantity"] > 0]
    columns = ["household_id", "product_id", "quantity", "transaction_timestamp"]
    compare("Complete Journey", journey[columns], str(purchases.LIVE_FROM.date()))


def compare(name: str, frame: pd.DataFrame, cut: str) -> None:
    """Fit on what precedes the cut, judge on what follows."""
    frame = frame.set_axis(["user", "item", "quantity", "time"], axis=1).astype({"user": str, "item": str})
    train, test = frame[frame["time"] < cut], frame[frame["time"] >= cut]
    interactions = _interactions(train)
    users = [user for user in test["user"].unique() if user in interactions.users.rows]
    rows = [interactions.users.rows[user] for user in users]
    matrix = interactions.quantities
    owned = [matrix.indices[matrix.indptr[row] : matrix.indptr[row + 1]] for row in rows]
    bought = test.groupby("user")["item"].unique()
    item_rows = interactions.items.rows
    wanted = [
        {item_rows[item] for item in bought[user] if item in item_rows} - set(items.tolist())
        for user, items in zip(users, owned, strict=True)
    ]
    popular = np.argsort(-interactions.buyers(), kind="stable")
    lists = [popular[~np.isin(popular, items)][:N] for items in owned]
    print(f"{name}: {len(users):,} users\n  {'popular':<24} {_quality(lists, wanted)}")
    for alpha, regularization in product(ALPHAS, REGULARIZATIONS):
        confidences = confidences_of(
            interactions.owned, n_items=len(interactions.items), alpha=alpha, half_life_days=0, reference_s=0
        )
        factors = als.fit(confidences, factors=FACTORS, regularization=regularization, iterations=ITERATIONS, seed=0)
        user_factors = UserSolver(factors, gram(factors), regularization=regularization).fold_in(confidences[rows])
        ranked = [items for items, _ in top_n(user_factors, ItemIndex.build(factors), excluded=owned, n=N)]
        print(f"  alpha {alpha:<4g} lambda {regularization:<5g}  {_quality(ranked, wanted)}", flush=True)


def _interactions(train: pd.DataFrame) -> Interactions:
    user_codes, users = pd.factorize(train["user"])
    item_codes, items = pd.factorize(train["item"])
    units = (train["quantity"] * 1e6).round().to_numpy(dtype=np.int64)
    seconds = train["time"].astype("datetime64[s]").astype(np.int64).to_numpy()
    return EventLog(list(users), user_codes, list(items), item_codes, units, seconds).interactions()


def _quality(lists: list[NDArray[np.int64]], wanted: list[set[int]]) -> str:
    discounts = 1 / np.log2(np.arange(N) + 2)
    gains, hits = [], []
    for items, truth in zip(lists, wanted, strict=True):
        if truth:
            relevant = np.isin(items, list(truth))
            gains.append((relevant * discounts[: len(items)]).sum() / discounts[: min(N, len(truth))].sum())
            hits.append(bool(relevant[:10].any()))
    return f"NDCG@{N} {np.mean(gains):.4f}   hit rate@10 {np.mean(hits):.3f}"


if __name__ == "__main__":
    main()
