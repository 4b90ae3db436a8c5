"""One step that consumer and sweep share: users' states in, their lists computed and published."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from recsys.lists.live_model import LoadedModel
from recsys.recommend.user_lists import RankedLists, refresh
from recsys.redis import PublishOutcome, UserState
from recsys.redis.users import UserStore
from recsys.settings import RankingSettings


@dataclass(frozen=True)
class Listing:
    """Lists that are computed and yet to be published.

    Attributes
    ----------
    revisions : mapping
        User → revision of the history that the list follows from.
    lists : RankedLists
        Of these users, in order.
    """

    live: LoadedModel
    hidden: Collection[str]
    revisions: Mapping[str, int]
    lists: RankedLists


def compute_lists(
    states: Mapping[str, UserState], live: LoadedModel, rules: RankingSettings, *, hidden: Collection[str]
) -> Listing:
    """Compute the lists of users from their states."""
    histories = [state.history for state in states.values()]
    lists = refresh(histories, live.model, n=rules.n, hidden=hidden, with_owned=rules.with_owned, again_n=rules.again_n)
    return Listing(live, hidden, {user: state.revision for user, state in states.items()}, lists)


def list_users(
    users: UserStore,
    states: Mapping[str, UserState],
    live: LoadedModel,
    rules: RankingSettings,
    *,
    hidden: Collection[str],
    at: datetime,
    ready: Listing | None = None,
) -> dict[str, PublishOutcome]:
    """Compute the lists of users from their states and publish them; return what became of each.

    Idempotent: a list is written only if its user's state is still the newest. Lists that are ``ready`` already are
    sent first, if model and hidden items are the same; Redis writes them while the others are computed.
    """
    first: list[RankedLists] = []
    revisions: dict[str, int] = {}
    if ready is not None and ready.live is live and ready.hidden == hidden and ready.revisions.keys() <= states.keys():
        first.append(ready.lists)
        revisions.update(ready.revisions)
    others = {user: state for user, state in states.items() if user not in revisions}
    revisions |= {user: state.revision for user, state in others.items()}

    def lists() -> Iterator[RankedLists]:
        yield from first
        yield compute_lists(others, live, rules, hidden=hidden).lists

    return dict(zip(revisions, users.publish(revisions, lists(), live.stamp, at=at), strict=True))
