"""The oracle: what producers got acknowledged, against what Redis, the archive and the dead letters say."""

from __future__ import annotations

import json
import random
import re
import threading
import time
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import redis
from confluent_kafka import Consumer as KafkaConsumer
from confluent_kafka import KafkaError, Message, Producer, TopicPartition

from recsys.errors import RecsysError
from recsys.redis import Store
from recsys.settings import Settings
from recsys.storage.archive import Archive
from recsys.storage.files import Storage
from tests.planted import ITEMS_PER_TASTE, TASTES, event_json, item_name
from tests.services import Shop, wait_until

_CATALOGUE = [item_name(taste, number) for taste in range(TASTES) for number in range(ITEMS_PER_TASTE)]
_PAUSE_S = 0.02
_LISTS_WITHIN_S = 60.0
_EPOCH_MS = 1_700_000_000_000
Pair = tuple[str, str]
ORDERING = "orders"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sold:
    """What one record says was bought."""

    user_id: str
    number: int

    @property
    def has_id(self) -> bool:
        """Whether it can be recognized wherever it comes again: every second one has a time, and ids."""
        return self.number % 2 == 1

    @property
    @abstractmethod
    def record(self) -> tuple[str, bytes]:
        """Key and value."""

    @property
    @abstractmethod
    def pairs(self) -> tuple[Pair, ...]:
        """Who buys what."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sale(Sold):
    """One purchase, as the contract writes it."""

    item_id: str

    @property
    def record(self) -> tuple[str, bytes]:
        """Key and value."""
        fields = {"event_id": f"sale-{self.number}", "timestamp": _EPOCH_MS + self.number} if self.has_id else {}
        return self.user_id, event_json(self.user_id, self.item_id, **fields)

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """Who buys what."""
        return ((self.user_id, self.item_id),)


ORDERS = """
lines = "value.lines"
[fields]
user_id = "value.customer"
item_id = "line.sku"
timestamp = "value.at"
event_id = ["value.id", "line.id"]
"""
"""The mapping that reads orders."""
CODE = "code-"
"""Begins what another mapping may take for the items of orders."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order(Sold):
    """Purchases of one user in one record, as `ORDERS` maps it; the ids are those of its lines."""

    item_ids: tuple[str, ...]

    @property
    def record(self) -> tuple[str, bytes]:
        """Key and value."""
        lines = [{"sku": item, "code": CODE + item, "id": number} for number, item in enumerate(self.item_ids)]
        fields = {"id": f"order-{self.number}", "at": _EPOCH_MS + self.number} if self.has_id else {}
        return self.user_id, json.dumps({"customer": self.user_id, "lines": lines, **fields}).encode()

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """Who buys what."""
        return tuple((self.user_id, item) for item in self.item_ids)


@dataclass(frozen=True, slots=True)
class Tally:
    """What became of the events: all but the first must be zero."""

    events: int
    lost: int
    doubled: int
    wrong_lists: int


class Ledger:
    """Makes seeded purchases, notes which were acknowledged, and checks that each had its effect exactly once.

    Every second event carries an event_id; the others can be recognized by their position alone. Users who have
    bought a basket make room for others, so no user buys an item twice, and (user, item) tells every event apart, in
    a history as well. With ``recurring`` the same users buy the same things for ever: counts tell then.
    """

    def __init__(
        self, shop: Shop, settings: Settings, store: Store, *, seed: int, users: int = 40, recurring: bool = False
    ) -> None:
        self.shop = shop
        self.store = store
        self._settings = settings
        self._random = random.Random(seed)
        self._seed = seed
        self._recurring = recurring
        self._baskets: dict[str, list[str]] = {}
        """What each user is still to buy, by user."""
        self._buying: list[str] = []
        self.add_users([f"buyer-{seed}-{number}" for number in range(users)])
        self._made = 0
        self._lock = threading.Lock()
        self.encode: Callable[[bytes], bytes] = bytes
        self.sold_as: Callable[[str], str] = str
        """Returns as what an item was sold that a mapping has found."""
        """Turns what would be JSON into the value of a record, in the format of the shop."""
        self._acknowledged: Counter[Sold] = Counter()
        self._malformed: Counter[bytes | None] = Counter()
        self.malformed_at: dict[int, int] = {}
        """Offset of the first malformed record by partition."""
        self.renew_producer()

    def renew_producer(self) -> None:
        """Open a new producer, as one that is restarted: it knows the topic as it is now."""
        self._producer = Producer(
            {
                "bootstrap.servers": self.shop.kafka.address,
                "enable.idempotence": True,
                "linger.ms": 1,
                "message.max.bytes": 10_000_000,  # the topic sets the limit
                "message.timeout.ms": 0,  # what was asked for is delivered in the end
                "log_level": 2,
            }
        )

    @property
    def users(self) -> list[str]:
        """The buyers."""
        return list(self._baskets)

    @property
    def acknowledged(self) -> int:
        """Number of records that the broker has acknowledged, malformed ones left out."""
        with self._lock:
            return self._acknowledged.total()

    def add_users(self, users: Sequence[str]) -> None:
        """Let these buy as well from now on."""
        self._baskets.update({user: self._basket() for user in users})
        self._buying += users

    def sales(self, count: int) -> list[Sale]:
        """Make new purchases of users at random."""
        return [self._sale(self._random.choice(self._buying)) for _ in range(count)]

    def one_of_each(self) -> list[Sale]:
        """Make one new purchase of every user who still buys."""
        return [self._sale(user) for user in list(self._buying)]

    def orders(self, count: int, *, most_lines: int) -> list[Order]:
        """Make orders of one to so many lines, of as many new users: nobody else buys these items."""
        users = [f"{ORDERING}-{self._seed}-{self._made + number}" for number in range(count)]
        self._baskets.update({user: [] for user in users})
        made = []
        for user in users:
            self._made += 1
            items = self._random.sample(_CATALOGUE, min(len(_CATALOGUE) // 2, most_lines))
            items += [f"unknown-{number}" for number in range(most_lines - len(items))]
            bought = tuple(items[: self._random.randint(1, most_lines)])
            made.append(Order(user_id=user, item_ids=bought, number=self._made))
        return made

    def disordered(self, sales: Sequence[Sold], *, share: float, farthest: int) -> list[Sold]:
        """Return sales as careless producers send them: a share once more, and a share too late.

        Copies, of sales with an event_id, and latecomers move at most ``farthest`` places towards the end.
        """
        places: list[tuple[float, Sold]] = []
        for place, sale in enumerate(sales):
            is_late = self._random.random() < share
            places.append((place + is_late * self._random.uniform(0, farthest), sale))
            if sale.has_id and self._random.random() < 2 * share:
                places.append((place + self._random.uniform(0, farthest), sale))
        return [sale for _, sale in sorted(places, key=lambda entry: entry[0])]

    def send(self, sales: Sequence[Sold]) -> None:
        """Hand purchases to the producer without waiting."""
        for sale in sales:
            key, json_ = sale.record
            value = self.encode(json_)

            def acknowledged(error: KafkaError | None, _: Message, sale: Sold = sale) -> None:
                if error is None:
                    with self._lock:
                        self._acknowledged[sale] += 1

            self._producer.produce(self.shop.topic, value, key.encode(), on_delivery=acknowledged)
            self._producer.poll(0)

    def send_malformed(self, values: Sequence[bytes | None], *, key: bytes | None = None) -> None:
        """Hand records to the producer that break the contract, each with its value for a key unless one is given."""

        def acknowledged(error: KafkaError | None, message: Message) -> None:
            if error is None:
                partition, offset = message.partition() or 0, message.offset() or 0
                self.malformed_at[partition] = min(offset, self.malformed_at.get(partition, offset))

        for value in values:
            self._malformed[value] += 1
            self._producer.produce(self.shop.topic, value, key=key or value or b"malformed", on_delivery=acknowledged)
            self._producer.poll(0)

    def flush(self, patience_s: float = 240.0) -> None:
        """Wait until everything is acknowledged."""
        assert self._producer.flush(patience_s) == 0, "the broker did not acknowledge everything"

    def publish(self, count: int) -> None:
        """Publish new purchases and wait until they are acknowledged."""
        self.send(self.sales(count))
        self.flush()

    @contextmanager
    def load(self, per_second: float, make: Callable[[int], Sequence[Sold]] | None = None) -> Iterator[None]:
        """Publish new purchases in the background, at a steady rate, until the block ends."""
        stop = threading.Event()
        made = make or self.sales

        def produce() -> None:
            due = 0.0
            while not stop.wait(_PAUSE_S):
                due += per_second * _PAUSE_S
                self.send(made(int(due)))
                due -= int(due)

        thread = threading.Thread(target=produce, name="load", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
        self.flush()

    def counted(self) -> Counter[Pair]:
        """Return how often Redis counts each purchase, read straight from the hashes of the contract."""
        users = list(self._baskets)
        pipeline: Any = self.store.connection.client.pipeline(transaction=False)
        for user in users:
            pipeline.hgetall(self.store.users._keys.history(user))
        counts: Counter[Pair] = Counter()
        for user, history in zip(users, pipeline.execute(), strict=True):
            for item, value in history.items():
                counts[user, self.sold_as(item.decode())] += int(value.split(b"|")[0])
        return counts

    def await_counted(self, patience_s: float = 240.0) -> float:
        """Wait until Redis counts everything that has been acknowledged by now; return how long that took."""
        started = time.monotonic()
        with self._lock:
            wanted = _pairs(self._acknowledged)

        def are_counted() -> bool:
            try:
                return wanted <= self.counted()
            except redis.ConnectionError:  # the server that has taken over is not known yet
                return False

        wait_until(are_counted, "every acknowledged purchase is in a history", patience_s)
        return time.monotonic() - started

    def await_made_again(self) -> None:
        """Wait until the trainer has made all users again who are known to be damaged."""
        wait_until(lambda: not self.store.aside.count(), "everyone is made again who is known to be damaged")

    def await_listed(self) -> None:
        """Wait until everyone's list is that of the newest history."""
        pointer = self.store.pointer.read()
        assert pointer is not None

        def everyone() -> bool:
            states = self.store.users.read(list(self._baskets)).values()
            return all(state.listed_sequence == pointer.sequence for state in states if state.revision)

        wait_until(everyone, "every list is that of the newest history")

    def _await_lists_of_histories(self) -> None:
        """Give the consumers time to write the lists of what they have applied; `verify` tells which are wrong then."""
        users = list(self._baskets)

        def none_is_older() -> bool:
            states, lists = self.store.users.read(users), self.store.users.lists(users)
            return all(
                one is None or one["revision"] >= states[user].revision for user, one in zip(users, lists, strict=True)
            )

        with suppress(AssertionError, redis.RedisError, RecsysError):
            wait_until(none_is_older, "no list is older than the history", _LISTS_WITHIN_S)

    def check(self, patience_s: float = 240.0) -> Tally:
        """Wait until all is counted, check everything, and return the tally; fails unless it is clean."""
        self.flush()
        try:
            self.await_counted(patience_s)
        except AssertionError:
            pass  # what is missing is lost: the tally says how much
        self._await_lists_of_histories()
        histories = self._compare(self.counted(), _pairs(self._acknowledged))
        verified = self.shop.recsys("verify", "--all", expect=None).stdout
        differences = re.search(r"([\d,]+) differences", verified)
        wrong_lists = int(differences[1].replace(",", "")) if differences else -1
        self.shop.run("trainer", "--once")
        archive = self._compare(self.archived(), _pairs(self._acknowledged.elements()))
        tally = Tally(len(self._acknowledged), histories[0] + archive[0], histories[1] + archive[1], wrong_lists)
        assert (tally.lost, tally.doubled, tally.wrong_lists) == (0, 0, 0), (
            f"{tally}; lost and doubled in histories {histories}, in the archive {archive}\n{verified}"
        )
        # Sent at least once: letters of the same origin are copies.
        letters = {_origin(message): self._whole(message) for message in self.dead_letters()}
        assert Counter(letters.values()) == self._malformed, "the dead letters are the malformed records"
        return tally

    @staticmethod
    def _compare(found: Counter[Pair], expected: Counter[Pair]) -> tuple[int, int]:
        return (expected - found).total(), (found - expected).total()

    def archived(self) -> Counter[Pair]:
        """Return how often the archive holds each purchase of the buyers."""
        archive = Archive(Storage(self._settings.data_dir))
        counts: Counter[Pair] = Counter()
        for segment in archive.segments():  # file by file: nothing is hidden by what reading them together leaves out
            table = archive.read(segment, ["user_id", "item_id"])
            pairs = zip(table["user_id"].to_pylist(), table["item_id"].to_pylist(), strict=True)
            counts.update((user, self.sold_as(item)) for user, item in pairs if user in self._baskets)
        return counts

    def dead_letters(self) -> list[Message]:
        """Return what is in the dead-letter topic."""
        return read_topic(self.shop, f"{self.shop.topic}.dlq")

    def _whole(self, letter: Message) -> bytes | None:
        """Return the value of the record that a dead letter is of: a cut one holds its head, length and SHA-256."""
        headers, head = dict(letter.headers() or []), letter.value()
        digest = headers.get("__recsys.errors.value.sha256")
        if digest is None or head is None:
            return head
        (value,) = (value for value in self._malformed if value and sha256(value).hexdigest().encode() == digest)
        assert value.startswith(head)
        assert headers["__recsys.errors.value.size"] == str(len(value)).encode()
        return value

    def _sale(self, user: str) -> Sale:
        self._made += 1
        basket = self._baskets[user]
        item = basket.pop(0)
        if self._recurring:
            basket.append(item)
        elif not basket:
            self._buying.remove(user)
            self.add_users([f"buyer-{self._seed}-{len(self._baskets)}"])
        return Sale(user_id=user, item_id=item, number=self._made)

    def _basket(self) -> list[str]:
        """Return half the catalogue, so that a list is left, and some items that no model knows."""
        basket = self._random.sample(_CATALOGUE, len(_CATALOGUE) // 2) + [f"unknown-{number}" for number in range(3)]
        self._random.shuffle(basket)
        return basket


def _pairs(sales: Iterable[Sold]) -> Counter[Pair]:
    return Counter(pair for sale in sales for pair in sale.pairs)


def _origin(letter: Message) -> tuple[bytes | str | None, ...]:
    """Return which record a dead letter is a copy of."""
    headers = dict(letter.headers() or [])
    return tuple(headers[f"__recsys.errors.{name}"] for name in ("topic", "partition", "offset", "timestamp"))


def read_topic(shop: Shop, topic: str) -> list[Message]:
    """Read a topic from its beginning to its end."""
    consumer = KafkaConsumer(
        {"bootstrap.servers": shop.kafka.address, "group.id": "reader", "enable.auto.commit": False, "log_level": 2}
    )
    try:
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        ends = {p: consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=10) for p in partitions}
        total = sum(high - low for low, high in ends.values())
        consumer.assign([TopicPartition(topic, p, low) for p, (low, _) in ends.items()])
        found: list[Message] = []
        while len(found) < total:
            found += consumer.consume(100, 0.2)
        return found
    finally:
        consumer.close()
