"""Every block of docs/connect.md, run as it is written, in order, on a real Kafka.

A JSON block is a record that is in the topic which the next block names; a console block is a service, which runs until
that of the next section begins.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from recsys.kafka.decoder import counting_events, make_decoder
from recsys.redis import open_store
from recsys.settings import EventsSettings, Settings
from tests.builders import NOON_MS
from tests.e2e.test_readme import Block, blocks_of
from tests.planted import list_of, owned_by
from tests.services import PROJECT, Consumer, KafkaServer, Shop, wait_until
from tests.unit.test_presets import record

DOCUMENT = PROJECT / "docs" / "connect.md"
ITEMS_OF_RECORDS = (
    "tea-green", "mug-blue", "kettle-1l", "808950810", "93", "23", "SKU_12345", "507f1f77bcf86cd799439011",
    "505bd76785ebb509fc183733",
)  # fmt: skip
BOUGHT = {
    "c-17": {"tea-green": 2, "mug-blue": 1},
    "207119551": {"808950810": 1},
    "207119552": {"808950810": 2},
    "26": {"93": 2, "23": 1},
    "visitor-7": {"SKU_12345": 3},
    "AiUGstSDIg": {"507f1f77bcf86cd799439011": 1, "505bd76785ebb509fc183733": 2},
    "1004": {"kettle-1l": 1},
    "1005": {"kettle-1l": 2},
    "anna": {"tea-green": 1},
    "ben": {"mug-blue": 2},
}
"""User → what the history is to be, in the order of the document."""


class Reader:
    """Somebody who follows the document in one terminal, and starts services in another one."""

    def __init__(self, shop: Shop, admin: AdminClient) -> None:
        self._shop = shop
        self._admin = admin
        self._service: Consumer | None = None
        self._in_topic: list[str] = []
        self.topics: list[str] = []
        self.outputs: list[str] = []

    def follow(self, block: Block) -> None:
        """Do what a block says."""
        if block.language == "json":
            self._in_topic.append(block.code)
        elif block.language == "console":
            assert block.code == "python -m consumer\n"
            self._service = self._shop.start_consumer()
        else:
            assert block.language == "bash", block
            if topic := topic_named_in(block.code):
                self._stop()
                self._fill(topic)
            if "recsys show" in block.code:
                self._await_applied(block.code.split()[2])
            self.outputs.append(self._run(block.code))

    def end(self) -> None:
        """Stop the last service, and remove the topics."""
        self._stop()
        if self.topics:
            for removed in self._admin.delete_topics(self.topics).values():
                removed.result()

    def _run(self, code: str) -> str:
        """Run a block in bash; what it exports is there for all blocks after it."""
        exported = self._shop.folder / "exported"
        command = ["bash", "-euo", "pipefail", "-c", f"{code}\nenv -0 > '{exported}'"]
        environment = {**self._shop.environment, "PATH": path_with_commands(self._shop)}
        done = subprocess.run(command, cwd=self._shop.folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
        found = dict(line.split("=", 1) for line in exported.read_text().split("\0") if "=" in line)
        for name in [name for name in self._shop.environment if name.startswith("RECSYS_")]:
            del self._shop.environment[name]
        self._shop.environment.update({name: text for name, text in found.items() if name.startswith("RECSYS_")})
        return done.stdout

    def _fill(self, topic: str) -> None:
        """Make the topic that a block names, with the records that the document shows of it."""
        names = [topic, f"{topic}.dlq"]
        for made in self._admin.create_topics([NewTopic(name, num_partitions=1) for name in names]).values():
            made.result()
        self.topics += names
        producer = Producer({"bootstrap.servers": self._shop.kafka.address})
        for text in self._in_topic:
            producer.produce(topic, text.encode())
        assert producer.flush(60) == 0
        self._in_topic.clear()

    def _await_applied(self, user: str) -> None:
        with open_store(self._shop.settings()) as store:
            wait_until(lambda: owned_by(store, user) == BOUGHT[user], f"the purchases of {user} are applied")
            wait_until(lambda: list_of(store, user), f"{user} has a list")

    def _stop(self) -> None:
        if self._service is not None:
            assert self._service.stop() == 0
            self._service = None


def topic_named_in(code: str) -> str:
    """Return the topic that a block exports, if it does."""
    named = [line.partition("=")[2] for line in code.splitlines() if line.startswith("export RECSYS_KAFKA__TOPIC=")]
    return named[0] if named else ""


def path_with_commands(shop: Shop) -> str:
    return f"{Path(sys.executable).parent}:{shop.environment['PATH']}"


def write_history(path: Path) -> None:
    """Write purchases of the items that the document's records name, and of others, by people of three tastes."""
    items = [*ITEMS_OF_RECORDS, *(f"other-{number}" for number in range(21))]
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["user_id", "item_id", "timestamp"])
        for user in range(60):
            for number in range(5):
                item = items[(user % 3 + 3 * (user // 3 + number * number)) % len(items)]
                rows.writerow([f"before-{user}", item, f"2025-09-{1 + (user + number) % 28:02d}T08:00:00Z"])


@contextmanager
def reader_of(shop: Shop, kafka: KafkaServer) -> Iterator[Reader]:
    reader = Reader(shop, AdminClient({"bootstrap.servers": kafka.address}))
    try:
        yield reader
    finally:
        reader.end()


@pytest.mark.slow
@pytest.mark.real_kafka
@pytest.mark.timeout(900)
def test_the_document_leads_from_each_topic_to_a_list(shop: Shop, kafka: KafkaServer) -> None:
    write_history(shop.folder / "history.csv")
    shop.recsys("import", "history.csv")
    with reader_of(shop, kafka) as reader:
        for block in blocks_of(DOCUMENT):
            reader.follow(block)
    shown = [output for output in reader.outputs if output.startswith("History of")]
    assert [output.split()[2] for output in shown] == list(BOUGHT)
    for user, output in zip(BOUGHT, shown, strict=True):
        history, _, recommended = output.partition(f"Recommended to {user}")
        assert all(f"│ {item} " in history for item in BOUGHT[user]), output
        assert "│ 5 │" in recommended, output
    previews = [output for output in reader.outputs if "the newest of" in output]
    assert len(previews) == len(BOUGHT)
    assert all("0 hold none that counts, 0 malformed" in output for output in previews)


def test_records_of_the_document_are_read_by_the_presets_that_it_names() -> None:
    """As the document says, without a server; what the sections with mappings of their own show is run above."""
    samples: list[Any] = []
    tried = set[str]()
    for block in blocks_of(DOCUMENT):
        if block.language == "json":
            samples.append(json.loads(block.code))
        elif topic_named_in(block.code):
            mapping = block.code.partition("RECSYS_EVENTS__MAPPING=")[2].split()[:1]
            if mapping and not mapping[0].startswith("$PWD"):
                tried.add(mapping[0])
                decoder = make_decoder(Settings(events=EventsSettings(mapping=mapping[0])))
                events = [event for sample in samples for event in counting_events(decoder, record(sample))]
                assert all(event.timestamp < NOON_MS for event in events), mapping
                assert {event.item_id for event in events} <= set(ITEMS_OF_RECORDS), mapping
                assert all(event.event_id for event in events)
            samples.clear()
    assert len(tried) == 7
