"""From an event handed to the producer to the new list readable in Redis, under steady load.

Run: .venv/bin/python -m benchmarks.latency
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection

import numpy as np
import redis
from confluent_kafka import Producer

from benchmarks.stream import Stall, open_stall, our_rate

_WARM_UP_S = 3.0
_PATIENCE_S = 30.0


def latencies_ms(stall: Stall, *, events_per_s: float, seconds: float) -> np.ndarray:
    """Return the milliseconds of each event of a steady load, after a warm-up that does not count.

    A list is readable when Redis says that its key was set (keyspace notifications). No user has two events under
    way: there are as many users as events in the time that `_PATIENCE_S` allows, or fewer events than that.
    """
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
        process = multiprocessing.get_context("spawn").Process(target=_produce, args=arguments)
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
    return _matched(records, sent, seen)[int(events_per_s * _WARM_UP_S) :] * 1000


def _produce(
    address: str, topic: str, records: Sequence[tuple[str, bytes]], events_per_s: float, done: Connection
) -> None:
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


def main() -> None:
    """Print the quantiles at three loads."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rates", type=float, nargs="*")
    options = parser.parse_args()
    with open_stall() as stall:
        rates = options.rates or [100, 500, 0.8 * our_rate(stall)]
        for rate in rates:
            found = latencies_ms(stall, events_per_s=rate, seconds=min(options.seconds, len(stall.users) * 3 / rate))
            middle, high, highest = np.quantile(found, [0.5, 0.99, 0.999])
            print(
                f"{rate:7,.0f} events/s: p50 {middle:6.1f} ms, p99 {high:6.1f} ms, p99.9 {highest:6.1f} ms", flush=True
            )


if __name__ == "__main__":
    main()
