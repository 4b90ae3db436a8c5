"""Writing lists that a test makes up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from recsys.lists.encoding import as_json
from recsys.recommend.user_lists import RankedList
from recsys.redis import ModelStamp, PublishOutcome
from recsys.redis.users import NO_ITEMS, UserStore


def write_lists(
    users: UserStore, revisions: Mapping[str, int], lists: Sequence[RankedList], model: ModelStamp, *, at: datetime
) -> list[PublishOutcome]:
    """Write one list for each user, and nothing to buy again."""
    with users.publishing(model, at=at) as publishing:
        publishing.send(revisions, ((as_json(items), NO_ITEMS) for items in lists))
        return list(publishing.outcomes().values())
