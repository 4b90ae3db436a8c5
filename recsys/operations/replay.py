"""Histories as they must be, replayed one event at a time: no code that keeps histories in Redis is used."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pyarrow.compute as pc

from recsys.data.event import UNITS_PER_QUANTITY
from recsys.data.history import HistoryReplay
from recsys.runtime.progress import Advance
from recsys.storage.archive import Archive
from recsys.storage.segments import Segment


def replay_archive(
    archive: Archive,
    segments: Sequence[Segment],
    replays: Mapping[str, HistoryReplay],
    wanted: Callable[[str], bool],
    advance: Advance,
    *,
    limits: Mapping[str, int] | None = None,
) -> None:
    """Replay the archived events of those users who are wanted.

    Parameters
    ----------
    replays : mapping
        User → replay; makes one for a user whom it does not have, as a defaultdict does.
    limits : mapping of str → int, optional
        Source → the first offset that is left out; of a source that is not named nothing is.
    """
    columns = ["user_id", "type", "item_id", "quantity", "timestamp", "event_id"]
    for segment, arrived in zip(segments, archive.tables([*columns, "offset"], segments), strict=True):
        limit = (limits or {}).get(f"{segment.source}:{segment.partition}")
        table = arrived if limit is None else arrived.filter(pc.less(arrived["offset"], limit))
        values = [table[name].to_pylist() for name in columns if name != "timestamp"]
        seconds = table["timestamp"].cast("int64").to_numpy() // 1000
        for user, type_, item, quantity, event_id, second in zip(*values, seconds.tolist(), strict=True):
            if wanted(user):
                units = max(1, round(quantity * UNITS_PER_QUANTITY))
                replays[user].apply_fields(type_, item, -units if type_ == "return" else units, second, event_id)
        advance(1)
