"""One step that consumer and sweep share: users' states in, their lists computed and published."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime

from recsys.live_model import LoadedModel
from recsys.refresh import refresh
from recsys.store import PublishOutcome, UserState
from recsys.store.users import UserStore


def list_users(
    users: UserStore,
    states: Mapping[str, UserState],
    live: LoadedModel,
    *,
    n: int,
    hidden: Collection[str],
    at: datetime,
) -> dict[str, PublishOutcome]:
    """Compute the lists of users from their states and publish them; return what became of each.

    Idempotent: a list is written only if its user's state is still the newest.
    """
    lists = refresh([state.history for state in states.values()], live.model, n=n, hidden=hidden)
    revisions = {user: state.revision for user, state in states.items()}
    return dict(zip(states, users.publish(revisions, lists, live.stamp, at=at), strict=True))
