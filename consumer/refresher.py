"""Users' lists kept fresh: computed with the live model, published unless a fresher one is there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from consumer.metrics import ConsumerMetrics
from recsys.lists.live_model import LiveModel, LoadedModel
from recsys.lists.refresh import ComputedLists, compute_lists, publish_lists, stale
from recsys.redis import PublishOutcome, UserState
from recsys.redis.users import UserStore
from recsys.runtime.clock import now
from recsys.settings import RankingSettings


class Refresher:
    """Computes and publishes the lists of users, and counts them."""

    def __init__(self, users: UserStore, live: LiveModel, rules: RankingSettings, metrics: ConsumerMetrics) -> None:
        self.live = live
        self._users = users
        self._rules = rules
        self._metrics = metrics

    def compute(
        self, states: Mapping[str, UserState], live: LoadedModel, *, besides: ComputedLists | None = None
    ) -> ComputedLists:
        """Compute the lists of those users whose list is not current, and is not among those computed ``besides``."""
        done = besides.revisions if besides is not None else {}
        behind = {user: state for user, state in stale(states, live).items() if user not in done}
        return compute_lists(behind, live, self._rules, hidden=self.live.hidden)

    def still_right(self, lists: ComputedLists, live: LoadedModel) -> ComputedLists:
        """Return the lists, or none of them where items have been hidden or shown since they were computed."""
        if lists.follow_from(live, self.live.hidden):
            return lists
        return compute_lists({}, live, self._rules, hidden=self.live.hidden)

    def refresh(self, states: Mapping[str, UserState]) -> None:
        """Compute and publish the lists of users, until each list is that of its newest history."""
        live = self.live.current
        if live is not None and states:
            self.settle(publish_lists(self._users, self.compute(states, live), at=now()))

    def settle(self, outcomes: Mapping[str, PublishOutcome]) -> None:
        """Count what became of lists; those whose history has moved meanwhile are computed again."""
        published = list(outcomes.values()).count(PublishOutcome.PUBLISHED)
        self._metrics.solves.inc(len(outcomes))
        self._metrics.published.inc(published)
        self._metrics.rejected.inc(len(outcomes) - published)
        if PublishOutcome.MODEL_OLDER in outcomes.values():
            self.live.look_now()  # these users are among those whom the swap refreshes
        if moved := [user for user, outcome in outcomes.items() if outcome is PublishOutcome.REVISION_MOVED]:
            self.read_and_refresh(moved)

    def read_and_refresh(self, users: Sequence[str]) -> None:
        """Refresh users by their states in Redis."""
        states = self._users.read(users)
        self._users.set_aside_damaged(states)
        self.refresh(states)
