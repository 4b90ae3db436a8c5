"""December, basket by basket: published through Kafka, watched through Redis."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from recsys.demo.purchases import Basket
from recsys.demo.services import ConsumerProcess
from recsys.kafka.producer import Publisher
from recsys.redis import Store
from recsys.runtime.metrics import quantile

TOP = 10
_FEW_ITEMS = 20
_SHOWN_EVERY_S = 0.5
_PATIENCE_S = 60.0


@dataclass(frozen=True, slots=True)
class Story:
    """One household's basket, and its list before and after."""

    household: str
    known_items: int
    bought: list[str]
    before: list[str]
    after: list[str]
    latency_ms: float


@dataclass(slots=True)
class HitRates:
    """How often one of ten recommended items was in the next basket and new to the household."""

    baskets: int = 0
    refreshed: int = 0
    stale: int = 0
    popular: int = 0

    def count(
        self, new_items: set[str], refreshed: Sequence[str], stale: Sequence[str], popular: Sequence[str]
    ) -> None:
        """Count one basket."""
        self.baskets += 1
        self.refreshed += bool(new_items & set(refreshed))
        self.stale += bool(new_items & set(stale))
        self.popular += bool(new_items & set(popular))


@dataclass(frozen=True, slots=True)
class Progress:
    """What the live display shows."""

    published: int
    total: int
    events_per_s: float
    lists_per_s: float
    p50_ms: float
    p99_ms: float
    dead_letters: int


@dataclass(slots=True)
class Outcome:
    """What the summary shows."""

    events: int = 0
    lists: int = 0
    dead_letters: int = 0
    duration_s: float = 0.0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    everyone: HitRates = field(default_factory=HitRates)
    newcomers: HitRates = field(default_factory=HitRates)


class December:
    """Publishes the baskets at a steady rate.

    Parameters
    ----------
    owned : mapping of household → set of products
        What each household bought before; kept up to date.
    stale : mapping of household → list of products
        Lists as they were on the first of December.
    """

    def __init__(
        self,
        baskets: Sequence[Basket],
        store: Store,
        publisher: Publisher,
        consumer: ConsumerProcess,
        owned: dict[str, set[str]],
        stale: Mapping[str, list[str]],
    ) -> None:
        self._baskets = baskets
        self._store = store
        self._publisher = publisher
        self._consumer = consumer
        self._owned = owned
        self._stale = stale
        popular = store.item_lists.popular()
        self._popular = [entry["item_id"] for entry in popular["items"]] if popular else []
        self._heroes = self._choose_heroes()
        self._outcome = Outcome()

    def play(self, *, events_per_s: float, show: Callable[[Progress], None], tell: Callable[[Story], None]) -> Outcome:
        """Publish everything, wait for the last list, and return what happened."""
        total = sum(len(basket.records) for basket in self._baskets)
        outcome = self._outcome
        started = shown_at = time.monotonic()
        before = self._consumer.metrics()
        shown = before
        for place, basket in enumerate(self._baskets):
            wait = started + outcome.events / events_per_s - time.monotonic()
            if wait > 0:
                time.sleep(wait)
            self._count_hits(basket)
            if place in self._heroes:
                tell(self._follow(basket))
            else:
                self._publish(basket)
            self._owned.setdefault(basket.household, set()).update(basket.items)
            now = time.monotonic()
            if now - shown_at >= _SHOWN_EVERY_S:
                metrics = self._consumer.metrics()
                show(self._progress(total, now - shown_at, shown, metrics))
                shown, shown_at = metrics, now
        self._publisher.flush()
        after = self._await_last(before.get("records_total", 0.0) + outcome.events)
        outcome.duration_s = time.monotonic() - started
        outcome.lists = int(after["lists_published_total"] - before["lists_published_total"])
        outcome.dead_letters = int(after["dead_letters_total"] - before["dead_letters_total"])
        outcome.p50_ms, outcome.p99_ms = latencies_ms(before, after)
        return outcome

    def _choose_heroes(self) -> set[int]:
        """Choose three baskets that contain something their household's list had foretold."""
        wanted = [(0, _FEW_ITEMS), (_FEW_ITEMS, 150), (150, 100_000)]
        heroes: set[int] = set()
        seen: set[str] = set()
        for place, basket in enumerate(self._baskets):
            known = len(self._owned.get(basket.household, ()))
            if basket.household in seen:
                continue
            seen.add(basket.household)
            foretold = set(basket.items) & set(self._stale.get(basket.household, [])[:5])
            fits = [bounds for bounds in wanted if bounds[0] <= known < bounds[1]]
            if foretold and fits and len(basket.items) <= 12 and place > 50:
                heroes.add(place)
                wanted.remove(fits[0])
        return heroes

    def _publish(self, basket: Basket) -> None:
        for record in basket.records:
            self._publisher.publish_record(basket.household, record)
        self._outcome.events += len(basket.records)

    def _follow(self, basket: Basket) -> Story:
        """Publish a basket and watch its household's list in Redis change, as an app would see it."""
        before = self._list(basket.household)
        known = len(self._owned.get(basket.household, ()))
        started = time.monotonic()
        self._publish(basket)
        bought = set(basket.items)
        while True:
            after = self._list(basket.household)
            items = _items(after)
            if after and after["revision"] != (before or {}).get("revision") and not bought & set(items):
                break
            if time.monotonic() - started > _PATIENCE_S:
                self._consumer.ensure_running()
                break
            time.sleep(0.001)
        latency_ms = 1000 * (time.monotonic() - started)
        return Story(basket.household, known, basket.items, _items(before), items, latency_ms)

    def _list(self, household: str) -> dict[str, Any] | None:
        return self._store.users.lists([household])[0]

    def _count_hits(self, basket: Basket) -> None:
        owned = self._owned.get(basket.household, set())
        new_items = set(basket.items) - owned
        if not new_items:
            return
        popular = [item for item in self._popular if item not in owned][:TOP]
        refreshed = _items(self._list(basket.household))[:TOP] or popular
        stale = self._stale.get(basket.household, [])[:TOP] or popular
        self._outcome.everyone.count(new_items, refreshed, stale, popular)
        if len(owned) < _FEW_ITEMS:
            self._outcome.newcomers.count(new_items, refreshed, stale, popular)

    def _progress(self, total: int, seconds: float, earlier: Mapping[str, float], now: Mapping[str, float]) -> Progress:
        p50, p99 = latencies_ms(earlier, now)

        def per_s(name: str) -> float:
            return (now.get(name, 0.0) - earlier.get(name, 0.0)) / seconds

        return Progress(
            published=self._outcome.events,
            total=total,
            events_per_s=per_s("records_total"),
            lists_per_s=per_s("lists_published_total"),
            p50_ms=p50,
            p99_ms=p99,
            dead_letters=int(now.get("dead_letters_total", 0)),
        )

    def _await_last(self, records: float) -> dict[str, float]:
        """Wait until the consumer has read everything and the lists are written."""
        last_progress, read = time.monotonic(), -1.0
        while True:
            metrics = self._consumer.metrics()
            done = metrics.get("records_total", 0.0)
            if done >= records and metrics.get("event_to_list_seconds_count", 0.0) >= records:
                return metrics
            if done != read:
                last_progress, read = time.monotonic(), done
            elif time.monotonic() - last_progress > _PATIENCE_S:
                raise TimeoutError(f"the consumer read {done:,.0f} of {records:,.0f} records and then no more")
            time.sleep(0.05)


def latencies_ms(earlier: Mapping[str, float], now: Mapping[str, float]) -> tuple[float, float]:
    """Return the median and the 99th percentile of event → list between two looks at the consumer's metrics."""
    bounds = sorted(float(name[3:]) for name in now if name.startswith("le "))
    names = {float(name[3:]): name for name in now if name.startswith("le ")}
    totals = [now[names[bound]] - earlier.get(names[bound], 0.0) for bound in bounds]
    counts = [total - below for total, below in zip(totals, [0.0, *totals], strict=False)]
    return 1000 * quantile(bounds, counts, 0.5), 1000 * quantile(bounds, counts, 0.99)


def _items(published: dict[str, Any] | None) -> list[str]:
    return [entry["item_id"] for entry in published["items"]] if published else []
