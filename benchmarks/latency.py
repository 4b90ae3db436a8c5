"""From an event handed to the producer to the new list readable in Redis, under steady load.

Run: .venv/bin/python -m benchmarks latency
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection

import numpy as np
import redis
from confluent_kafka import Producer

from benchmarks.results import Measured
from benchmarks.stream import Stall, open_stall, our_rate

_WARM_UP_S = 3.0
_PATIENCE_S = 30.0


@dataclass(frozen=True)
class Load:
    """A steady load, and when its lists were readable.

    Attributes
    ----------
    records : sequence of (user, purchase)
    sent : sequence of float
        When each was handed to the producer.
    seen : sequence of (user, float)
        When Redis said that a list was set (keyspace notifications).
    """

    records: Sequence[tuple[str, bytes]]
    sent: Sequence[float]
    seen: Sequence[tuple[str, float]]

    def latencies_ms(self, *, after_s: float) -> np.ndarray:
        """Return the milliseconds of each event, after a warm-up that does not count."""
        taken = _matched(self.records, self.sent, self.seen) * 1000
        return taken[np.array(self.sent) >= self.sent[0] + after_s]

    def lists_per_s(self, *, after_s: float) -> float:
        """Return how fast lists came, after a warm-up that does not count."""
        times = np.array([at for _, at in self.seen])
        times = times[times >= self.sent[0] + after_s]
        return len(times) / float(times[-1] - times[0])


def under_load(stall: Stall, *, events_per_s: float, seconds: float) -> Load:
    """Have events come at an even rate for this long, and a warm-up before."""
    count = int(events_per_s * (seconds + _WARM_UP_S))
    records = stall.purchases(count)
    client = redis.Redis.from_url(stall.shop.redis_url)
    client.config_set("notify-keyspace-events", "K$")
    prefix = stall.shop.environment["RECSYS_REDIS__PREFIX"]
    watcher = client.pubsub(ignore_subscribe_messages=True)
    watcher.psubscribe(f"__keyspace@0__:{prefix}:{{user-*:recs")
    watcher.get_message(timeout=1)
    consumer = stall.shop.start_consumer(RECSYS_CONSUMER__STATS_INTERVAL_S="3600")
    try:
        consumer.await_assigned()
        ours, theirs = multiprocessing.Pipe()
        arguments = (stall.shop.kafka.address, stall.shop.topic, records, events_per_s, theirs)
        process = multiprocessing.get_context("spawn").Process(target=produce, args=arguments)
        process.start()
        seen: list[tuple[str, float]] = []
        until = time.monotonic() + count / events_per_s + _PATIENCE_S
        while len(seen) < count and time.monotonic() < until:
            message = watcher.get_message(timeout=0.5)
            if message is not None:
                channel = message["channel"].decode()
                seen.append((channel[channel.index("{") + 1 : channel.rindex("}")], time.monotonic()))
        sent: list[float] = ours.recv()
        process.join()
    finally:
        consumer.stop()
        client.config_set("notify-keyspace-events", "")
    return Load(records, sent, seen)


def produce(
    address: str, topic: str, records: Sequence[tuple[str, bytes]], events_per_s: float, done: Connection
) -> None:
    """Hand records to Kafka at an even rate; then send the monotonic time of each."""
    producer = Producer({"bootstrap.servers": address, "linger.ms": 0, "acks": "all"})
    producer.list_topics(topic, timeout=10)
    sent = []
    started = time.monotonic()
    for number, (key, value) in enumerate(records):
        while (ahead := started + number / events_per_s - time.monotonic()) > 0:
            producer.poll(0)
            time.sleep(min(ahead, 0.001))
        sent.append(time.monotonic())
        producer.produce(topic, value, key)
    producer.flush()
    done.send(sent)


def _matched(
    records: Sequence[tuple[str, bytes]], sent: Sequence[float], seen: Sequence[tuple[str, float]]
) -> np.ndarray:
    """Return for each record the time until the first list of its user that was written after it was sent."""
    lists: dict[str, list[float]] = {}
    for user, at in seen:
        lists.setdefault(user, []).append(at)
    found = []
    for (user, _), at in zip(records, sent, strict=True):
        later = [written for written in lists.get(user, []) if written > at]
        if not later:
            raise RuntimeError(f"the list of {user} was never written; {len(seen)} of {len(records)} were")
        found.append(later[0] - at)
    return np.array(found)


def measure(*, quick: bool) -> list[Measured]:
    """Return the quantiles at 100 and 500 events/s, and at 80 % of what the consumer can do.

    What it can do here is less than with a backlog: producer and observer work on the same cores.
    """
    found = []
    with open_stall() as stall:
        flood = under_load(stall, events_per_s=our_rate(stall), seconds=3.0)
        peak = 0.8 * flood.lists_per_s(after_s=_WARM_UP_S)
        bars = {100.0: {"p50": 5.0}, 500.0: {"p50": 10.0, "p99": 50.0}, peak: {}}
        for rate, limits in bars.items():
            seconds = min(10.0 if quick else 30.0, len(stall.users) * 3 / rate)
            taken = under_load(stall, events_per_s=rate, seconds=seconds).latencies_ms(after_s=_WARM_UP_S)
            case = f"{rate:,.0f} events/s" + (", 80 % of what it can do beside its producer" if rate == peak else "")
            for name, quantile in (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)):
                value = float(np.quantile(taken, quantile))
                found.append(Measured("latency", case, name, value, "ms", at_most=limits.get(name)))
    return found
