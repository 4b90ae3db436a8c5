"""What do the bounds of one user's influence cost honest shops? Models with them beside models without, users in pairs.

Run: .venv/bin/python -m benchmarks.bounds [online-retail.parquet] [--seeds 4]

Judged is NDCG@20 on what was bought after the cut: for users that the model knows, for those new to the shop, and, as
there are few of these, for all after their first purchase by models that have not seen them. Each user counts with the
mean over random starts. The interval is that of the difference, by drawing users again. Also printed
is what min_buyers keeps out of the model: items, and what was bought of them in the thirty days after the cut.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.quality import GATED, Shop, complete_journey, events_of, folds, newcomers, online_retail
from recsys.data.event_log import EventLog
from recsys.evaluation.baselines import model_lists, of_model
from recsys.evaluation.metrics import intervals, user_metrics
from recsys.evaluation.split import Split, split_by_time
from recsys.model.factor_model import FactorModel
from recsys.model.influence import BOUNDED, UNBOUNDED, Buyers
from recsys.training.fit import fit_model, supported

N = 20
PARAMETERS = replace(GATED, factors=64)
_DAY_S = 24 * 3600
_AFTER_S = 30 * _DAY_S


def fitted(before: EventLog, cut_s: int, *, bounded: bool, seed: int) -> FactorModel:
    """Return a model of what was bought before the cut."""
    parameters = replace(PARAMETERS, seed=seed, min_buyers=PARAMETERS.min_buyers if bounded else 0.0)
    return fit_model(before, parameters, reference_s=cut_s, bounds=BOUNDED if bounded else UNBOUNDED).model


def ndcg(before: EventLog, split: Split, *, bounded: bool, seeds: int) -> NDArray[np.float64]:
    """Return each user's NDCG@20 of new and of all items, the mean over seeds; NaN if there was nothing to list."""
    found = np.full((seeds, split.n_users, 2), np.nan)
    for seed in range(seeds):
        model = fitted(before, split.cut_s, bounded=bounded, seed=seed)
        for column, wanted in enumerate((split.new, split.everything)):
            lists = model_lists(model, split, n=N, include_purchased=column == 1)
            judged = user_metrics(lists, wanted, n=N)
            found[seed, judged.users, column] = judged.ndcg
    return np.asarray(found.mean(axis=0))


def compare(shop: Shop, cut: str, *, seeds: int) -> None:
    """Print what the bounds cost from a cut on."""
    events, cut_s = events_of(shop), int(pd.Timestamp(cut, tz="UTC").timestamp())
    before = events.where(events.seconds < cut_s)
    split = split_by_time(events, cut_s=cut_s, end_s=cut_s + _AFTER_S)
    without, bounded = (ndcg(before, split, bounded=bounded, seeds=seeds) for bounded in (False, True))
    print(f"\n{shop.name}, from {cut}, {seeds} seeds")
    for segment, chosen in (("known users", ~split.newcomers), ("new users", split.newcomers)):
        for column, kind in enumerate(("new to the user", "all items")):
            judged = chosen & np.isfinite(without[:, column])
            if not judged.any():
                continue
            show(f"{segment}, {kind}", without[judged, column], bounded[judged, column])


def compare_unseen(shop: Shop, *, seeds: int) -> None:
    """Print what the bounds cost users whom no model has seen, after their first purchase (as in `make quality`)."""
    events, cut_s = events_of(shop), int(pd.Timestamp(shop.cut, tz="UTC").timestamp())
    found: list[dict[str, float]] = []
    for bounded in (False, True):
        of_users: dict[str, list[float]] = defaultdict(list)
        for seed in range(seeds):
            for before, after in folds(events, cut_s):
                model = fitted(before, cut_s, bounded=bounded, seed=seed)
                users, owned, wanted = newcomers(after, model.items, 1)
                judged = user_metrics(of_model(model, owned, n=N, include_purchased=False), wanted, n=N)
                for user, value in zip(users, judged.ndcg.tolist(), strict=True):
                    of_users[user].append(value)
        found.append({user: float(np.mean(values)) for user, values in of_users.items()})
    both = sorted(found[0].keys() & found[1].keys())
    without, bounded_ = (np.array([one[user] for user in both]) for one in found)
    show("unseen users, new to the user", without, bounded_)


def show(who: str, without: NDArray[np.float64], bounded: NDArray[np.float64]) -> None:
    """Print the means of the same users, and how they differ."""
    mean = without.mean()
    (change,) = intervals((bounded - without)[:, None] / mean)
    what = f"{mean:.4f} without, {bounded.mean():.4f} with bounds"
    print(
        f"  {who}, {change.users:,} users: {what}: {change.mean:+.1%} ({change.low:+.1%} to {change.high:+.1%})",
        flush=True,
    )


def left_out(shop: Shop, days: int | None = None) -> None:
    """Print which part of the items is not in the model, and of what was bought of them later; of a shop so old."""
    events = events_of(shop)
    cut_s = int(pd.Timestamp(shop.cut, tz="UTC").timestamp())
    if days is not None:
        cut_s = int(events.seconds.min()) + days * _DAY_S
    before = events.where(events.seconds < cut_s)
    later = events.where((events.seconds >= cut_s) & (events.seconds < cut_s + _AFTER_S) & (events.units > 0))
    known = before.interactions()
    kept = supported(known, Buyers.of(before), PARAMETERS.min_buyers)
    was_known, is_kept = (one.items.find(later.item_ids)[later.item_codes] >= 0 for one in (known, kept))
    age = f"before {shop.cut}" if days is None else f"its first {days} days"
    items = f"{1 - len(kept.items) / len(known.items):.1%} of {len(known.items):,} items"
    bought = f"{1 - is_kept.sum() / was_known.sum():.2%} of what was bought later of known ones"
    print(f"  {shop.name}, {age}: {items}, {bought}", flush=True)


def main() -> None:
    """Compare, and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bounds", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("data", nargs="?", type=Path, help="Online Retail as a Parquet file")
    parser.add_argument("--seeds", type=int, default=4)
    options = parser.parse_args()
    # From the earlier day on there are more users who are new to the shop.
    shops = [(complete_journey(), "2017-02-15", complete_journey(least_buyers=0))]
    if options.data is not None:
        retail = online_retail(options.data)
        shops.append((retail, "2011-09-01", retail))
    print("not in the model:")
    for _, _, everything in shops:
        left_out(everything)
        left_out(everything, days=30)
    for shop, early, _ in shops:
        for cut in (early, shop.cut):
            compare(shop, cut, seeds=options.seeds)
        compare_unseen(shop, seeds=options.seeds)


if __name__ == "__main__":
    main()
