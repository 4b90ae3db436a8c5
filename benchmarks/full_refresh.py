"""Every list anew after a new model: our full refresh, and implicit's own recommend in batches with pipelined SETs.

Run: .venv/bin/python -m benchmarks full-refresh
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from typing import Any

import numpy as np
import orjson
import redis
from implicit.cpu.als import AlternatingLeastSquares
from threadpoolctl import threadpool_limits

from benchmarks.latency import produce
from benchmarks.measuring import BATCH, LISTED
from benchmarks.results import TIMES, Measured
from benchmarks.stream import Stall, open_stall, publish_model
from recsys.demo.stream import latencies_ms as consumer_latencies_ms
from recsys.lists.live_model import LoadedModel, prepare
from recsys.lists.refresh_all import refresh_all_users
from recsys.redis import open_store
from recsys.settings import Settings
from recsys.storage.data_dir import open_data_dir

USERS, ROUNDS = 200_000, 3


def our_rate(stall: Stall) -> float:
    """Return users per second of the full refresh after a model that is new to everyone."""
    publish_model(stall.shop, stall.store, stall.model, stall.interactions)
    return fully_refreshed(stall.shop.settings())


def fully_refreshed(settings: Settings) -> float:
    """Refresh every list with the live model; return users per second."""
    with open_store(settings) as store:
        pointer = store.pointer.read()
        if pointer is None:
            raise RuntimeError("the pointer is gone")
        models = open_data_dir(settings).models
        live = LoadedModel(pointer, models.load(pointer.version, manifest_sha256=pointer.manifest_sha256))
        prepare(live.model)
        started = time.perf_counter()
        written = refresh_all_users(settings, store, live, lambda _: None)
        return written / (time.perf_counter() - started)


def latency_beside(stall: Stall, *, events_per_s: float, seconds: float) -> float:
    """Return the 99th percentile in milliseconds that a consumer counts while everyone's list is written anew.

    It counts from the records' own timestamps: seen from outside, a list may as well be the full refresh's.
    """
    spawn = multiprocessing.get_context("spawn")
    refresher = spawn.Process(target=_refresh_for_ever, args=(stall.shop.settings(),))
    ours, theirs = spawn.Pipe()
    records = stall.purchases(int(events_per_s * seconds))
    producer = spawn.Process(
        target=produce, args=(stall.shop.kafka.address, stall.shop.topic, records, events_per_s, theirs)
    )
    consumer = stall.shop.start_consumer(RECSYS_CONSUMER__STATS_INTERVAL_S="3600")
    try:
        consumer.await_assigned()
        refresher.start()
        before = consumer.metrics()
        producer.start()
        ours.recv()
        producer.join()
        while (now := consumer.metrics())["records_total"] < before["records_total"] + len(records):
            time.sleep(0.1)
        return consumer_latencies_ms(before, now)[1]
    finally:
        refresher.terminate()
        refresher.join()
        consumer.stop()


def _refresh_for_ever(settings: Settings) -> None:
    with open_store(settings) as store:
        while True:
            for users in store.users.user_ids():
                keys = [store.users._keys.recs(user) for user in users]  # without a list, everyone is behind
                store.connection.run([(key, ("UNLINK", key)) for key in keys])
            fully_refreshed(settings)


def implicit_rate(stall: Stall) -> float:
    """Return users per second of recommend in batches; what users own is in memory already, as after training."""
    with threadpool_limits(1, "blas"):
        model = AlternatingLeastSquares(factors=stall.model.item_factors.shape[1], regularization=20.0, alpha=1.0)
        model.item_factors = stall.model.item_factors
        model._YtY = stall.model.item_gram
        ids = stall.model.items.ids
        client: Any = redis.Redis.from_url(stall.shop.redis_url)
        confidences = stall.owned.copy()
        confidences.data[:] = 2.0
        started = time.perf_counter()
        for start in range(0, len(stall.users), BATCH):
            part = confidences[start : start + BATCH]
            found, scores = model.recommend(np.arange(part.shape[0]), part, N=LISTED, recalculate_user=True)
            pipeline = client.pipeline(transaction=False)
            for user, rows, values in zip(
                stall.users[start : start + BATCH], found.tolist(), scores.tolist(), strict=True
            ):
                items = [{"item_id": ids[row], "score": value} for row, value in zip(rows, values, strict=True)]
                pipeline.set(f"by-hand:{user}:list", orjson.dumps(items))
            pipeline.execute()
        return len(stall.users) / (time.perf_counter() - started)


def measure(*, quick: bool) -> list[Measured]:
    """Compare the two, and watch a consumer beside the full refresh."""
    with open_stall(40_000 if quick else USERS) as stall:
        ours, theirs = [], []
        for _ in range(2 if quick else ROUNDS):
            ours.append(our_rate(stall))
            theirs.append(implicit_rate(stall))
        case = f"{len(stall.users):,} users, {len(stall.model.items):,} items"
        rate, other = statistics.median(ours), statistics.median(theirs)
        found = [
            Measured("full-refresh", case, "our full refresh, histories read from Redis", rate, "users/s"),
            Measured("full-refresh", case, "implicit.recommend in batches, pipelined SET", other, "users/s"),
            Measured("full-refresh", case, "ours / implicit", rate / other, TIMES, at_least=3),
        ]
        if not quick:
            beside = latency_beside(stall, events_per_s=100, seconds=30)
            case = f"{case}, a consumer beside it, 100 events/s"
            found.append(Measured("full-refresh", case, "event to list, p99", beside, "ms", at_most=250))
    return found
