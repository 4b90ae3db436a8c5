"""Every list anew: after a new model is published, or Redis has been rebuilt."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from recsys import fail_points
from recsys.item_lists import popular_items, similar_items
from recsys.listing import list_users
from recsys.live_model import LoadedModel
from recsys.progress import Advance, ProgressReporter
from recsys.settings import Settings
from recsys.store import PublishOutcome, Store
from recsys.wall_clock import now

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Written:
    """How many lists were written: of users, and of similar items."""

    lists: int
    similar: int


def write_every_list(
    settings: Settings,
    store: Store,
    live: LoadedModel,
    buyers: NDArray[np.int64],
    *,
    users: int | None,
    progress: ProgressReporter,
    clock: Callable[[], datetime],
) -> Written:
    """Write the lists of all users, of popular and of similar items.

    Parameters
    ----------
    buyers : int64, (n_items,)
        Users who own each item of the model.
    users : int or None
        About how many there are, for the progress; None if nobody knows.
    """
    lists = 0
    while True:
        epoch = store.connection.epoch
        with progress.stage("refresh every list", users) as advance:
            lists += sweep(settings, store, live, advance)
        similar = _write_item_lists(settings, store, live, buyers, progress, clock)
        with progress.stage("refresh latecomers") as advance:
            lists += sweep(settings, store, live, advance)
        if store.connection.epoch == epoch:
            return Written(lists, similar)
        # One that has taken over may lack lists that the one before had acknowledged.
        log.warning("another Redis server answers now; every list is looked at again")


def sweep(settings: Settings, store: Store, live: LoadedModel, advance: Advance) -> int:
    """Recompute the list of every user whose list is not from this model; return how many were written.

    Safe beside running consumers: a list is written only if its history has not moved meanwhile, else it is read
    and computed again. Users who come after the scan has passed are the consumers' (see consumer/loop.py); what a
    consumer that died meanwhile left behind, a second sweep finds.
    """
    written = 0
    for found in store.users.user_ids():
        for start in range(0, len(found), settings.trainer.sweep_batch):
            users = found[start : start + settings.trainer.sweep_batch]
            written += _refresh(settings, store, live, users)
            fail_points.reach("in-sweep")
            advance(len(users))
    return written


def _refresh(settings: Settings, store: Store, live: LoadedModel, users: Sequence[str]) -> int:
    written = 0
    hidden = store.shared.hidden()
    while users:
        behind = {
            user: state
            for user, state in store.users.read(users).items()
            if state.listed_sequence != live.stamp.sequence
        }
        outcomes = list_users(store.users, behind, live, n=settings.ranking.n, hidden=hidden, at=now())
        written += list(outcomes.values()).count(PublishOutcome.PUBLISHED)
        # MODEL_OLDER and SUPERSEDED: a still newer model is being swept already.
        users = [user for user, outcome in outcomes.items() if outcome is PublishOutcome.REVISION_MOVED]
    return written


def _write_item_lists(
    settings: Settings,
    store: Store,
    live: LoadedModel,
    buyers: NDArray[np.int64],
    progress: ProgressReporter,
    clock: Callable[[], datetime],
) -> int:
    """Write the popular list and every item's similar items; return the number of the latter."""
    hidden = store.shared.hidden()
    popular = popular_items(live.model.items, buyers, n=settings.ranking.n, hidden=hidden)
    store.shared.write_popular(popular, live.stamp, at=clock())
    ttl_s = int(settings.ranking.list_ttl_days * 24 * 3600)
    count = 0
    with progress.stage("similar items", len(live.model.items)) as advance:
        for lists in similar_items(
            live.model, n=settings.ranking.similar_n, batch=settings.trainer.sweep_batch, hidden=hidden
        ):
            store.shared.write_similar(lists, live.stamp, at=clock(), ttl_s=ttl_s)
            count += len(lists)
            advance(len(lists))
    return count
