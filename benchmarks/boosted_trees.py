"""Would boosted trees over candidates rank better than the linear form? Run once for decision 9.

.venv/bin/pip install xgboost && .venv/bin/python -m benchmarks.boosted_trees [online-retail.parquet]

Both see the same features. Trees learn on the 200 best items by the linear score of each user at one cut, labelled by
what was bought in the 30 days after it, and rank the 200 best at a later cut anew; judged by what was bought since.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.quality import GATED, Shop, complete_journey, events_of, online_retail
from recsys.data.event_log import EventLog
from recsys.data.owned_items import Owned
from recsys.evaluation.baselines import of_model
from recsys.evaluation.metrics import user_metrics
from recsys.evaluation.split import EVERYBODY, RelevantItems, Split, split_by_time
from recsys.model.boosts import HABIT, habit_features
from recsys.model.factor_model import FactorModel
from recsys.model.influence import Buyers
from recsys.recommend.user_lists import user_factors
from recsys.training.boost_weights import item_demand
from recsys.training.fit import fit_model
from recsys.training.parameters import Parameters

CANDIDATES, N, _WINDOW_S = 200, 20, 30 * 86_400


def main() -> None:
    """Print one line per data set and kind of list."""
    shops = [online_retail(Path(sys.argv[1]))] if len(sys.argv) > 1 else []
    for shop in [*shops, complete_journey()]:
        compare(shop)


def parameters_of(shop: Shop) -> Parameters:
    """Return what its models are fitted with here: a gift shop's purchases age, a grocer's do not."""
    every_item = replace(GATED, min_buyers=0.0)  # a split has them all
    if "Retail" in shop.name:
        return replace(every_item, alpha=3.0, regularization=2.0, half_life_days=20.0)
    return every_item


def compare(shop: Shop) -> None:
    """Fit at two cuts, learn at the first, judge at the second."""
    import xgboost  # not among the requirements, see above

    events = events_of(shop)
    cut_s = int(pd.Timestamp(shop.cut, tz="UTC").timestamp())
    parameters = parameters_of(shop)
    before = events.where(events.seconds < cut_s)
    now = fit_model(before, parameters, reference_s=cut_s)
    earlier_s = cut_s - _WINDOW_S
    earlier_events = events.where(events.seconds < earlier_s)
    earlier = fit_model(earlier_events, parameters, reference_s=earlier_s, weights=now.weights)
    learning, judging = split_by_time(before, cut_s=earlier_s), split_by_time(events, cut_s=cut_s)
    for include_purchased in (False, True):
        features, labels, groups, _ = _candidates(
            learning, earlier.model, earlier_events, include_purchased=include_purchased
        )
        trees = xgboost.XGBRanker(
            objective="rank:ndcg", n_estimators=300, max_depth=6, learning_rate=0.05, min_child_weight=20, subsample=0.8
        )
        trees.fit(features, labels, group=groups)
        features, _, groups, lists = _candidates(judging, now.model, before, include_purchased=include_purchased)
        started = time.perf_counter()
        scores = trees.predict(features)
        per_user_ms = 1000 * (time.perf_counter() - started) / len(groups)
        _, wanted = _known(judging, include_purchased=include_purchased)
        ranked = np.full(lists.shape, -1)
        start = 0
        for user, size in enumerate(groups):
            ranked[user, :size] = lists[user, np.argsort(-scores[start : start + size], kind="stable")]
            start += size
        linear, boosted = (float(user_metrics(one, wanted, n=N).ndcg.mean()) for one in (lists, ranked))
        print(
            f"{shop.name}, {'all items' if include_purchased else 'new to the user'}: linear {linear:.4f}, "
            f"trees {boosted:.4f} ({boosted / linear - 1:+.1%}), {per_user_ms:.2f} ms per user",
            flush=True,
        )


def _known(split: Split, *, include_purchased: bool) -> tuple[Owned, RelevantItems]:
    wanted = split.everything if include_purchased else split.new
    known = np.flatnonzero(split.segment(EVERYBODY) & (wanted.sizes > 0))
    return split.owned.of(known), wanted.of(known)


def _candidates(
    split: Split, model: FactorModel, events: EventLog, *, include_purchased: bool
) -> tuple[NDArray[np.float64], NDArray[np.bool_], list[int], NDArray[np.int64]]:
    """Return features, whether bought, how many of each user, and the candidates themselves."""
    owned, wanted = _known(split, include_purchased=include_purchased)
    lists = of_model(model, owned, n=CANDIDATES, include_purchased=include_purchased)
    users, places = np.nonzero(lists >= 0)
    rows = lists[users, places]
    affinity = np.einsum("nk,nk->n", user_factors(owned, model)[users], model.item_factors[rows], dtype=np.float64)
    habits = np.zeros((len(rows), len(HABIT)))
    keys = owned.owners() * len(model.items) + owned.rows
    asked = users * len(model.items) + rows
    at = np.minimum(np.searchsorted(keys, asked), len(keys) - 1)
    is_owned = keys[at] == asked
    habits[is_owned] = habit_features(owned, reference_s=model.reference_s)[at[is_owned]]
    features = np.column_stack((affinity, places, item_demand(Buyers.of(events), model)[rows], habits))
    return features, wanted.hits(lists)[users, places], np.bincount(users, minlength=len(owned)).tolist(), lists


if __name__ == "__main__":
    main()
