"""Purchases of made-up shops whose customers behave in known ways."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recsys.data.event_log import EventLog
from tests.builders import NOON_S

DAY_S = 86_400
TASTES, ITEMS_PER_TASTE = 6, 40
N_ITEMS = TASTES * ITEMS_PER_TASTE


def habitual_shop(*, seed: int, n_users: int = 300, days: int = 120) -> EventLog:
    """Return a shop with tastes, fashions and habits, up to NOON_S.

    Everyone has a taste, buys each of a few favourites again after some days of their own, and every few days
    something else of their taste, more often what is in fashion: a quarter of the items, others every 60 days.
    """
    rng = np.random.default_rng(seed)
    users, items, seconds = [], [], []
    for user in range(n_users):
        own = ITEMS_PER_TASTE * rng.integers(TASTES) + np.arange(ITEMS_PER_TASTE)
        for favourite in rng.choice(own, 3, replace=False).tolist():
            interval = int(rng.integers(5, 25))
            for day in range(int(rng.integers(interval)), days, interval):
                users.append(user)
                items.append(favourite)
                seconds.append(NOON_S - (days - day) * DAY_S)
        for day in range(int(rng.integers(8)), days, 8):
            fashion = np.random.default_rng([seed, (day + 30) // 60]).choice(N_ITEMS, N_ITEMS // 4, replace=False)
            among = np.intersect1d(own, fashion) if rng.random() < 0.7 else own
            users.append(user)
            items.append(int(rng.choice(among if len(among) else own)))
            seconds.append(NOON_S - (days - day) * DAY_S + int(rng.integers(3600)))
    return EventLog(
        [f"user-{user}" for user in range(n_users)],
        np.array(users, np.int32),
        [f"item-{item:03d}" for item in range(N_ITEMS)],
        np.array(items, np.int32),
        np.full(len(users), 10**6),
        np.array(seconds, np.int64),
    )


def write_parquet(events: EventLog, path: Path) -> None:
    """Write purchases as a file that `recsys import` takes."""
    pq.write_table(
        pa.table(
            {
                "user_id": [events.user_ids[code] for code in events.user_codes.tolist()],
                "item_id": [events.item_ids[code] for code in events.item_codes.tolist()],
                "quantity": events.units / 1e6,
                "timestamp": pa.array(events.seconds * 1000, pa.timestamp("ms", "UTC")),
            }
        ),
        path,
    )
