"""The last month, basket by basket: published through Kafka, watched through Redis."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from recsys.demo.hit_rates import FIRST_DAY, POPULAR, REFRESHED, HitRates, OwnLists, shown_from, shown_from_popular
from recsys.demo.purchases import Basket
from recsys.demo.services import ConsumerProcess
from recsys.demo.stories import Stories, Story
from recsys.kafka.producer import Publisher
from recsys.redis import Store
from recsys.runtime.metrics import quantile

_SHOWN_EVERY_S = 0.5
_PATIENCE_S = 60.0
_STORY_PATIENCE_S = 10.0


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
    """What the summary shows.

    Attributes
    ----------
    known : HitRates
        Of households with a history, each of their baskets.
    newcomers : HitRates
        Of households without one, from their second basket on.
    newcomer_households : int
        Those of them that came.
    """

    events: int = 0
    lists: int = 0
    dead_letters: int = 0
    duration_s: float = 0.0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    known: HitRates = field(default_factory=HitRates)
    newcomers: HitRates = field(default_factory=HitRates)
    newcomer_households: int = 0


class Replay:
    """Publishes the baskets at a steady rate.

    Parameters
    ----------
    owned : mapping of household → set of products
        What each household bought before; kept up to date.
    newcomers : collection of str
        Households that have no history.
    """

    def __init__(
        self,
        baskets: Sequence[Basket],
        store: Store,
        publisher: Publisher,
        consumer: ConsumerProcess,
        owned: dict[str, set[str]],
        newcomers: Collection[str],
    ) -> None:
        self._baskets = baskets
        self._store = store
        self._publisher = publisher
        self._consumer = consumer
        self._owned = owned
        self._newcomers = newcomers
        self._popular = _items(store.item_lists.popular())
        self._first_day = self._lists_of(sorted(owned))
        self._stories = Stories()
        self._outcome = Outcome(newcomer_households=len(newcomers))

    def play(self, *, events_per_s: float, show: Callable[[Progress], None], tell: Callable[[Story], None]) -> Outcome:
        """Publish everything, wait for the last list, and return what happened."""
        total = sum(len(basket.records) for basket in self._baskets)
        outcome = self._outcome
        started = shown_at = due = time.monotonic()
        before = self._consumer.metrics()
        shown = before
        for basket in self._baskets:
            time.sleep(max(0.0, due - time.monotonic()))
            # What took longer, such as watching a household, is not caught up with by a burst.
            due = max(due, time.monotonic()) + len(basket.records) / events_per_s
            lists = self._lists_of([basket.household])[basket.household]
            self._count_hits(basket, lists)
            seen = lists if lists.new else OwnLists(self._popular)
            if self._stories.may_use(basket, len(self._owned.get(basket.household, ())), seen):
                story = self._follow(basket, seen)
                if story and self._stories.takes(story, outcome.events / total):
                    tell(story)
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

    def _publish(self, basket: Basket) -> None:
        for record in basket.records:
            self._publisher.publish_record(basket.household, record)
        self._outcome.events += len(basket.records)

    def _follow(self, basket: Basket, before: OwnLists) -> Story | None:
        """Publish a basket and watch its household's lists in Redis change, as an app would; None if they do not."""
        household, bought = basket.household, set(basket.items)
        published = self._store.users.lists([household])[0]
        started = time.monotonic()
        self._publish(basket)
        while time.monotonic() - started < _STORY_PATIENCE_S:
            now = self._store.users.lists([household])[0]
            if now and now["revision"] != (published or {}).get("revision") and bought.isdisjoint(_items(now)):
                latency_ms = 1000 * (time.monotonic() - started)
                known = len(self._owned.get(household, ()))
                return Story(household, known, basket.items, before, self._lists_of([household])[household], latency_ms)
            time.sleep(0.001)
        self._consumer.ensure_running()
        return None

    def _lists_of(self, households: Sequence[str]) -> dict[str, OwnLists]:
        users = self._store.users
        lists = zip(users.lists(households), users.again_lists(households), strict=True)
        return {
            household: OwnLists(_items(new), _items(again))
            for household, (new, again) in zip(households, lists, strict=True)
        }

    def _count_hits(self, basket: Basket, lists: OwnLists) -> None:
        household, bought = basket.household, set(basket.items)
        owned = self._owned.get(household, set())
        if not bought or (not owned and household in self._newcomers):
            return
        popular = shown_from_popular(self._popular, owned)
        shown = {
            POPULAR: popular,
            FIRST_DAY: shown_from(self._first_day.get(household, OwnLists()), popular),
            REFRESHED: shown_from(lists, popular),
        }
        if household in self._newcomers:
            del shown[FIRST_DAY]
            self._outcome.newcomers.count(bought, owned, shown)
        else:
            self._outcome.known.count(bought, owned, shown)

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
            valid = records - metrics.get("dead_letters_total", 0.0)
            if done >= records and metrics.get("event_to_list_seconds_count", 0.0) >= valid:
                return metrics
            if done != read:
                last_progress, read = time.monotonic(), done
            elif time.monotonic() - last_progress > _PATIENCE_S:
                raise TimeoutError(f"the consumer read {done:,.0f} of {records:,.0f} records and then no more")
            time.sleep(0.05)


def latencies_ms(earlier: Mapping[str, float], now: Mapping[str, float]) -> tuple[float, float]:
    """Return the median and the 99th percentile of event → list between two looks at the consumer's metrics."""
    buckets = latency_buckets(earlier, now)
    return 1000 * quantile(buckets, 0.5), 1000 * quantile(buckets, 0.99)


def latency_buckets(earlier: Mapping[str, float], now: Mapping[str, float]) -> dict[float, float]:
    """Return how many events took at most so many seconds, by bucket, between two looks at the consumer's metrics."""
    names = [name for name in now if name.startswith("le ")]
    return {float(name.removeprefix("le ")): now[name] - earlier.get(name, 0.0) for name in names}


def _items(published: dict[str, Any] | None) -> list[str]:
    return [entry["item_id"] for entry in published["items"]] if published else []
