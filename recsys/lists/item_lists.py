"""The lists that all users share, written: popular items, overall and by category, and similar items."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from recsys.errors import DataDirError
from recsys.lists.encoding import as_json, items_json
from recsys.lists.live_model import LoadedModel
from recsys.logger import logger
from recsys.model.factor_model import FactorModel
from recsys.recommend.item_lists import popular_by_category, popular_items, similar_items
from recsys.redis import Store
from recsys.runtime.progress import Advance
from recsys.settings import Settings
from recsys.storage.data_dir import DataDir

log = logger(__name__)
_READ_AT_ONCE = 1_000


def write_popular_lists(
    settings: Settings,
    store: Store,
    data_dir: DataDir,
    live: LoadedModel,
    popularity: NDArray[np.float64],
    *,
    hidden: Collection[str],
    clock: Callable[[], datetime],
) -> None:
    """Write the popular list, and that of each category.

    Parameters
    ----------
    popularity : float64, (n_items,)
        Of the model's items, see `recsys.recommend.item_lists.popularity`.
    hidden : collection of str
        Items that no list may hold.
    """
    items, n = live.model.items, settings.ranking.n
    popular = popular_items(items, popularity, n=n, hidden=hidden)
    store.item_lists.write_popular(as_json(popular), live.stamp, at=clock())
    try:
        categories = data_dir.catalogue.read().categories()
    except DataDirError as error:
        log.warning(
            "category_lists_not_written", "the popular lists of categories were not written: {error}", error=error
        )
        categories = {}
    by_category = popular_by_category(items, popularity, categories, n=n, hidden=hidden)
    for category, best in by_category.items():
        store.item_lists.write_popular(
            as_json(best), live.stamp, at=clock(), category=category, ttl_s=list_ttl_s(settings)
        )
    store.item_lists.remove_popular(set(categories.values()) - by_category.keys())


def write_similar_lists(
    settings: Settings,
    store: Store,
    live: LoadedModel,
    *,
    hidden: Collection[str],
    clock: Callable[[], datetime],
    advance: Advance,
    rows: NDArray[np.int64] | None = None,
) -> int:
    """Write the similar items of all items, or of those in some rows of the model; return how many lists."""
    count = 0
    for item_ids, lists in similar_items(
        live.model, n=settings.ranking.similar_n, batch=settings.trainer.refresh_batch, hidden=hidden, rows=rows
    ):
        ttl_s = list_ttl_s(settings)
        store.item_lists.write_similar(item_ids, items_json(lists), live.stamp, at=clock(), ttl_s=ttl_s)
        count += len(lists)
        advance(len(lists))
    return count


def rows_of_changed_similar_lists(
    settings: Settings, store: Store, live: LoadedModel, *, gone: Collection[str], back: Collection[str]
) -> NDArray[np.int64]:
    """Return the items, by row in the model, whose similar lists are others since items were hidden, or shown again.

    Parameters
    ----------
    gone : collection of str
        Items that have been hidden: lists that hold one change.
    back : collection of str
        Items that are shown again: lists change where one of them is more similar than the last item listed.
    """
    n, ids = settings.ranking.similar_n, live.model.items.ids
    hidden, returning = frozenset(gone), live.model.items.find(back)
    shown = _directions(live.model, returning[returning >= 0])
    changed: list[int] = []
    for start in range(0, len(ids), _READ_AT_ONCE):
        rows = np.arange(start, min(start + _READ_AT_ONCE, len(ids)))
        most = (_directions(live.model, rows) @ shown.T).max(axis=1, initial=-np.inf)
        for row, likeness, found in zip(
            rows.tolist(),
            most.tolist(),
            store.item_lists.similar_many([ids[row] for row in rows.tolist()]),
            strict=True,
        ):
            if found is None or found["model"] != live.stamp.version:
                continue  # it has expired, or a round is writing it just now
            listed = found["items"]
            last = listed[-1]["score"] if len(listed) == n else -np.inf
            if likeness >= last > -np.inf or (shown.size and last == -np.inf):
                changed.append(row)
            elif not hidden.isdisjoint(entry["item_id"] for entry in listed):
                changed.append(row)
    return np.array(changed, np.int64)


def _directions(model: FactorModel, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    factors = model.item_factors[rows].astype(np.float64)
    norms = np.linalg.norm(factors, axis=1, keepdims=True)
    directions: NDArray[np.float64] = factors / np.where(norms > 0, norms, 1.0)
    return directions


def list_ttl_s(settings: Settings) -> int:
    """Return after how many seconds lists expire."""
    return int(settings.ranking.list_ttl_days * 24 * 3600)
