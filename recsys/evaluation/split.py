"""Splits by time: purchases before the cut, which a model may know, and after it, which it is measured on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from recsys.data.event_log import EventLog
from recsys.data.interactions import Interactions
from recsys.data.owned_items import Owned
from recsys.data.vocabulary import Vocabulary

SEGMENTS: Final = {"all users": (1, None), "1–5 items": (1, 5), "6–20 items": (6, 20), "21+ items": (21, None)}
"""Segments by the number of items that a user owned at the cut, minimum and maximum; `NEWCOMERS` is another one."""
NEWCOMERS: Final = "new users"
EVERYBODY: Final = "all users"
_FIRST_VISIT_S = 3600
Lists = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class RelevantItems:
    """What users bought after the cut, among the items that were known before.

    Attributes
    ----------
    keys : int64, ascending; user · n_items + row
    sizes : int64, (n_users,); number of items of each user
    n_items : int
    """

    keys: NDArray[np.int64]
    sizes: NDArray[np.int64]
    n_items: int

    @classmethod
    def of_pairs(
        cls, users: NDArray[np.integer], rows: NDArray[np.integer], n_users: int, n_items: int
    ) -> RelevantItems:
        """Build from pairs, which may occur more than once."""
        keys = np.unique(users.astype(np.int64) * n_items + rows)
        return cls(keys, np.bincount(keys // max(1, n_items), minlength=n_users), n_items)

    def of(self, users: NDArray[np.integer]) -> RelevantItems:
        """Return what the users at these places bought; places ascend."""
        place = np.full(len(self.sizes), -1)
        place[users] = np.arange(len(users))
        owners, rows = np.divmod(self.keys, max(1, self.n_items))
        kept = place[owners] >= 0
        return RelevantItems(place[owners[kept]] * self.n_items + rows[kept], self.sizes[users], self.n_items)

    def without(self, owned: Owned) -> RelevantItems:
        """Return the part that was not owned."""
        owners = owned.owners()
        keys = np.setdiff1d(self.keys, owners * self.n_items + owned.rows, assume_unique=True)
        return RelevantItems(keys, np.bincount(keys // max(1, self.n_items), minlength=len(owned)), self.n_items)

    def hits(self, lists: Lists) -> NDArray[np.bool_]:
        """Return whether each listed item was bought: bool, as ``lists``."""
        keys = np.arange(len(lists))[:, None] * self.n_items + lists
        if not len(self.keys):
            return np.zeros(lists.shape, np.bool_)
        places = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        found: NDArray[np.bool_] = (self.keys[places] == keys) & (lists >= 0)
        return found


@dataclass(frozen=True, eq=False)
class Split:
    """Purchases before and after a moment.

    Attributes
    ----------
    items : Vocabulary
        Items that anybody owned at the cut: a model can know only these.
    buyers : int64, (n_items,)
        Number of users who owned each item at the cut.
    n_known_users : int
        Number of users who owned anything at the cut.
    cut_s : int
        Epoch seconds.
    owned : Owned
        What each measured user owned at the cut; for new users, what they bought in their first hour.
    newcomers : bool, (n_users,)
        Users whose first purchase was after the cut: no model has seen them, they are only folded in.
    everything, new : RelevantItems
        What they bought afterwards: everything, and only what they did not own.
    """

    items: Vocabulary
    buyers: NDArray[np.int64]
    n_known_users: int
    cut_s: int
    owned: Owned
    newcomers: NDArray[np.bool_]
    everything: RelevantItems
    new: RelevantItems

    @property
    def n_users(self) -> int:
        """Number of measured users."""
        return len(self.owned)

    def segment(self, name: str) -> NDArray[np.bool_]:
        """Return who belongs to a segment: bool, (n_users,)."""
        if name == NEWCOMERS:
            return self.newcomers
        least, most = SEGMENTS[name]
        sizes = self.owned.sizes
        return ~self.newcomers & (sizes >= least) & (sizes <= (most or sizes.max(initial=0)))


def split_by_time(
    events: EventLog, *, cut_s: int, end_s: int | None = None, train: Interactions | None = None
) -> Split:
    """Split events at the same moment for all users.

    Parameters
    ----------
    events : EventLog
    cut_s, end_s : int
        Users are measured on the events from the cut on, and before the end if there is one; epoch seconds.
    train : Interactions or None
        Interactions before the cut, if they are known already.

    Returns
    -------
    Split
        It holds users who bought something known both before the cut (or in their first hour) and afterwards.
    """
    before = events.seconds < cut_s
    if train is None:
        train = events.where(before).interactions()
    after = (events.seconds >= cut_s) & (events.units > 0)
    if end_s is not None:
        after &= events.seconds < end_s

    new_to_us = np.ones(len(events.user_ids), np.bool_)
    new_to_us[events.user_codes[before]] = False
    first_s = np.full(len(events.user_ids), np.iinfo(np.int64).max)
    np.minimum.at(first_s, events.user_codes[after], events.seconds[after])
    first_hour = after & new_to_us[events.user_codes]
    first_hour &= events.seconds < first_s[events.user_codes] + _FIRST_VISIT_S
    history = events.where(before | first_hour).interactions()
    owned = history.owned.translated(train.items.find(history.items.ids))

    later = events.where(after & ~first_hour)
    users = history.users.find(events.user_ids)[later.user_codes]
    rows = train.items.find(events.item_ids)[later.item_codes]
    known = (users >= 0) & (rows >= 0)
    n_users, n_items = len(history.users), len(train.items)
    everything = RelevantItems.of_pairs(users[known], rows[known], n_users, n_items)
    judged = np.flatnonzero((owned.sizes > 0) & (everything.sizes > 0))
    owned, everything = owned.of(judged), everything.of(judged)
    newcomers = new_to_us[_codes(events.user_ids, history.users)][judged]
    return Split(
        train.items,
        train.buyers(),
        len(train.users),
        cut_s,
        owned,
        newcomers,
        everything,
        everything.without(owned),
    )


def _codes(ids: Sequence[str], users: Vocabulary) -> NDArray[np.int64]:
    """Return the position in ``ids`` of each user."""
    rows = users.find(ids)
    codes = np.empty(len(users), np.int64)
    codes[rows[rows >= 0]] = np.flatnonzero(rows >= 0)
    return codes
