"""Refreshing every user's list with a newly published model."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from recsys.live_model import LoadedModel
from recsys.progress import Advance
from recsys.refresh import refresh
from recsys.settings import Settings
from recsys.store import PublishOutcome, Store, UserList


def sweep(settings: Settings, store: Store, live: LoadedModel, advance: Advance) -> int:
    """Recompute the list of every user with a history; return how many were written.

    Safe beside running consumers: a list is written only if its history has not moved meanwhile, else it is read
    and computed again. Users who come after the scan has passed are the consumers' (see consumer/loop.py).
    """
    written = 0
    for found in store.users.user_ids():
        for start in range(0, len(found), settings.trainer.sweep_batch):
            users = found[start : start + settings.trainer.sweep_batch]
            written += _refresh(settings, store, live, users)
            advance(len(users))
    return written


def _refresh(settings: Settings, store: Store, live: LoadedModel, users: Sequence[str]) -> int:
    written = 0
    hidden = store.shared.hidden()
    while users:
        states = store.users.read(users)
        lists = refresh([states[user].history for user in users], live.model, n=settings.ranking.n, hidden=hidden)
        outcomes = store.users.publish(
            [UserList(user, states[user].revision, items) for user, items in zip(users, lists, strict=True)],
            live.stamp,
            at=datetime.now(UTC),
        )
        written += outcomes.count(PublishOutcome.PUBLISHED)
        # MODEL_OLDER and SUPERSEDED: a still newer model is being swept already.
        users = [
            user for user, outcome in zip(users, outcomes, strict=True) if outcome is PublishOutcome.REVISION_MOVED
        ]
    return written
