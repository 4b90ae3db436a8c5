"""What the learned ranking is worth: plain ALS, one regression, two.

.venv/bin/python -m benchmarks.ranking_forms [online-retail.parquet]

The same factors, split and users; NDCG@20 from the cut on. For decision 9.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.boosted_trees import parameters_of
from benchmarks.quality import Shop, complete_journey, events_of, online_retail
from recsys.evaluation.baselines import of_model
from recsys.evaluation.metrics import user_metrics
from recsys.evaluation.split import EVERYBODY, Split, split_by_time
from recsys.model.boosts import DEMAND, NO_WEIGHTS, BoostWeights, habit_features
from recsys.model.factor_model import FactorModel
from recsys.model.influence import Buyers
from recsys.recommend.user_lists import user_factors
from recsys.training import boost_weights
from recsys.training.fit import fit_model

N, _WINDOW_S = 20, 30 * 86_400


def main() -> None:
    """Print one line per data set and form."""
    shops = [online_retail(Path(sys.argv[1]))] if len(sys.argv) > 1 else []
    for shop in [*shops, complete_journey()]:
        for form, new, everything in compare(shop):
            print(f"{shop.name}, {form:<24} new {new:.4f}, all {everything:.4f}", flush=True)


def compare(shop: Shop) -> Iterator[tuple[str, float, float]]:
    """Yield each form with its NDCG of items new to the user and of all items."""
    events, cut_s = events_of(shop), int(pd.Timestamp(shop.cut, tz="UTC").timestamp())
    before, parameters = events.where(events.seconds < cut_s), parameters_of(shop)
    earlier_s = cut_s - _WINDOW_S
    learning, judging = split_by_time(before, cut_s=earlier_s), split_by_time(events, cut_s=cut_s)
    known = before.where(before.seconds < earlier_s)
    earlier = fit_model(known, parameters, reference_s=earlier_s, weights=NO_WEIGHTS).model
    demand = boost_weights.item_demand(Buyers.of(known), earlier)
    plain = fit_model(before, parameters, reference_s=cut_s, weights=NO_WEIGHTS).model
    demand_now = boost_weights.item_demand(Buyers.of(before), plain)

    def judged(weights: BoostWeights) -> tuple[float, float]:
        model = replace(plain, boosts=weights.boosts(demand_now))
        return _ndcg(judging, model, include_purchased=False), _ndcg(judging, model, include_purchased=True)

    yield "plain ALS", *judged(NO_WEIGHTS)
    yield "one regression", *judged(_one_regression(learning, earlier, demand))
    yield "two, as in the product", *judged(boost_weights.learn(learning, earlier, demand))


def _ndcg(split: Split, model: FactorModel, *, include_purchased: bool) -> float:
    known, wanted = np.flatnonzero(split.segment(EVERYBODY)), split.everything if include_purchased else split.new
    lists = of_model(model, split.owned.of(known), n=N, include_purchased=include_purchased)
    return float(user_metrics(lists, wanted.of(known), n=N).ndcg.mean())


def _one_regression(split: Split, model: FactorModel, demand: NDArray[np.float64]) -> BoostWeights:
    """Learn b_i and g_ui together: habits are zero for items that are not owned."""
    users = np.flatnonzero(~split.newcomers & (split.everything.sizes > 0))
    owned, everything, n_items = split.owned.of(users), split.everything.of(users), len(model.items)
    new, owner, factors = everything.without(owned), owned.owners(), user_factors(owned, model)
    pairs = owner * n_items + owned.rows
    drawn, drawn_weights = boost_weights._drawn(
        np.union1d(pairs, new.keys), len(users), n_items, np.random.default_rng(0)
    )
    drawn_of, drawn_rows = np.divmod(drawn, n_items)
    new_of, new_rows = np.divmod(new.keys, n_items)
    of, rows = np.concatenate((new_of, drawn_of, owner)), np.concatenate((new_rows, drawn_rows, owned.rows))
    habits = np.zeros((len(of), habit_features(owned, reference_s=0).shape[1]))
    habits[-len(owner) :] = habit_features(owned, reference_s=model.reference_s)
    affinity = np.einsum("nk,nk->n", factors[of], model.item_factors[rows], dtype=np.float64)
    fitted = boost_weights._regression(
        np.column_stack((affinity, demand[rows], habits)),
        np.concatenate((np.ones(len(new_of)), np.zeros(len(drawn_of)), np.isin(pairs, everything.keys))).astype(bool),
        np.concatenate((np.ones(len(new_of)), drawn_weights, np.ones(len(owner)))),
    )
    if fitted is None:
        return NO_WEIGHTS
    weights = (fitted[1:] / fitted[1]).tolist()
    last = 1 + len(DEMAND)
    return BoostWeights(demand=tuple(weights[1:last]), habit=tuple(weights[last:]))


if __name__ == "__main__":
    main()
