"""What a consumer and a user cost in memory; and a long backlog drained without growing past it.

Run: .venv/bin/python -m benchmarks memory
"""

from __future__ import annotations

import time

import numpy as np
import psutil

from benchmarks.bytes_per_user import bytes_per_user
from benchmarks.measuring import LISTED, enlarged, model_of
from benchmarks.results import Measured
from benchmarks.stream import Stall, open_stall, publish_model
from recsys.data.interactions import Interactions
from recsys.data.owned_items import COLUMNS, Owned
from recsys.data.vocabulary import Vocabulary
from recsys.recommend.user_lists import refresh

_MIB = 2**20


def drained(stall: Stall, events: int) -> tuple[float, float]:
    """Return events per second, and the consumer's largest resident MiB, while it reads a backlog."""
    for _ in range(events // 100_000):
        stall.publish(stall.purchases(100_000))
    consumer = stall.shop.start_consumer(RECSYS_CONSUMER__STATS_INTERVAL_S="3600")
    process = psutil.Process(consumer.process.pid)
    largest = 0.0
    try:
        consumer.await_assigned()
        started = time.perf_counter()
        while consumer.metrics()["records_total"] < events:
            largest = max(largest, process.memory_info().rss / _MIB)
            time.sleep(0.2)
        rate = events / (time.perf_counter() - started)
    finally:
        consumer.stop()
    return rate, largest


def ensure_lists_are_right(stall: Stall, users: int = 1_000) -> None:
    """Compare lists with those that follow from the histories."""
    names = stall.users[:users]
    states = stall.store.users.read(names)
    right = refresh([state.history for state in states.values()], stall.model, n=LISTED)
    for user, found, expected in zip(names, stall.store.users.lists(names), right, strict=True):
        if found is None or [item["item_id"] for item in found["items"]] != list(expected.item_ids):
            raise RuntimeError(f"the list of {user} is not that of its history")


def with_items(stall: Stall, n_items: int) -> tuple[float, float]:
    """Return the MiB of a larger catalogue's factors, and of a consumer that has served with it."""
    known = stall.model.items.ids  # so that purchases are of items that the model knows
    ids = Vocabulary([*known, *(f"~{number:08d}" for number in range(n_items - len(known)))])
    model = model_of(enlarged(stall.model.item_factors, n_items), ids)
    nothing = Owned(np.zeros(1, np.int32), np.empty(0, np.int32), np.empty((0, COLUMNS), np.int64))
    publish_model(stall.shop, stall.store, model, Interactions(Vocabulary([]), ids, nothing))
    _, largest = drained(stall, 100_000)
    return model.item_factors.nbytes / _MIB, largest


def _bar_mib(factors_mib: float) -> float:
    return round(1.5 * factors_mib + 300 * 10**6 / _MIB)


def measure(*, quick: bool) -> list[Measured]:
    """Drain a backlog of a million events; measure consumers at 68,000 and a million items, and users in Redis."""
    found = [
        Measured(
            "memory", "Redis", f"a user: 30 owned items, a list of {LISTED}", bytes_per_user(), "bytes", at_most=4096
        )
    ]
    events = 100_000 if quick else 1_000_000
    with open_stall() as stall:
        factors = stall.model.item_factors.nbytes / _MIB
        rate, largest = drained(stall, events)
        ensure_lists_are_right(stall)
        case = f"a consumer, {len(stall.model.items):,} items ({factors:.0f} MiB of factors)"
        found += [
            Measured("memory", case, f"a backlog of {events:,} events", rate, "events/s"),
            Measured("memory", case, "largest resident memory meanwhile", largest, "MiB", at_most=_bar_mib(factors)),
        ]
        if not quick:
            factors, largest = with_items(stall, 1_000_000)
            case = f"a consumer, 1,000,000 items ({factors:.0f} MiB of factors)"
            found.append(Measured("memory", case, "largest resident memory", largest, "MiB", at_most=_bar_mib(factors)))
    return found
