"""From an event handed to the producer to the new list readable in Redis, under steady load.

The consumer's own histogram tells of every event. An observer that has subscribed to the lists of one user in a hundred
tells whether that is true: one that reads of all lists takes a good part of a core, which those who are measured need.

Run: .venv/bin/python -m benchmarks latency
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import redis
from confluent_kafka import Producer

from benchmarks.results import Measured
from benchmarks.stream import Stall, open_stall, our_rate
from recsys.demo.stream import latency_buckets
from recsys.runtime.metrics import quantile
from tests.services import Consumer

_WARM_UP_S = 3.0
_PATIENCE_S = 60.0
_LINGER_MS = 5
"""How long a producer waits for more events before it sends a request: the default of librdkafka."""
_SAMPLED = "00"
"""What the numbers of the users end with of whom the observer reads."""
_QUANTILES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}


@dataclass(frozen=True)
class Load:
    """What a steady load led to, after a warm-up that does not count.

    Attributes
    ----------
    buckets : mapping of float → float
        Events by the time from the record's timestamp to the list, by the upper bound of the bucket in seconds.
    observed_ms : float64, (n,)
        Time from the call of the producer to the notification of Redis, of the users of whom the observer reads.
    lists_per_s : float
    cores : mapping of str → float
        How many cores were at work, and for whom; without anything else on the machine.
    """

    buckets: Mapping[float, float]
    observed_ms: np.ndarray
    lists_per_s: float
    cores: Mapping[str, float]

    def quantile_ms(self, q: float) -> float:
        """Return a quantile of the consumer's own histogram."""
        return 1000 * quantile(self.buckets, q)


def under_load(stall: Stall, *, events_per_s: float, seconds: float, linger_ms: int = _LINGER_MS) -> Load:
    """Have events come at an even rate for this long, and a warm-up before."""
    count = int(events_per_s * (seconds + _WARM_UP_S))
    records = stall.purchases(count)
    client = redis.Redis.from_url(stall.shop.redis_url)
    client.config_set("notify-keyspace-events", "K$")
    prefix = stall.shop.environment["RECSYS_REDIS__PREFIX"]
    watcher = client.pubsub(ignore_subscribe_messages=True)
    watcher.psubscribe(f"__keyspace@0__:{prefix}:{{user-*{_SAMPLED}}}:recs")
    watcher.get_message(timeout=1)
    consumer = stall.shop.start_consumer(RECSYS_CONSUMER__STATS_INTERVAL_S="3600")
    try:
        consumer.await_assigned()
        ours, theirs = multiprocessing.Pipe()
        arguments = (stall.shop.kafka.address, stall.shop.topic, records, events_per_s, linger_ms, theirs)
        process = multiprocessing.get_context("spawn").Process(target=produce, args=arguments)
        process.start()
        began: float = ours.recv()
        seen = _watched(watcher, until=began + _WARM_UP_S)
        before, since = consumer.metrics(), time.monotonic()
        worked_before = _worked_s(consumer, client)
        seen += _watched(watcher, until=began + count / events_per_s)
        worked = _worked_s(consumer, client)
        after, now = consumer.metrics(), time.monotonic()  # what is left then would come without load
        sent: list[float] = ours.recv()
        process.join()
        _await_listed(consumer, count)
        seen += _watched(watcher, until=time.monotonic() + 1.0)
    finally:
        consumer.stop()
        client.config_set("notify-keyspace-events", "")
    first = int(events_per_s * _WARM_UP_S)
    lists = after["lists_published_total"] - before["lists_published_total"]
    return Load(
        latency_buckets(before, after),
        1000 * _matched(records[first:], sent[first:], seen),
        lists / (now - since),
        {who: (seconds - worked_before[who]) / (now - since) for who, seconds in worked.items()},
    )


def _worked_s(consumer: Consumer, client: Any) -> dict[str, float]:
    """Return for how many seconds cores have been at work until now, by for whom."""
    tick = os.sysconf("SC_CLK_TCK")
    fields = [int(text) for text in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    idle = fields[3] + fields[4]
    ours = {"consumer": consumer.process.pid, "Redis": client.info("server")["process_id"]}
    ticks = {who: sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15]))
             for who, pid in ours.items()}  # fmt: skip
    ticks["Kafka, producer and observer"] = sum(fields[:8]) - idle - sum(ticks.values())
    return {who: count / tick for who, count in (ticks | {"nobody": idle}).items()}


def _watched(watcher: Any, *, until: float) -> list[tuple[str, float]]:
    """Return the users of the lists that were set until then, and when."""
    seen = []
    while (left := until - time.monotonic()) > 0:
        message = watcher.get_message(timeout=min(left, 0.5))
        if message is not None:
            channel = message["channel"].decode()
            seen.append((channel[channel.index("{") + 1 : channel.rindex("}")], time.monotonic()))
    return seen


def _await_listed(consumer: Consumer, count: int) -> None:
    """Wait until the lists of all records are written."""
    until = time.monotonic() + _PATIENCE_S
    while True:
        counts = consumer.metrics()
        if counts["records_total"] >= count and counts["lists_published_total"] >= counts["solves_total"]:
            return
        if time.monotonic() > until:
            raise RuntimeError("the consumer has not written all lists")
        time.sleep(0.1)


def produce(
    address: str,
    topic: str,
    records: Sequence[tuple[str, bytes]],
    events_per_s: float,
    linger_ms: int,
    pipe: Connection,
) -> None:
    """Hand records to Kafka at an even rate; first send when that begins, then the monotonic time of each."""
    producer = Producer({"bootstrap.servers": address, "linger.ms": linger_ms, "acks": "all"})
    producer.list_topics(topic, timeout=10)
    sent = []
    started = time.monotonic()
    pipe.send(started)
    for number, (key, value) in enumerate(records):
        while (ahead := started + number / events_per_s - time.monotonic()) > 0:
            producer.poll(0)
            time.sleep(min(ahead, 0.001))
        sent.append(time.monotonic())
        producer.produce(topic, value, key)
    producer.flush()
    pipe.send(sent)


def _matched(
    records: Sequence[tuple[str, bytes]], sent: Sequence[float], seen: Sequence[tuple[str, float]]
) -> np.ndarray:
    """Return for each record of a watched user the time until the first list that was written after it was sent."""
    lists: dict[str, list[float]] = {}
    for user, at in seen:
        lists.setdefault(user, []).append(at)
    found = []
    for (user, _), at in zip(records, sent, strict=True):
        if not user.endswith(_SAMPLED):
            continue
        later = [written for written in lists.get(user, []) if written > at]
        if not later:
            raise RuntimeError(f"the list of {user} was never written")
        found.append(later[0] - at)
    return np.array(found)


def measure(*, quick: bool) -> list[Measured]:
    """Return the quantiles at 100 and 500 events/s, and at 50 % and 80 % of what the consumer can do.

    What it can do here is less than with a backlog: the producer works on the same cores. At the small rates the
    producer sends each event on its own; at a large one it does so only to show what that costs: a request for each
    event keeps Kafka busy, on the cores that the consumer needs.
    """
    found = []
    with open_stall() as stall:
        most = under_load(stall, events_per_s=our_rate(stall), seconds=4.0).lists_per_s
        half, four_fifths = "50 % of what it can do beside its producer", "80 % of what it can do beside its producer"
        alone = "a request for each event"
        cases: dict[str, tuple[float, int, dict[str, float]]] = {
            f"100 events/s, {alone}": (100.0, 0, {"p50": 5.0}),
            f"500 events/s, {alone}": (500.0, 0, {"p50": 10.0, "p99": 50.0}),
            half: (0.5 * most, _LINGER_MS, {"p99": 100.0}),
            f"{half}, {alone}": (0.5 * most, 0, {}),
            four_fifths: (0.8 * most, _LINGER_MS, {"p99": 250.0}),
        }
        found.append(Measured("latency", "a flood", "what it can do beside its producer", most, "lists/s"))
        for case, (rate, linger_ms, limits) in cases.items():
            load = under_load(stall, events_per_s=rate, seconds=8.0 if quick else 20.0, linger_ms=linger_ms)
            for name, q in _QUANTILES.items():
                value = load.quantile_ms(q)
                found.append(Measured("latency", case, name, value, "ms", at_most=limits.get(name)))
            observed = float(np.quantile(load.observed_ms, 0.5))
            found.append(Measured("latency", case, "p50, as an observer sees it", observed, "ms"))
            found += [Measured("latency", case, f"cores for: {who}", used, "cores") for who, used in load.cores.items()]
    return found
