"""Users' states in, their lists computed and published: what consumer and full refresh share."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from recsys.lists.encoding import both_as_json
from recsys.lists.live_model import LoadedModel
from recsys.recommend.user_lists import RankedLists, refresh
from recsys.redis import PublishOutcome, UserState
from recsys.redis.users import EncodedLists, UserStore
from recsys.settings import RankingSettings


@dataclass(frozen=True)
class ComputedLists:
    """Lists that are yet to be published.

    Attributes
    ----------
    live : LoadedModel
    hidden : collection of str
        The model and the hidden items that the lists follow from.
    revisions : mapping
        User → revision of the history that the list follows from.
    lists : RankedLists or None
        Of these users, in order; None if there are no users.
    """

    live: LoadedModel
    hidden: Collection[str]
    revisions: Mapping[str, int]
    lists: RankedLists | None

    def follow_from(self, live: LoadedModel, hidden: Collection[str]) -> bool:
        """Whether the lists are of this model and these hidden items."""
        return self.live is live and self.hidden == hidden

    def encoded(self) -> Iterator[EncodedLists]:
        """Yield each user's lists as they are published."""
        return iter(()) if self.lists is None else both_as_json(self.lists)


def compute_lists(
    states: Mapping[str, UserState], live: LoadedModel, rules: RankingSettings, *, hidden: Collection[str]
) -> ComputedLists:
    """Compute the lists of users from their states."""
    if not states:  # as for the first users of a small batch: what it costs to compute no list is not nothing
        return ComputedLists(live, hidden, {}, None)
    histories = [state.history for state in states.values()]
    lists = refresh(
        histories,
        live.model,
        n=rules.n,
        hidden=hidden,
        include_purchased=rules.include_purchased,
        again_n=rules.again_n,
    )
    return ComputedLists(live, hidden, {user: state.revision for user, state in states.items()}, lists)


def without_aside(states: Mapping[str, UserState]) -> dict[str, UserState]:
    """Return the users who may have a list: all who are not set aside."""
    return {user: state for user, state in states.items() if not state.aside}


def stale(states: Mapping[str, UserState], live: LoadedModel) -> dict[str, UserState]:
    """Return the users whose list in Redis is not that of this state and model, and who may have one."""
    sequence = live.stamp.sequence
    return {user: state for user, state in states.items() if state.listed_sequence != sequence and not state.aside}


def publish_lists(users: UserStore, computed: ComputedLists, *, at: datetime) -> dict[str, PublishOutcome]:
    """Publish lists and return what became of each.

    Idempotent: a list is written only if its user's state is still the newest.
    """
    with users.publishing(computed.live.stamp, at=at) as publishing:
        publishing.send(computed.revisions, computed.encoded())
        return publishing.outcomes()
