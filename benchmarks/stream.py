"""Purchases in real Kafka to lists in real Redis: this consumer, and the loop one would write by hand around implicit.

Run: .venv/bin/python -m benchmarks stream
"""

from __future__ import annotations

import gc
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import redis
from confluent_kafka import Consumer as KafkaConsumer
from confluent_kafka import Producer, TopicPartition
from implicit.cpu.als import AlternatingLeastSquares
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits

from benchmarks.measuring import BATCH, LISTED, OWNED, buyers, complete_journey, fitted_model, in_turns
from benchmarks.results import TIMES, Measured
from recsys.data.event import Event, decode
from recsys.data.interactions import Interactions
from recsys.lists.encoding import both_as_json
from recsys.model.confidence import confidence
from recsys.model.factor_model import FactorModel
from recsys.model.top_n import top_n
from recsys.recommend.item_lists import popular_items
from recsys.recommend.user_lists import refresh
from recsys.redis import ModelStamp, PlacedEvent, Store, open_store
from recsys.settings import RankingSettings
from recsys.storage.artifact import Draft
from recsys.storage.files import Storage
from recsys.storage.models import ModelStore
from tests.conftest import PARTITIONS, opened_shop
from tests.faults.ledger import ORDERS
from tests.services import RedisServer, Shop, kafka_server

USERS = 10_000
_SOLD_AT = 1_795_342_500_000


@dataclass
class Stall:
    """A shop with a model and users who own `OWNED` items each."""

    shop: Shop
    store: Store
    interactions: Interactions
    model: FactorModel
    owned: csr_matrix
    made: int = 0

    @cached_property
    def users(self) -> list[str]:
        """Their ids."""
        return [f"user-{number:06d}" for number in range(self.owned.shape[0])]

    def purchases(self, count: int, *, lines: int = 1) -> list[tuple[str, bytes]]:
        """Make baskets of users in turn, of items that they own: histories stay as long as they are."""
        records = []
        for basket, user, items in self._baskets(count, lines):
            for line, item in enumerate(items):
                event = {
                    "event_id": f"e{basket}-{line}",
                    "user_id": user,
                    "item_id": item,
                    "quantity": 1,
                    "timestamp": _SOLD_AT,
                }
                records.append((user, orjson.dumps(event)))
        return records

    def orders(self, count: int, *, lines: int) -> list[tuple[str, bytes]]:
        """Make the same baskets, each of them one record, as the mapping `ORDERS` reads it."""
        return [
            (
                user,
                orjson.dumps(
                    {
                        "id": f"o{basket}",
                        "customer": user,
                        "at": _SOLD_AT,
                        "lines": [{"id": line, "sku": item} for line, item in enumerate(items)],
                    }
                ),
            )
            for basket, user, items in self._baskets(count, lines)
        ]

    def _baskets(self, count: int, lines: int) -> Iterator[tuple[int, str, list[str]]]:
        """Yield number, user and items of baskets."""
        for basket in range(self.made, self.made + count):
            user, turn = basket % len(self.users), basket // len(self.users)
            rows = [self.owned.indices[user * OWNED + (turn + line) % OWNED] for line in range(lines)]
            yield basket, f"user-{user:06d}", [self.model.items.ids[row] for row in rows]
        self.made += count

    def publish(self, records: Sequence[tuple[str, bytes]]) -> None:
        """Hand records to Kafka and wait until it has them."""
        room = {"queue.buffering.max.messages": max(len(records), 1)}
        producer = Producer({"bootstrap.servers": self.shop.kafka.address, "linger.ms": 20, "acks": "all", **room})
        for key, value in records:
            producer.produce(self.shop.topic, value, key)
            producer.poll(0)
        producer.flush()


@contextmanager
def open_shop() -> Iterator[Shop]:
    """Start real Kafka and Redis with an installation of its own."""
    with ExitStack() as stack:
        kafka = stack.enter_context(kafka_server())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = RedisServer(folder)
        stack.callback(server.kill)
        server.start()
        shop = stack.enter_context(opened_shop(kafka, server.url, folder))
        shop.forked = False  # what is measured starts as it does for an operator
        shop.environment["RECSYS_RANKING__N"] = str(LISTED)
        yield shop


@contextmanager
def open_stall(users: int = USERS) -> Iterator[Stall]:
    """Open a shop, publish the model, import the histories."""
    interactions = complete_journey()
    model = fitted_model(interactions)
    owned = buyers(interactions, users)
    with open_shop() as shop, open_store(shop.settings()) as store:
        publish_model(shop, store, model, interactions)
        stall = Stall(shop, store, interactions, model, owned)
        for start in range(0, users, BATCH):
            store.users.apply_without_reading(
                {
                    user: _history(user, model, owned.indices[number * OWNED : (number + 1) * OWNED])
                    for number, user in enumerate(stall.users[start : start + BATCH], start)
                }
            )
        yield stall


def publish_model(shop: Shop, store: Store, model: FactorModel, interactions: Interactions) -> None:
    """Write the model and move the pointer, as the trainer does."""
    settings = shop.settings()
    version, uri, digest = ModelStore(Storage(settings.data_dir)).save(
        Draft(
            model,
            interactions.buyers(),
            interactions.buyers().astype(np.float64),
            parameters={"iterations": settings.model.iterations, "seed": settings.model.seed},
            counts={"items": len(model.items)},
        ),
        popular=popular_items(interactions.items, interactions.buyers().astype(np.float64), n=LISTED),
        archive={},
        at=datetime.now(UTC),
    )
    seen = store.pointer.value()
    store.pointer.move(version, uri, digest, seen=seen, at=datetime.now(UTC))


def _history(user: str, model: FactorModel, rows: Sequence[int]) -> list[PlacedEvent]:
    return [
        PlacedEvent(
            "import:0",
            place,
            Event(user_id=user, item_id=model.items.ids[row], timestamp=_SOLD_AT + place),
            complete=True,
        )
        for place, row in enumerate(rows)
    ]


# the two loops ----------------------------------------------------------------------------------------------------


def our_rate(stall: Stall, records: Sequence[tuple[str, bytes]] = (), **settings: str) -> float:
    """Return the lists per second that `python -m consumer` writes while it has a backlog of these records."""
    records = records or stall.purchases(3 * USERS)
    stall.publish(records)
    consumer = stall.shop.start_consumer(RECSYS_CONSUMER__STATS_INTERVAL_S="3600", **settings)
    try:
        first: tuple[float, float] | None = None
        while True:
            counts = consumer.metrics()
            solved, read = counts.get("solves_total", 0.0), counts.get("records_total", 0.0)
            at = time.perf_counter()
            if first is None and solved:
                first = at, solved
            if first is not None and read >= len(records) and counts["lists_published_total"] >= solved:
                return (solved - first[1]) / (at - first[0])
            time.sleep(0.1)
    finally:
        if consumer.stop() != 0:
            raise RuntimeError(consumer.said())


def _of_more_lines(stall: Stall) -> list[Measured]:
    """Measure baskets of more than one line, as that many records and as one record that a mapping reads."""
    mapping = stall.shop.folder / "orders.toml"
    mapping.write_text(ORDERS, encoding="utf-8")
    found = []
    for lines in (3, 30):
        rates: dict[str, list[float]] = defaultdict(list)
        for _ in range(3):
            rates["a record a line"].append(our_rate(stall, stall.purchases(USERS, lines=lines)))
            orders = stall.orders(USERS, lines=lines)
            rates["one mapped record"].append(our_rate(stall, orders, RECSYS_EVENTS__MAPPING=str(mapping)))
        for records, values in rates.items():
            rate, case = statistics.median(values), f"{lines} lines per basket, {records}"
            found += [
                Measured("stream", case, "lists", rate, "lists/s"),
                Measured("stream", case, "events", rate * lines, "events/s"),
            ]
    return found


def by_hand_rate(stall: Stall, *, events: int = 1_000, waiting: bool = True) -> float:
    """Return the lists per second of a straightforward loop: one event at a time, all libraries used as they offer.

    ``waiting`` for each commit, the loop loses nothing; else it is faster, and a crash has it count some events twice.
    """
    stall.publish(stall.purchases(events))
    with threadpool_limits(1, "blas"):
        model = AlternatingLeastSquares(factors=stall.model.item_factors.shape[1], regularization=20.0, alpha=1.0)
    model.item_factors = stall.model.item_factors
    model._YtY = stall.model.item_gram
    rows, ids = stall.model.items.rows, stall.model.items.ids
    client: Any = redis.Redis.from_url(stall.shop.redis_url, decode_responses=True)
    consumer = KafkaConsumer(
        {
            "bootstrap.servers": stall.shop.kafka.address,
            "group.id": f"by-hand-{stall.shop.name}",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    topic = stall.shop.topic
    ends = [consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=10)[1] for p in range(PARTITIONS)]
    for number, user in enumerate(stall.users):  # histories in the loop's own form
        if client.exists(f"by-hand:{user}"):
            break
        owned = stall.owned.indices[number * OWNED : (number + 1) * OWNED]
        client.hset(f"by-hand:{user}", mapping={ids[row]: 1 for row in owned})
    consumer.assign([TopicPartition(topic, p, max(0, end - events // PARTITIONS * 2)) for p, end in enumerate(ends)])
    started, done = 0.0, 0
    with threadpool_limits(1, "blas"):
        while done < events:
            message = consumer.poll(10)
            if message is None or message.error():
                continue
            started = started or time.perf_counter()
            event = orjson.loads(message.value())
            user = event["user_id"]
            client.hincrbyfloat(f"by-hand:{user}", event["item_id"], event["quantity"])
            history = client.hgetall(f"by-hand:{user}")
            known = {rows[item]: float(quantity) for item, quantity in history.items() if item in rows}
            data = confidence(np.array(list(known.values())), np.zeros(len(known)), alpha=1.0, half_life_days=0)
            owned_items = csr_matrix((data, list(known), [0, len(known)]), shape=(1, len(ids)))
            best, scores = model.recommend(0, owned_items, N=LISTED, recalculate_user=True)
            items = [
                {"item_id": ids[row], "score": score} for row, score in zip(best.tolist(), scores.tolist(), strict=True)
            ]
            client.set(f"by-hand:{user}:list", orjson.dumps(items))
            consumer.commit(message, asynchronous=not waiting)
            done += 1
    seconds = time.perf_counter() - started
    consumer.close()
    return done / seconds


# stages -----------------------------------------------------------------------------------------------------------


def stages(stall: Stall) -> dict[str, float]:
    """Return the median microseconds per user of each stage of a batch, measured alone, in order."""
    records = stall.purchases(BATCH)
    store, model = stall.store, stall.model
    events = [decode(value) for _, value in records]
    offsets = iter(range(10**9, 2 * 10**9))
    placed = [{event.user_id: [PlacedEvent("bench:0", next(offsets), event)] for event in events} for _ in range(12)]
    # An event with an id counts once: these count every time.
    for turn, batch in enumerate(placed):
        for user, (entry,) in batch.items():
            fresh = entry.event.model_copy(update={"event_id": f"{entry.event.event_id}-{turn}"})
            batch[user] = [PlacedEvent(entry.source, entry.offset, fresh)]
    turns = iter(placed)
    states = store.users.read([event.user_id for event in events])
    histories = [state.history for state in states.values()]
    lists = refresh(histories, model, n=LISTED, again_n=RankingSettings().again_n)
    rows = [np.sort([model.items.rows[item] for item in history.entries]) for history in histories]
    confidences = csr_matrix(
        (
            np.full(OWNED * BATCH, 2.0, np.float32),
            np.concatenate(rows).astype(np.int32),
            np.arange(BATCH + 1, dtype=np.int32) * OWNED,
        ),
        shape=(BATCH, len(model.items)),
    )
    user_factors = model.solver.fold_in(confidences)
    stamp = ModelStamp(model.version, 1)
    revisions = {user: state.revision for user, state in states.items()}

    def grouped(records: Sequence[tuple[str, bytes]]) -> None:
        by_user: dict[str, list[PlacedEvent]] = defaultdict(list)
        for offset, (_, value) in enumerate(records):
            event = decode(value)
            by_user[event.user_id].append(PlacedEvent("bench:0", offset, event))

    def apply() -> None:
        revisions.update({user: state.revision for user, state in store.users.apply(next(turns)).items()})

    def publish() -> None:
        with store.users.publishing(stamp, at=datetime.now(UTC)) as publishing:
            publishing.send({user: revisions[user] for user in states}, both_as_json(lists))
            publishing.outcomes()

    gc.collect()
    gc.freeze()  # as in the consumer: collections are few, and none looks at what lives long
    taken = in_turns(
        {
            "decode": lambda: grouped(records),
            "apply": apply,
            "refresh": lambda: refresh(histories, model, n=LISTED, again_n=RankingSettings().again_n),
            "of it fold-in": lambda: model.solver.fold_in(confidences),
            "of it top-N": lambda: top_n(user_factors, model.index, excluded=rows, n=LISTED),
            "publish": publish,
            "applied offsets": lambda: store.applied_offsets.advance({"bench:0": next(offsets)}),
        },
        rounds=9,
    )
    gc.unfreeze()
    return {stage: seconds / BATCH * 1e6 for stage, seconds in taken.items()}


def measure(*, quick: bool) -> list[Measured]:
    """Compare the two loops, with baskets of one line and more, and take the batch apart."""
    found = []
    with open_stall() as stall:
        rates: dict[str, list[float]] = {"ours": [], "by hand": [], "by hand, not waiting": []}
        candidates = {
            "ours": partial(our_rate, stall),
            "by hand": partial(by_hand_rate, stall, events=300 if quick else 1_000, waiting=True),
            "by hand, not waiting": partial(by_hand_rate, stall, events=300 if quick else 1_000, waiting=False),
        }
        parts: dict[str, list[float]] = defaultdict(list)
        ratios = []
        for _ in range(3 if quick else 5):
            for name, candidate in candidates.items():
                rates[name].append(candidate())
            alone = stages(stall)
            for stage, value in alone.items():
                parts[stage].append(value)
            whole = sum(value for stage, value in alone.items() if not stage.startswith("of it"))
            ratios.append(rates["ours"][-1] * whole / 1e6)
        ours, by_hand, not_waiting = (statistics.median(values) for values in rates.values())
        case = f"{len(stall.model.items):,} items, {OWNED} owned, one line per basket, a backlog"
        found += [
            Measured("stream", case, "python -m consumer", ours, "lists/s"),
            Measured("stream", case, "a loop by hand, each commit waited for", by_hand, "lists/s"),
            Measured("stream", case, "a loop by hand, no commit waited for", not_waiting, "lists/s"),
            Measured("stream", case, "ours / by hand", ours / by_hand, TIMES, at_least=20),
            Measured("stream", case, "ours / by hand that waits for no commit", ours / not_waiting, TIMES),
        ]
        case = "one batch, each stage alone"
        found += [
            Measured("stream", case, stage, statistics.median(values), "µs/user") for stage, values in parts.items()
        ]
        ratio = statistics.median(ratios)
        found.append(Measured("stream", case, "ours / (1 / sum of the stages)", ratio, TIMES, at_least=1))
        if not quick:
            found += _of_more_lines(stall)
    return found
