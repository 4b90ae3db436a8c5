"""A second consumer beside the first, and the CPU time that each process spends per event: what extrapolates.

Where broker and Redis share two cores with the consumers, the rate of two is limited by the cores. What an event costs
in each process is not: `benchmarks.scaling` reckons with it.

Run: .venv/bin/python -m benchmarks scale-out
"""

from __future__ import annotations

import os
import statistics
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from benchmarks.results import TIMES, Measured
from benchmarks.stream import Stall, open_stall, publish_model
from recsys.lists.live_model import LoadedModel, prepare
from recsys.lists.refresh_all import refresh_all_users
from recsys.storage.data_dir import open_data_dir
from tests.conftest import PARTITIONS
from tests.services import wait_until

CONSUMER, REDIS, HANDING_OUT, TAKING_IN = "consumers", "Redis", "broker, handing out", "broker, taking in"
ONE, TWO, FREE = "one consumer on one core", "two consumers, each on a core of its own", "one consumer on all cores"
COST_CASE = "for the cost model"
KAFKA_BYTES, FULL_REFRESH, FULL_REFRESH_REDIS = "a record in Kafka", "full refresh", "Redis, beside the full refresh"
EVENTS, ROUNDS = 30_000, 5
_WARM_UP_EVENTS = 2_000
_LOOK_S = 0.1
"""Between looks at the consumers' metrics, which cost them time."""
_PATIENT_GROUP = '{"session.timeout.ms": 45000}'  # consumers stand still while their backlog is written


@contextmanager
def only_on(cores: Iterable[int]) -> Iterator[None]:
    """Keep this thread, and what it starts meanwhile, to these cores: a process is pinned before its first thread."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cpu_s(processes: Iterable[psutil.Process]) -> float:
    """Return the seconds that all cores have worked for these processes."""
    times = [process.cpu_times() for process in processes]
    return sum(one.user + one.system for one in times)


def redis_process(stall: Stall) -> psutil.Process:
    """Return the Redis server."""
    return psutil.Process(stall.store.connection.client.info("server")["process_id"])


def broker_process() -> psutil.Process | None:
    """Return the broker that was started for this run, None where it is someone else's."""
    children = psutil.Process().children(recursive=True)
    return next((child for child in children if "kafka.Kafka" in child.cmdline()), None)


def topic_bytes(broker: psutil.Process, topic: str) -> int:
    """Return the size of a topic's records as the broker keeps them."""
    data = Path(broker.cmdline()[-1]).parent / "data"
    return sum(file.stat().st_size for file in data.glob(f"{topic}-*/*.log"))


# one backlog ------------------------------------------------------------------------------------------------------


def drained(stall: Stall, cores: Sequence[Iterable[int]], *, events: int) -> dict[str, float]:
    """Have one consumer for each set of cores drain a backlog; return lists per second, and CPU µs and bytes per event.

    All are ready and warm before the clock starts. There is one list for each event: in no batch is a user twice.
    """
    consumers = []
    for own in cores:
        with only_on(own):
            consumers.append(
                stall.shop.start_consumer(
                    RECSYS_CONSUMER__STATS_INTERVAL_S="3600", RECSYS_KAFKA__LIBRDKAFKA=_PATIENT_GROUP
                )
            )

    def lists() -> float:
        return sum(consumer.metrics().get("lists_published_total", 0.0) for consumer in consumers)

    share = PARTITIONS // len(consumers)
    wait_until(
        lambda: all(consumer.metrics().get("partitions") == share for consumer in consumers), "partitions are shared"
    )
    stall.publish(stall.purchases(_WARM_UP_EVENTS))
    wait_until(lambda: lists() >= _WARM_UP_EVENTS, "consumers are warm")
    processes = {CONSUMER: [psutil.Process(consumer.process.pid) for consumer in consumers]}
    processes[REDIS] = [redis_process(stall)]
    broker = broker_process()
    if broker is not None:
        processes[HANDING_OUT] = [broker]

    backlog = stall.purchases(events)
    for consumer in consumers:
        consumer.freeze()
    found = {}
    if broker is None:
        stall.publish(backlog)
    else:
        bytes_before, cpu_before_s = topic_bytes(broker, stall.shop.topic), cpu_s([broker])
        stall.publish(backlog)
        found[TAKING_IN] = (cpu_s([broker]) - cpu_before_s) / events * 1e6
        found[KAFKA_BYTES] = (topic_bytes(broker, stall.shop.topic) - bytes_before) / events
    before_s = {name: cpu_s(some) for name, some in processes.items()}
    started = time.perf_counter()
    for consumer in consumers:
        consumer.thaw()
    until = started + 60 + events / 100
    while lists() < _WARM_UP_EVENTS + events:
        if time.perf_counter() > until:
            raise RuntimeError(f"the backlog was not drained: {lists():,.0f} lists")
        time.sleep(_LOOK_S)
    found["lists"] = events / (time.perf_counter() - started)
    for name, some in processes.items():
        found[name] = (cpu_s(some) - before_s[name]) / events * 1e6
    for consumer in consumers:
        if consumer.stop() != 0:
            raise RuntimeError(consumer.said())
    return found


# every list -------------------------------------------------------------------------------------------------------


def fully_refreshed(stall: Stall) -> dict[str, float]:
    """Write every list anew; return the CPU µs per user, here and in Redis."""
    publish_model(stall.shop, stall.store, stall.model, stall.interactions)
    pointer = stall.store.pointer.read()
    if pointer is None:
        raise RuntimeError("the pointer is gone")
    models = open_data_dir(stall.shop.settings()).models
    live = LoadedModel(pointer, models.load(pointer.version, manifest_sha256=pointer.manifest_sha256))
    prepare(live.model)
    processes = {FULL_REFRESH: [psutil.Process()], FULL_REFRESH_REDIS: [redis_process(stall)]}
    before_s = {name: cpu_s(some) for name, some in processes.items()}
    written = refresh_all_users(stall.shop.settings(), stall.store, live, lambda _: None)
    return {name: (cpu_s(some) - before_s[name]) / written * 1e6 for name, some in processes.items()}


# all of it --------------------------------------------------------------------------------------------------------


def measure(*, quick: bool) -> list[Measured]:
    """Compare one consumer with two, and take what an event and a user cost."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise RuntimeError("a second consumer needs a second core")
    cases = {ONE: [cores[:1]], TWO: [cores[:1], cores[1:2]], FREE: [cores]}
    events = 5_000 if quick else EVENTS
    rounds: dict[str, dict[str, list[float]]] = {case: defaultdict(list) for case in [*cases, COST_CASE]}
    with open_stall() as stall:
        drained(stall, [cores], events=events)  # the broker's own warm-up
        for _ in range(3 if quick else ROUNDS):
            for case, own in cases.items():
                for what, value in drained(stall, own, events=events).items():
                    rounds[COST_CASE if what in {TAKING_IN, KAFKA_BYTES} else case][what].append(value)
            for what, value in fully_refreshed(stall).items():
                rounds[COST_CASE][what].append(value)
    middle = {case: {what: statistics.median(some) for what, some in found.items()} for case, found in rounds.items()}
    return [*_rows(middle), *_ratios(middle)]


def _rows(middle: Mapping[str, Mapping[str, float]]) -> list[Measured]:
    units = {"lists": "lists/s", KAFKA_BYTES: "bytes", FULL_REFRESH: "CPU µs/user", FULL_REFRESH_REDIS: "CPU µs/user"}
    return [
        Measured("scale-out", case, what, value, units.get(what, "CPU µs/event"))
        for case, found in middle.items()
        for what, value in found.items()
    ]


def _ratios(middle: Mapping[str, Mapping[str, float]]) -> list[Measured]:
    def cpu(case: str) -> float:
        return sum(value for what, value in middle[case].items() if what != "lists")

    rate = {case: middle[case]["lists"] for case in (ONE, TWO, FREE)}
    ratios = {
        "lists/s, two / one on one core": rate[TWO] / rate[ONE],
        "lists/s, two / one on all cores": rate[TWO] / rate[FREE],
        "CPU per event in all processes, two / one on one core": cpu(TWO) / cpu(ONE),
    }
    return [Measured("scale-out", "compared", what, value, TIMES) for what, value in ratios.items()]
