"""Does it pay to scale λ by how much is known of a user or item? Against plain λ, with equal tuning.

Rendle, Krichene, Zhang & Koren (2021), Revisiting the performance of iALS on item recommendation benchmarks, eq. 8:
λ_u = λ (|I_u| + w·|I|)^ν, and the same for items. Run:

.venv/bin/python -m benchmarks.regularization [online-retail.parquet] [--trials 25]

Both forms get the same number of trials of the same sampler, judged by NDCG@20 of items new to the user in two windows
before the cut; the best of each is judged from the cut on. No decay, no learned ranking: the form of λ alone.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numba
import numpy as np
import optuna
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from benchmarks.quality import complete_journey, events_of, online_retail
from recsys.data.event_log import EventLog
from recsys.evaluation.baselines import as_lists
from recsys.evaluation.metrics import user_metrics
from recsys.evaluation.split import EVERYBODY, Split, split_by_time
from recsys.model.top_n import ItemIndex, top_n

FACTORS, ITERATIONS, N = 64, 12, 20
_WINDOW_S = 14 * 86_400


@dataclass(frozen=True)
class Form:
    """α, and the regularization of a row with ``known`` entries of ``most``; ν = 0 is plain λ."""

    alpha: float
    regularization: float
    exponent: float = 0.0
    share: float = 0.0

    def of(self, known: NDArray[np.integer], most: int, among: NDArray[np.integer]) -> NDArray[np.float64]:
        """Return λ of each row; its mean over the rows it is fitted ``among`` is ``regularization``.

        So both forms search the same range.
        """
        usual = ((among + self.share * most) ** self.exponent).mean()
        return np.asarray(self.regularization * (known + self.share * most) ** self.exponent / usual, np.float64)


@numba.njit(cache=True, fastmath=True)
def _solve(
    starts: NDArray[np.int32],
    rows: NDArray[np.int32],
    extra: NDArray[np.float32],
    others: NDArray[np.float64],
    regularizations: NDArray[np.float64],
    solved: NDArray[np.float64],
) -> None:
    """Solve each row's factors against the others', with a λ of its own."""
    gram = others.T @ others
    for row in range(len(starts) - 1):
        own = others[rows[starts[row] : starts[row + 1]]]
        more = extra[starts[row] : starts[row + 1]].astype(np.float64)
        left = gram + own.T @ (own * more.reshape(-1, 1)) + regularizations[row] * np.eye(gram.shape[0])
        solved[row] = np.linalg.solve(left, own.T @ (1.0 + more))


def _items(strengths: csr_matrix, form: Form) -> NDArray[np.float64]:
    by_item = strengths.T.tocsr()
    n_users, n_items = strengths.shape
    of_users, of_items = np.diff(strengths.indptr), np.diff(by_item.indptr)
    for_users, for_items = form.of(of_users, n_items, of_users), form.of(of_items, n_users, of_items)
    users, items = np.zeros((n_users, FACTORS)), np.random.default_rng(0).normal(0, 0.1, (n_items, FACTORS))
    for _ in range(ITERATIONS):
        _solve(strengths.indptr, strengths.indices, form.alpha * strengths.data, items, for_users, users)
        _solve(by_item.indptr, by_item.indices, form.alpha * by_item.data, users, for_items, items)
    return items


def judged(split: Split, events: EventLog, form: Form) -> float:
    """Return NDCG@20 of items new to the user, for users who were there before."""
    train = events.where(events.seconds < split.cut_s).interactions().owned
    n_items = len(split.items)
    items = _items(train.matrix(np.log2(1 + train.quantities).astype(np.float32), n_items), form)
    known = np.flatnonzero(split.segment(EVERYBODY) & (split.new.sizes > 0))
    owned = split.owned.of(known)
    users = np.zeros((len(owned), FACTORS))
    extra = form.alpha * np.log2(1 + owned.quantities)
    _solve(owned.starts, owned.rows, extra.astype(np.float32), items, form.of(owned.sizes, n_items, train.sizes), users)
    excluded = [owned.rows[first:last] for first, last in pairwise(owned.starts.tolist())]
    ranking = top_n(users.astype(np.float32), ItemIndex.build(items.astype(np.float32)), excluded=excluded, n=N)
    return float(user_metrics(as_lists(ranking, N), split.new.of(known), n=N).ndcg.mean())


def searched(events: EventLog, cut_s: int, *, scaled: bool, trials: int) -> Form:
    """Return the best of so many trials, on two windows before the cut."""
    before = events.where(events.seconds < cut_s)
    splits = [
        split_by_time(before, cut_s=cut_s - (window + 1) * _WINDOW_S, end_s=cut_s - window * _WINDOW_S)
        for window in range(2)
    ]

    def form_of(trial: optuna.trial.BaseTrial) -> Form:
        form = Form(trial.suggest_float("alpha", 0.1, 30, log=True), trial.suggest_float("lambda", 0.3, 300, log=True))
        if not scaled:
            return form
        exponent, share = trial.suggest_float("nu", 0.1, 1.0), trial.suggest_float("w", 1e-3, 1.0, log=True)
        return replace(form, exponent=exponent, share=share)

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=1))
    study.optimize(
        lambda trial: float(np.mean([judged(split, before, form_of(trial)) for split in splits])),
        n_trials=trials,
    )
    return form_of(optuna.trial.FixedTrial(study.best_params))


def main() -> None:
    """Print one line per data set and form."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.regularization")
    parser.add_argument("file", nargs="?", type=Path, help="Online Retail as a Parquet file")
    parser.add_argument("--trials", type=int, default=25)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for shop in ([online_retail(options.file)] if options.file else []) + [complete_journey()]:
        events, cut_s = events_of(shop), int(pd.Timestamp(shop.cut, tz="UTC").timestamp())
        split = split_by_time(events, cut_s=cut_s)
        found = {}
        for name, scaled in (("plain", False), ("scaled", True)):
            form = searched(events, cut_s, scaled=scaled, trials=options.trials)
            found[name] = judged(split, events, form)
            print(f"{shop.name}, {name}: NDCG@{N} {found[name]:.4f}, {form}", flush=True)
        print(f"{shop.name}: {found['scaled'] / found['plain'] - 1:+.1%}", flush=True)


if __name__ == "__main__":
    main()
