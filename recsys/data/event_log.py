"""Events about items, in arrays: reading an archive gives an `EventLog`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys.data.interactions import Interactions
from recsys.data.owned_items import COLUMNS, FIRST, NEWEST, PURCHASES, UNITS, Owned
from recsys.data.vocabulary import Vocabulary

_DAY_S = 24 * 3600


@dataclass(frozen=True, eq=False)
class EventLog:
    """Events about items; an event that was sent twice is here once.

    Attributes
    ----------
    user_ids, item_ids : sequences of distinct str, in any order
    user_codes, item_codes : integers, (n_events,); places in ``user_ids`` and ``item_ids``
    units : int64, (n_events,); signed quantities in millionths, below zero for returns
    seconds : int64, (n_events,); time of the event, in epoch seconds
    days : int32, (n_events,), or None
        Days since the epoch on which the events are known to have been made; None = those of their times. Of an event
        that came in late it is the day on which it can have come in at the earliest: see `recsys.storage.archive`.
    """

    user_ids: Sequence[str]
    user_codes: NDArray[np.integer]
    item_ids: Sequence[str]
    item_codes: NDArray[np.integer]
    units: NDArray[np.int64]
    seconds: NDArray[np.int64]
    days: NDArray[np.int32] | None = None

    def __len__(self) -> int:
        return len(self.units)

    def where(self, chosen: NDArray[np.bool_]) -> EventLog:
        """Return the chosen events."""
        return EventLog(
            self.user_ids,
            self.user_codes[chosen],
            self.item_ids,
            self.item_codes[chosen],
            self.units[chosen],
            self.seconds[chosen],
            None if self.days is None else self.days[chosen],
        )

    @property
    def known_days(self) -> NDArray[np.int32]:
        """The days on which events are known to have been made: int32, (n_events,)."""
        return (self.seconds // _DAY_S).astype(np.int32) if self.days is None else self.days

    def newest_s(self, now_s: int) -> int:
        """Return the time of the newest event that is not in the future, in epoch seconds; 0 if there is none.

        A producer's wrong clock must not make everything else look old.
        """
        return int(self.seconds[self.seconds <= now_s].max(initial=0))

    def joined(self, other: EventLog) -> EventLog:
        """Return the events of both."""
        user_ids, users = _together(self.user_ids, other.user_ids)
        item_ids, items = _together(self.item_ids, other.item_ids)
        return EventLog(
            user_ids,
            np.concatenate((self.user_codes, users[other.user_codes])),
            item_ids,
            np.concatenate((self.item_codes, items[other.item_codes])),
            np.concatenate((self.units, other.units)),
            np.concatenate((self.seconds, other.seconds)),
            np.concatenate((self.known_days, other.known_days)),
        )

    def interactions(self) -> Interactions:
        """Sum events into one entry per user and item, and keep what is owned.

        Only users and items with at least one owned pair are in its vocabularies.
        """
        stride = max(1, len(self.item_ids))
        pairs = self.user_codes.astype(np.int64) * stride + self.item_codes
        order = np.argsort(pairs)
        pairs = pairs[order]
        starts = np.flatnonzero(np.diff(pairs, prepend=-1))
        pairs = pairs[starts]
        entries = np.empty((len(starts), COLUMNS), np.int64)
        if len(starts):
            units = self.units[order]
            entries[:, UNITS] = np.add.reduceat(units, starts)
            entries[:, PURCHASES] = np.add.reduceat(units > 0, starts, dtype=np.int64)
            del units
            seconds = self.seconds[order]
            entries[:, NEWEST] = np.maximum.reduceat(seconds, starts)
            entries[:, FIRST] = np.minimum.reduceat(seconds, starts)
            del seconds
        del order, starts
        owned = entries[:, UNITS] > 0
        pair_users, pair_items = np.divmod(pairs[owned], stride)
        users, user_rows = _compact(self.user_ids, pair_users)
        items, item_rows = _compact(self.item_ids, pair_items)
        by_row = np.argsort(user_rows * max(1, len(items)) + item_rows)
        starts_of_users = np.searchsorted(user_rows[by_row], np.arange(len(users) + 1)).astype(np.int32)
        return Interactions(
            users, items, Owned(starts_of_users, item_rows[by_row].astype(np.int32), entries[owned][by_row])
        )


def _together(ids: Sequence[str], others: Sequence[str]) -> tuple[list[str], NDArray[np.int64]]:
    """Return all ids, and the places of ``others`` among them."""
    places = {id_: place for place, id_ in enumerate(ids)}
    found = [places.setdefault(id_, len(places)) for id_ in others]
    return list(places), np.array(found, np.int64)


def _compact(ids: Sequence[str], codes: NDArray[np.int64]) -> tuple[Vocabulary, NDArray[np.int64]]:
    """Keep the ids that occur in ``codes``, sorted, and translate the codes into their rows."""
    used = np.flatnonzero(np.bincount(codes, minlength=len(ids)))
    vocabulary = Vocabulary.of(ids[code] for code in used.tolist())
    row_of_code = np.zeros(len(ids), dtype=np.int64)
    row_of_code[used] = [vocabulary.rows[ids[code]] for code in used.tolist()]
    return vocabulary, row_of_code[codes]
