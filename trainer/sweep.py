"""Refreshing every user's list with a newly published model."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from recsys.listing import list_users
from recsys.live_model import LoadedModel
from recsys.progress import Advance
from recsys.settings import Settings
from recsys.store import PublishOutcome, Store


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
        outcomes = list_users(store.users, behind, live, n=settings.ranking.n, hidden=hidden, at=datetime.now(UTC))
        written += list(outcomes.values()).count(PublishOutcome.PUBLISHED)
        # MODEL_OLDER and SUPERSEDED: a still newer model is being swept already.
        users = [user for user, outcome in outcomes.items() if outcome is PublishOutcome.REVISION_MOVED]
    return written
