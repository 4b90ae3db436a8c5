"""Measure what one user costs in Redis: a history of 30 items, a list of 50 and one of 5, through the product's store.

Run: .venv/bin/python benchmarks/bytes_per_user.py
"""

from __future__ import annotations

import random
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from recsys.data.event import Event
from recsys.data.vocabulary import Vocabulary
from recsys.demo.services import redis_server
from recsys.lists.encoding import both_as_json
from recsys.model.top_n import Ranking
from recsys.recommend.user_lists import RankedLists
from recsys.redis import ModelStamp, PlacedEvent, Store, open_store
from recsys.settings import Settings

USERS, OWNED, LISTED, AGAIN = 5_000, 30, 50, 5
_GROUPS = {
    "history": "history",
    "applied": "bookkeeping (revision, low-water marks)",
    "seen": "bookkeeping (ids)",
    "recs": "list",
    "again": "list of what to buy again",
}


def bytes_per_user(*, verbose: bool = False) -> float:
    """Return the bytes of one user, and print them by key."""
    with tempfile.TemporaryDirectory() as folder, redis_server(Path(folder)) as url:
        settings = Settings.model_validate({"redis": {"url": url}})
        with open_store(settings) as store:
            client: Any = store.connection.client
            store.users.read(["warm-up"])
            empty = client.info("memory")["used_memory"]
            _fill(store)
            total: float = (client.info("memory")["used_memory"] - empty) / USERS
            if not verbose:
                return total
            print(f"{USERS:,} users, {OWNED} owned items, lists of {LISTED}; Redis {client.info()['redis_version']}")
            for key, name in _GROUPS.items():
                sizes = [client.memory_usage(getattr(store.users._keys, key)(f"{user:08d}")) for user in range(100)]
                print(f"  {name:<32} {sum(sizes) / len(sizes):7,.0f} bytes")
            print(f"  {'all, from used_memory':<32} {total:7,.0f} bytes per user")
            return total


def _fill(store: Store) -> None:
    rng = random.Random(1)
    model = ModelStamp("20261122T101500Z-1a2b3c", 1795342500)
    for user in (f"{number:08d}" for number in range(USERS)):
        items = [f"{rng.randrange(10**7):07d}" for _ in range(OWNED + LISTED)]
        purchases = [
            Event(
                user_id=user,
                item_id=item,
                quantity=rng.randint(1, 5),
                timestamp=1795342500000 + offset,
                event_id=f"order-{user}-{offset}",
            )
            for offset, item in enumerate(items[:OWNED])
        ]
        source = "8Jq4absFQfaeoSIaQnR8vw:3"
        state = store.users.apply({user: [PlacedEvent(source, n, event) for n, event in enumerate(purchases)]})[user]
        scores = np.array(sorted((rng.random() for _ in range(LISTED)), reverse=True), np.float32)
        again = Ranking(np.arange(AGAIN)[None], scores[None, :AGAIN], np.array([AGAIN]))
        recs = Ranking(OWNED + np.arange(LISTED)[None], scores[None], np.array([LISTED]))
        lists = RankedLists(Vocabulary(items), recs, again)
        with store.users.publishing(model, at=datetime.now(UTC)) as publishing:
            publishing.send({user: state.revision}, both_as_json(lists))
            publishing.outcomes()


if __name__ == "__main__":
    bytes_per_user(verbose=True)
