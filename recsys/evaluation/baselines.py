"""Baselines: popularity, recent popularity, the user's own habit, item-kNN. All return `Lists`."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Final

import numpy as np
from implicit.nearest_neighbours import CosineRecommender
from implicit.utils import ParameterWarning
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from recsys.data.event_log import EventLog
from recsys.data.interactions import Interactions
from recsys.data.owned_items import Owned
from recsys.data.vocabulary import Vocabulary
from recsys.evaluation.compare import ITEM_KNN, OWN_FREQUENCY, POPULAR, RECENTLY_POPULAR, Recommender
from recsys.evaluation.split import Lists, Split
from recsys.model.boosts import decayed_frequency
from recsys.model.factor_model import FactorModel
from recsys.model.top_n import Ranking
from recsys.recommend.user_lists import rank

_SCORES_AT_ONCE = 8_000_000
_DAY_S = 24 * 3600
RECENT_HALF_LIFE_DAYS: Final = 30.0
HABIT_HALF_LIFE_DAYS: Final = 120.0
NEIGHBOURS: Final = 100


def as_lists(ranking: Ranking, n: int) -> Lists:
    """Return a ranking as rows of ``n`` places; −1 = no item."""
    lists = np.full((len(ranking), n), -1)
    width = min(n, ranking.rows.shape[1])
    lists[:, :width] = np.where(np.arange(width) < ranking.sizes[:, None], ranking.rows[:, :width], -1)
    return lists


def of_model(
    model: FactorModel,
    owned: Owned,
    *,
    n: int,
    include_purchased: bool,
    hidden: NDArray[np.integer] | None = None,
    batch: int = 2048,
) -> Lists:
    """Return a model's lists for users with these owned items, without the hidden rows: int64, (n_users, n)."""
    parts = [
        as_lists(
            rank(
                owned.of(np.arange(start, min(start + batch, len(owned)))),
                model,
                n=n,
                hidden=hidden,
                include_purchased=include_purchased,
            ),
            n,
        )
        for start in range(0, len(owned), batch)
    ]
    return np.concatenate(parts) if parts else np.empty((0, n), np.int64)


def lists_of(
    model: FactorModel,
    items: Vocabulary,
    owned: Owned,
    *,
    n: int,
    include_purchased: bool,
    hidden: NDArray[np.integer] | None = None,
) -> Lists:
    """Return a model's lists, as rows of its items, for users who own rows of these items: it may know others.

    Parameters
    ----------
    items : Vocabulary
    owned : Owned
        Rows are those of ``items``.
    hidden : integers, or None
        Rows of the model's items that are in no list.

    Returns
    -------
    int64, (n_users, n); −1 = no item
    """
    known = owned.translated(model.items.find(items.ids))
    return of_model(model, known, n=n, include_purchased=include_purchased, hidden=hidden)


def model_lists(
    model: FactorModel, split: Split, *, n: int, include_purchased: bool, users: NDArray[np.integer] | None = None
) -> Lists:
    """Return a model's lists for users of a split, all or those at these places, as rows of the split's items."""
    owned = split.owned if users is None else split.owned.of(users)
    lists = lists_of(model, split.items, owned, n=n, include_purchased=include_purchased)
    return np.where(lists >= 0, split.items.find(model.items.ids)[lists], -1)


def baselines(split: Split, events: EventLog, *, n: int) -> dict[str, Recommender]:
    """Return the recommenders that a model should beat, by name.

    Parameters
    ----------
    split : Split
    events : EventLog
        All events before the cut, or more.
    n : int
        Length of the lists.
    """
    before = events.where(events.seconds < split.cut_s)
    rows = split.items.find(before.item_ids)[before.item_codes]
    bought = (rows >= 0) & (before.units > 0)
    ages = (split.cut_s - before.seconds[bought]) / _DAY_S
    weights = np.exp2(-ages / RECENT_HALF_LIFE_DAYS)
    recent = np.bincount(rows[bought], weights, len(split.items)).astype(np.float64)
    train = cache(before.interactions)  # once for both kinds of lists, and only where item-kNN is asked for
    return {
        POPULAR: popular(split, n=n),
        RECENTLY_POPULAR: lambda include_purchased: of_scores(
            recent, split.owned, n=n, include_purchased=include_purchased
        ),
        OWN_FREQUENCY: lambda include_purchased: (
            of_habit(split.owned, reference_s=split.cut_s, n=n, half_life_days=HABIT_HALF_LIFE_DAYS)
            if include_purchased
            else None
        ),
        ITEM_KNN: lambda include_purchased: of_neighbours(
            train(), split.owned, n=n, neighbours=NEIGHBOURS, include_purchased=include_purchased
        ),
    }


def popular(split: Split, *, n: int) -> Recommender:
    """Return a recommender of the items with the most buyers at the cut, the same for everyone."""
    buyers = split.buyers.astype(np.float64)
    return lambda include_purchased: of_scores(buyers, split.owned, n=n, include_purchased=include_purchased)


def of_scores(scores: NDArray[np.float64], owned: Owned, *, n: int, include_purchased: bool) -> Lists:
    """Return lists of the items with the highest scores, float64, (n_items,), the same for everyone."""
    order = np.lexsort((np.arange(len(scores)), -scores))
    places = np.tile(np.arange(n), (len(owned), 1))
    if not include_purchased:
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        owner = owned.owners()
        taken = place[owned.rows][np.lexsort((place[owned.rows], owner))]
        # The k-th owned item of a user, at place p, moves everything from place p − k on by one.
        moves = taken - (np.arange(len(taken)) - owned.starts[owner])
        near = moves < n
        keys = owner[near] * n + moves[near]
        places += np.bincount(keys, minlength=places.size).reshape(places.shape).cumsum(axis=1)
    lists: Lists = np.where(places < len(order), order[np.minimum(places, len(order) - 1)], -1)
    return lists


def of_habit(owned: Owned, *, reference_s: int, n: int, half_life_days: float) -> Lists:
    """Return each user's owned items, the most frequently and most recently bought first."""
    frequency = decayed_frequency(owned, reference_s=reference_s, half_life_days=half_life_days)
    owner = owned.owners()
    order = np.lexsort((owned.rows, -frequency, owner))
    places = np.arange(len(order)) - owned.starts[owner]
    lists = np.full((len(owned), n), -1)
    kept = places < n
    lists[owner[kept], places[kept]] = owned.rows[order][kept]
    return lists


def of_neighbours(train: Interactions, owned: Owned, *, n: int, neighbours: int, include_purchased: bool) -> Lists:
    """Return the items most similar to what users own, by the sum of cosines over each item's neighbours (item-kNN).

    Deshpande & Karypis (2004), Item-based top-N recommendation algorithms.
    """
    n_items = len(train.items)
    lists = np.full((len(owned), n), -1)
    if not len(owned):
        return lists
    recommender = CosineRecommender(K=neighbours + 1)  # of which the item itself is one
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ParameterWarning)  # of what it passes on to itself
        recommender.fit(train.owned.matrix(np.ones(len(train.owned.rows)), n_items), show_progress=False)
    similarity = recommender.similarity.astype(np.float32).tocoo()
    apart = similarity.row != similarity.col
    similarity = csr_matrix(
        (similarity.data[apart], (similarity.col[apart], similarity.row[apart])), shape=(n_items, n_items)
    )
    histories = owned.matrix(np.ones(len(owned.rows), np.float32), n_items)
    width, batch = min(n, n_items), max(1, _SCORES_AT_ONCE // n_items)
    for start in range(0, len(owned), batch):
        part = histories[start : start + batch]
        scores = (part @ similarity).toarray()
        if not include_purchased:
            scores[np.repeat(np.arange(part.shape[0]), np.diff(part.indptr)), part.indices] = 0
        best = np.argpartition(-scores, width - 1, axis=1)[:, :width]
        found = np.take_along_axis(scores, best, axis=1)
        order = np.lexsort((best, -found), axis=1)
        best, found = np.take_along_axis(best, order, axis=1), np.take_along_axis(found, order, axis=1)
        lists[start : start + batch, :width] = np.where(found > 0, best, -1)
    return lists
