"""Make what a release leaves on disk and in Redis, small, for `tests/integration/test_released.py` to read later.

    python tests/released/make.py NAME        in the checkout of the release, with its packages installed

It writes ``tests/released/NAME``, beside this file:

    data/            the data_dir: archive, models, rounds, catalogue, tuned parameters
    dump.rdb         Redis
    expected.json    what must be found there: counted here from the purchases, by none of the release's code

The release's code is only run by its commands, so that this file works on any commit. Kafka is the one in
RECSYS_TEST_KAFKA, which must have no topic ``purchases``; without the variable it is librdkafka's embedded broker,
which has no topic ids. Redis is the redis-server on PATH: take an old one, for newer ones read its dumps. (That of
before-rooms was Redis 6.2.14.)
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import redis
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

WORK = Path("/tmp/recsys-released")  # noqa: S108 - the pointer in Redis holds a path: one that is on no machine
TOPICS = ("purchases", "purchases.dlq")
PREFIX = GROUP = "recsys"
START = datetime(2025, 1, 1, tzinfo=UTC)
USERS, DAYS = 54, 50
TASTES, ITEMS_PER_TASTE = 3, 16
RETURNED, FORGOTTEN, FORGOTTEN_AND_BACK = "user-01", "user-02", "user-03"
ODD_USER, ODD_ITEM = "zoë {4}", "tea: 1/2 {kg}"
HIDDEN, SOLD_OUT = "item-10", "item-11"
SETTINGS = {
    "RECSYS_MODEL__FACTORS": "4",
    "RECSYS_MODEL__REGULARIZATION": "1",
    "RECSYS_RANKING__N": "8",
    "RECSYS_RANKING__SIMILAR_N": "3",
    "RECSYS_TRAINER__KEEP_VERSIONS": "2",
}
"""For small files; and for the little that is known, a weak regularization."""
DAY_S = 24 * 3600
_PATIENCE_S = 120.0
_REJECTED = 3


@dataclass(frozen=True)
class Row:
    """A line of a file of purchases."""

    user_id: str
    item_id: str
    quantity: int
    timestamp: int
    price: str = ""
    event_id: str = ""
    type: str = "purchase"


def user_name(number: int) -> str:
    return ODD_USER if number == 4 else f"user-{number:02d}"


def item_name(number: int) -> str:
    return ODD_ITEM if number == 0 else f"item-{number:02d}"


def title(item: str) -> str:
    return f"Title of {item}"


def purchases() -> list[Row]:
    """Return purchases in order of time: habits, and every four days something new, mostly of the user's taste."""
    rng = np.random.default_rng(3)
    rows = []
    for user in range(USERS):
        everything = rng.permutation(TASTES * ITEMS_PER_TASTE)
        own = everything // ITEMS_PER_TASTE == user % TASTES
        liked, others = list(everything[own]), list(everything[~own])
        bought = []
        for favourite in liked[:2]:
            interval = int(rng.integers(6, 16))
            bought += [(favourite, day) for day in range(int(rng.integers(interval)), DAYS, interval)]
        for day in range(int(rng.integers(4)), DAYS, 4):
            bought.append(((liked if rng.random() < 0.8 else others).pop(), day))
        for item, day in bought:
            moment = int(START.timestamp()) + day * DAY_S + int(rng.integers(DAY_S))
            price = "" if user % 2 else f"{1 + int(item) / 10:.2f}"
            rows.append(Row(user_name(user), item_name(int(item)), int(rng.integers(1, 4)), 1000 * moment, price))
    return sorted(rows, key=lambda row: row.timestamp)


def parts() -> list[list[Row]]:
    """Return what is imported and what comes from Kafka before the second, the third and the last round."""
    ends_ms = [1000 * (int(START.timestamp()) + day * DAY_S) for day in (35, 39, 45, DAYS)]
    rows = purchases()
    found = [
        [row for row in rows if begin <= row.timestamp < end]
        for begin, end in zip([0, *ends_ms], ends_ms, strict=False)
    ]
    for number, part in enumerate(found[1:], 1):  # half of them with ids
        part[::2] = [replace(row, event_id=f"order-{number}-{place}") for place, row in enumerate(part[::2])]
    wish = next(place for place, row in enumerate(found[1]) if row.user_id == FORGOTTEN_AND_BACK) + 1
    found[1].insert(wish, Row(FORGOTTEN_AND_BACK, "", 1, found[1][wish - 1].timestamp, type="forget"))
    for row in [row for row in found[2] if row.event_id][:3]:  # sent twice
        found[2].append(row)
    own = next(row for row in found[2] if row.user_id == RETURNED)
    found[2].append(Row(RETURNED, own.item_id, own.quantity, ends_ms[2] - 1000, type="return"))
    gone = [row for row in found[3] if row.user_id != FORGOTTEN]
    found[3] = [*gone, Row(FORGOTTEN, "", 1, ends_ms[3] - 1000, type="forget")]
    return [sorted(part, key=lambda row: row.timestamp) for part in found]


def expected(rows: Iterable[Row]) -> dict[str, Any]:
    """Count what must be in the archive and in Redis when all of this has come in this order."""
    counted: dict[str, list[Row]] = {}
    for row in rows:
        own = counted.setdefault(row.user_id, [])
        if row.type == "forget":
            own.clear()
        elif not row.event_id or row.event_id not in {other.event_id for other in own}:
            own.append(row)
    histories: dict[str, dict[str, list[int]]] = {}
    for user in ("user-00", RETURNED, FORGOTTEN_AND_BACK, ODD_USER, FORGOTTEN):
        entries = histories[user] = {}
        for row in counted[user]:
            before, newest_s = entries.get(row.item_id, [0, 0])
            quantity = -row.quantity if row.type == "return" else row.quantity
            entries[row.item_id] = [before + quantity, max(newest_s, row.timestamp // 1000)]
    return {
        "events": sum(map(len, counted.values())),
        "users": sum(map(bool, counted.values())),
        "histories": {user: dict(sorted(entries.items())) for user, entries in histories.items()},
        "hidden": sorted((HIDDEN, SOLD_OUT)),
        "titles": {ODD_ITEM: title(ODD_ITEM)},
    }


def write_csv(path: Path, rows: Iterable[Row]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([field.name for field in fields(Row)])
        writer.writerows(map(astuple, rows))


def write_items(path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["item_id", "title", "category", "available"])
        for number in range(TASTES * ITEMS_PER_TASTE):
            item, category = item_name(number), f"Taste {number // ITEMS_PER_TASTE}"
            writer.writerow([item, title(item), category, str(item != SOLD_OUT).lower()])


class Release:
    """The release in the current folder, on servers of its own."""

    def __init__(self, kafka: str, redis_port: int) -> None:
        self._kafka = kafka
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("RECSYS_")},
            "PYTHONPATH": str(Path.cwd()),
            "RECSYS_KAFKA__BOOTSTRAP_SERVERS": kafka,
            "RECSYS_REDIS__URL": f"redis://127.0.0.1:{redis_port}/0",
            "RECSYS_DATA_DIR": str(WORK / "data"),
            **SETTINGS,
        }

    def run(self, *arguments: str, code: int = 0, **settings: str) -> str:
        """Run a command to its end and return what it prints."""
        print("running", *arguments, flush=True)
        command = [sys.executable, "-m", *arguments]
        done = subprocess.run(
            command, env={**self._environment, **settings}, stdout=subprocess.PIPE, text=True, check=False
        )
        if done.returncode != code:
            sys.exit(f"error: {' '.join(command)} ended with {done.returncode}, not {code}")
        return done.stdout

    def start_consumer(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-m", "consumer"], env=self._environment)

    def await_applied(self) -> None:
        """Wait until the consumer has committed all that was published."""
        reader = Consumer({"bootstrap.servers": self._kafka, "group.id": GROUP})
        partitions = reader.list_topics(TOPICS[0], timeout=10).topics[TOPICS[0]].partitions
        places = [TopicPartition(TOPICS[0], partition) for partition in partitions]
        ends = [reader.get_watermark_offsets(place, timeout=10)[1] for place in places]
        until = time.monotonic() + _PATIENCE_S
        while any(place.offset < end for place, end in zip(reader.committed(places), ends, strict=True) if end):
            if time.monotonic() > until:
                sys.exit("error: the consumer has not applied everything; its messages are above")
            time.sleep(0.2)
        reader.close()


def live_through(release: Release, client: Any) -> dict[str, Any]:
    """Import, publish, train four times, roll back once; return what must be found afterwards."""
    files = [WORK / f"part-{number}.csv" for number in range(4)]
    all_parts = parts()
    for path, rows in zip(files, all_parts, strict=True):
        write_csv(path, rows)
    write_items(WORK / "items.csv")
    client.sadd(f"{PREFIX}:hidden", HIDDEN)
    release.run("recsys", "import", str(files[0]))
    release.run("recsys", "items", "import", str(WORK / "items.csv"))
    release.run("trainer", "--once")
    consumer = release.start_consumer()
    try:
        release.run("recsys", "publish", str(files[1]))
        release.await_applied()
        release.run("trainer", "--once")
        release.run("recsys", "models", "rollback")
        release.run("recsys", "publish", str(files[2]))
        release.await_applied()
        release.run("recsys", "tune", "--trials", "2")
        release.run("trainer", "--once")
        release.run("recsys", "publish", str(files[3]))
        release.await_applied()
        # A model that knows nothing: the gate rejects it.
        nothing = {"RECSYS_MODEL__REGULARIZATION": "1e9", "RECSYS_TRAINER__RANKER": "als"}
        release.run("trainer", "--once", code=_REJECTED, **nothing)
        release.run("recsys", "verify", "--all")
    finally:
        consumer.terminate()
        consumer.wait()
    models = json.loads(release.run("recsys", "models", "--json"))["models"]
    return {
        "settings": SETTINGS,
        **expected(row for part in all_parts for row in part),
        "models": {model["version"]: model["role"] for model in models},
    }


def start_redis() -> tuple[subprocess.Popen[bytes], int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    server = shutil.which("redis-server")
    if server is None:
        sys.exit("error: redis-server is not on PATH: apt-get install redis-server")
    command = [server, "--bind", "127.0.0.1", "--port", str(port), "--dir", str(WORK)]
    return subprocess.Popen([*command, "--save", "", "--appendonly", "no"], stdout=subprocess.DEVNULL), port


def make(folder: Path) -> None:
    WORK.mkdir()
    server, port = start_redis()
    try:
        client: Any = redis.Redis(port=port)
        while True:
            try:
                client.ping()
                break
            except redis.ConnectionError:
                if server.poll() is not None:
                    sys.exit("error: redis-server did not start")
                time.sleep(0.1)
        kafka = os.environ.get("RECSYS_TEST_KAFKA", "")
        broker = None
        if kafka:
            topics = [NewTopic(topic, 2) for topic in TOPICS]
            admin = AdminClient({"bootstrap.servers": kafka})
            for created in admin.create_topics(topics).values():
                created.result()
        else:
            broker = Producer({"bootstrap.servers": "unused", "test.mock.num.brokers": 1, "log_level": 2})
            kafka = ",".join(f"{place.host}:{place.port}" for place in broker.list_topics().brokers.values())
            for topic in TOPICS:
                broker.list_topics(topic, timeout=10)  # asking for a topic creates it
        found = live_through(Release(kafka, port), client)
        for key in client.scan_iter():  # lists expire, and the dump must not
            client.persist(key)
        client.save()
        del broker
    finally:
        server.terminate()
        server.wait()
    folder.mkdir()
    shutil.copytree(WORK / "data", folder / "data")
    shutil.copy(WORK / "dump.rdb", folder)
    (folder / "expected.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", metavar="NAME", help="of the release")
    name = parser.parse_args().name
    folder = Path(__file__).parent / name
    for taken in (folder, WORK):
        if taken.exists():
            sys.exit(f"error: {taken} exists already; remove it first")
    try:
        make(folder)
    finally:
        shutil.rmtree(WORK, ignore_errors=True)


if __name__ == "__main__":
    main()
