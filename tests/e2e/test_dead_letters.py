"""`recsys dead-letters`: a flood of malformed records is understood, mended and redriven, and counts once."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest
from confluent_kafka import Consumer as KafkaConsumer
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource  # type: ignore[attr-defined]

from recsys.redis import Store, open_store
from recsys.settings import Settings
from tests.conftest import PARTITIONS
from tests.e2e.test_main_job import dead_letters
from tests.planted import event_json, item_name, owned_by
from tests.prepared import train_planted
from tests.services import Consumer, Shop, wait_until

pytestmark = pytest.mark.real_kafka
_MANY = {"RECSYS_CONSUMER__MAX_MALFORMED": "1000"}
_MEND = """
timezone = "UTC"
[fields]
user_id = "value.user_id || value.userId || key"
item_id = "value.item_id || value.sku"
quantity = "value.quantity"
timestamp = "value.timestamp"
"""
Record = tuple[str, bytes]


@pytest.fixture
def store(shop: Shop, settings: Settings) -> Any:
    """The shop's histories, beside its first model."""
    train_planted(shop)
    with open_store(settings) as opened:
        yield opened


def send(shop: Shop, records: Iterable[Record], **more: Any) -> None:
    producer = Producer({"bootstrap.servers": shop.kafka.address, "message.max.bytes": 10_000_000})
    for key, value in records:
        producer.produce(shop.topic, value, key, **more)
        producer.poll(0)
    assert producer.flush(120) == 0


def listed(shop: Shop, *options: str) -> dict[str, int]:
    said = json.loads(shop.recsys("dead-letters", "list", "--json", *options).stdout)
    return {one["reason"]: one["letters"] for one in said["reasons"]}


def await_letters(shop: Shop, count: int) -> None:
    wait_until(lambda: sum(listed(shop).values()) == count, f"{count} letters are there")


def await_all_read(consumer: Consumer, shop: Shop) -> None:
    reader = KafkaConsumer({"bootstrap.servers": shop.kafka.address, "group.id": "nobody"})
    places = [TopicPartition(shop.topic, partition) for partition in range(PARTITIONS)]
    end = sum(reader.get_watermark_offsets(place, timeout=30)[1] for place in places)
    reader.close()
    wait_until(lambda: consumer.metrics().get("records_total") == end, "all records are read")


def flood(each: int) -> tuple[list[Record], dict[str, dict[str, float]]]:
    """Return so many malformed records of each of five kinds, and what is owned once the first four are mended."""
    records: list[Record] = []
    owned: dict[str, dict[str, float]] = {}
    for number in range(each):
        user, item = f"late-{number % 200}", number // 200
        makes: list[tuple[str, dict[str, Any]]] = [
            (f"a-{item}", {"userId": user, "sku": f"a-{item}"}),
            (f"b-{item}", {"user_id": user, "item_id": f"b-{item}", "quantity": "2"}),
            (f"c-{item}", {"user_id": user, "item_id": f"c-{item}", "timestamp": "2026-11-01 10:00:00"}),
            (f"d-{item}", {"item_id": f"d-{item}"}),
        ]
        for name, fields in makes:
            records.append((user, json.dumps(fields).encode()))
            owned.setdefault(user, {})[name] = 2.0 if "quantity" in fields else 1.0
        records.append((user, f"{user};e-{item};1".encode()))
    return records, owned


@pytest.mark.slow
def test_a_flood_of_five_kinds_is_listed_mended_and_redriven_and_counts_once(shop: Shop, store: Store) -> None:
    each = 2_000
    records, owned = flood(each)
    consumer = shop.start_consumer(**_MANY)
    consumer.await_assigned(4)
    send(shop, records)
    await_letters(shop, 5 * each)
    kinds = {"other_form": each, "quantity": each, "timestamp": each, "user_id_missing": each, "not_json": each}
    assert listed(shop) == kinds
    table = shop.recsys("dead-letters", "list").stdout
    assert f"{5 * each:,} letters in {shop.topic}.dlq" in table

    as_it_is = shop.recsys("dead-letters", "redrive", "--dry-run", expect=1).stdout
    assert "0 letters would be redriven" in as_it_is
    assert f"letters that stay: {5 * each:,}." in as_it_is
    mend = shop.folder / "mend.toml"
    mend.write_text(_MEND)
    redrive = ("dead-letters", "redrive", "--mapping", str(mend))
    before = shop.recsys(*redrive, "--dry-run", expect=1).stdout
    assert f"{4 * each:,} letters would be redriven: {4 * each:,} events would be published to {shop.topic}" in before
    assert f"letters that stay: {each:,}." in before
    assert listed(shop) == kinds, "nothing was changed"

    shop.run("recsys", *redrive, expect=-9, RECSYS_TEST_FAIL_POINTS="redriven=kill@3")
    assert sum(listed(shop).values()) == 5 * each - 2_000, "what was noted is not done again"
    shop.recsys(*redrive, expect=1)
    assert listed(shop) == {"not_json": each}
    assert sum(listed(shop, "--all").values()) == 5 * each
    shop.recsys(*redrive, "--all", expect=1)  # all of it again
    mend.write_text(_MEND.replace('key"', "key || 'nobody'\""))
    otherwise = shop.recsys(*redrive, "--all", expect=1).stdout
    assert "0 letters redriven" in otherwise
    assert "it was redriven with another mapping" in " ".join(otherwise.replace("│", " ").split())
    await_all_read(consumer, shop)
    assert consumer.metrics().get("dead_letters_total") == 5 * each
    assert consumer.stop() == 0
    assert {user: owned_by(store, user) for user in owned} == owned
    shop.recsys("verify", "--all")
    shop.run("trainer", "--once")
    shop.recsys("verify", "--all")

    asked = shop.recsys("dead-letters", "purge", "--dry-run").stdout
    assert f"{each:,} letters of {shop.topic}.dlq would be purged" in asked
    assert f"Kafka would erase {5 * each:,}, and keep 0" in asked
    assert listed(shop) == {"not_json": each}
    shop.recsys("dead-letters", "purge", "--yes")
    assert listed(shop, "--all") == {}
    assert dead_letters(shop) == [], "Kafka has erased them"


def test_letters_are_chosen_shown_redriven_and_purged_one_by_one(shop: Shop, store: Store) -> None:
    consumer = shop.start_consumer(**_MANY)
    consumer.await_assigned(4)
    send(
        shop,
        [
            ("ann", b'{"user_id": "ann", "item_id": "sku", "quantity": -1}'),
            ("bob", b"\xff\x00"),
            ("cid", b'{"item_id": "sku"}'),
        ],
        headers=[("trace", b"7")],
    )
    await_letters(shop, 3)
    assert listed(shop) == {"quantity": 1, "not_json": 1, "user_id_missing": 1}
    assert listed(shop, "--reason", "quantity", "--reason", "not_json") == {"quantity": 1, "not_json": 1}
    assert listed(shop, "--since", "1h") == listed(shop, "--until", "2100-01-01") == listed(shop)
    assert listed(shop, "--until", "1h") == listed(shop, "--since", "2100-01-01") == {}
    partitions = {one.key(): dict(one.headers())["__recsys.errors.partition"].decode() for one in dead_letters(shop)}
    assert "quantity" in listed(shop, "--partition", partitions[b"ann"])

    (shown,) = json.loads(shop.recsys("dead-letters", "show", "--reason", "quantity", "--json").stdout)
    assert shown["key"] == "ann"
    assert shown["headers"] == [["trace", "7"]]
    assert "quantity" in shown["malformed_now"]
    text = shop.recsys("dead-letters", "show", shown["record"]).stdout
    assert '"quantity":-1' in text
    assert "for the same reason" in text
    assert "0xff00" in shop.recsys("dead-letters", "show", "--reason", "not_json").stdout

    mend = shop.folder / "mend.toml"
    mend.write_text(_MEND.replace('"value.quantity"', '"`3`"'))
    said = shop.recsys("dead-letters", "redrive", shown["record"], "--mapping", str(mend)).stdout
    assert "1 letter redriven: 1 event published" in said
    wait_until(lambda: owned_by(store, "ann") == {"sku": 3.0}, "it counts")
    assert "redriven" in shop.recsys("dead-letters", "show", shown["record"]).stdout
    assert "; not counted: 1 redriven" in shop.recsys("dead-letters", "list").stdout
    again = shop.recsys("dead-letters", "redrive", shown["record"], "--mapping", str(mend)).stdout
    assert "1 letter left out, redriven or purged before" in again
    shop.recsys("dead-letters", "purge", "--reason", "not_json", "--yes")
    assert listed(shop) == {"user_id_missing": 1}
    assert consumer.stop() == 0


def test_a_letter_that_was_cut_is_redriven_from_its_source_while_that_is_there(shop: Shop, store: Store) -> None:
    admin = AdminClient({"bootstrap.servers": shop.kafka.address})
    entry = ConfigEntry("max.message.bytes", "5000000", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ConfigResource.Type.TOPIC, shop.topic, incremental_configs=[entry])
    for changed in admin.incremental_alter_configs([resource]).values():
        changed.result()
    consumer = shop.start_consumer(**_MANY)
    consumer.await_assigned(4)
    large = json.dumps({"user_id": "ann", "item_id": "sku", "quantity": 2, "note": "x" * 2_000_000}).encode()
    send(shop, [("ann", large), ("bob", large.replace(b"ann", b"bob"))])
    wait_until(lambda: listed(shop) == {"too_large": 2}, "both letters are there")
    (shown, other) = json.loads(shop.recsys("dead-letters", "show", "--json").stdout)
    assert "the value from byte" in shown["left_out"]
    more: Any = {"RECSYS_EVENTS__MAX_RECORD_BYTES": "4000000"}
    first = shown["record"] if shown["key"] == "ann" else other["record"]
    second = other["record"] if shown["key"] == "ann" else shown["record"]
    shop.recsys("dead-letters", "redrive", first, **more)
    wait_until(lambda: owned_by(store, "ann") == {"sku": 2.0}, "it counts")
    partition, offset = map(int, second.split(":"))
    for future in admin.delete_records([TopicPartition(shop.topic, partition, offset + 1)]).values():
        future.result()
    gone = shop.recsys("dead-letters", "redrive", expect=1, **more).stdout
    assert "is no longer in the topic" in " ".join(gone.split())
    assert consumer.stop() == 0


def test_of_a_record_whose_good_lines_count_only_the_others_are_redriven(shop: Shop, store: Store) -> None:
    orders = shop.folder / "orders.toml"
    orders.write_text(
        'lines = "value.lines"\nlines_that_are_good = "count"\n[fields]\nuser_id = "value.user"\n'
        'item_id = "line.item"\nquantity = "line.quantity"\nevent_id = ["value.id", "number"]\n'
    )
    mapped: Any = {"RECSYS_EVENTS__MAPPING": str(orders)}
    consumer = shop.start_consumer(**_MANY, **mapped)
    consumer.await_assigned(4)
    lines = [{"item": "good", "quantity": 1}, {"item": "bad", "quantity": "two"}, {"item": "other", "quantity": 1}]
    send(shop, [("ann", json.dumps({"user": "ann", "id": "o1", "lines": lines}).encode())])
    await_letters(shop, 1)
    wait_until(lambda: owned_by(store, "ann") == {"good": 1.0, "other": 1.0}, "the good lines count")
    mend = shop.folder / "mend.toml"
    mend.write_text(orders.read_text().replace('"value.lines"', "\"value.lines[?item != 'good']\""))
    shifted = shop.recsys("dead-letters", "redrive", "--mapping", str(mend), expect=1, **mapped).stdout
    assert "must have the same lines and orders" in " ".join(shifted.replace("│", " ").split())
    mend.write_text(
        orders.read_text()
        .replace('"line.quantity"', '"`2`"')
        .replace('["value.id", "number"]', '["value.id", "line.item"]')
    )
    said = shop.recsys("dead-letters", "redrive", "--mapping", str(mend), **mapped).stdout
    assert "1 letter redriven: 1 event published" in said
    wait_until(lambda: owned_by(store, "ann") == {"good": 1.0, "bad": 2.0, "other": 1.0}, "the bad line counts")
    assert consumer.stop() == 0


def test_letters_of_others_and_of_other_topics_stay(shop: Shop, store: Store) -> None:
    del store
    producer = Producer({"bootstrap.servers": shop.kafka.address})
    event = event_json("ann", item_name(0, 0))
    producer.produce(f"{shop.topic}.dlq", event, "ann")
    about = {"topic": "another", "partition": "0", "offset": "5", "reason.code": "quantity"}
    producer.produce(
        f"{shop.topic}.dlq", event, "bob", headers=[(f"__recsys.errors.{name}", value) for name, value in about.items()]
    )
    assert producer.flush(60) == 0
    assert listed(shop) == {"unknown": 1, "quantity": 1}
    said = " ".join(shop.recsys("dead-letters", "redrive", expect=1).stdout.split())
    assert "0 letters redriven" in said
    assert "letters that stay: 2." in said
    text = shop.recsys("dead-letters", "show").stdout
    assert "does not say where its record was" in text
    assert "RECSYS_KAFKA__TOPIC=another" in text


def test_what_cannot_be_is_refused_in_one_line(shop: Shop) -> None:
    for arguments, words in (
        (("show", "--reason", "quantitty"), "'quantitty' is no code of this version; there are empty"),
        (("list", "--reason", "[red]"), "is no code; there are empty"),
        (("purge", "--until", "", "--yes"), "--until: '' is no time"),
        (("purge", "", "--yes"), "'' is no place of a record"),
        (("redrive", "--mapping", ""), "--mapping: name a preset or a file"),
        (("list", "--since", "yesterday"), "--since: 'yesterday' is no time"),
        (("list", "--since", "1h", "--until", "2h"), "--since must be earlier than --until"),
        (("redrive", "17"), "'17' is no place of a record; write partition:offset"),
        (("redrive", "--mapping", "nowhere.toml"), "error: nowhere.toml: is neither a file nor one of"),
        (("redrive",), "there is no such letter"),
        (("purge", "0:0"), "there is no such letter"),
    ):
        said = shop.recsys("dead-letters", *arguments, expect=None)
        assert said.returncode in (0, 1)
        assert words in " ".join(said.stderr.split())
        assert "Traceback" not in said.stderr
    assert "there is no such letter" in shop.recsys("dead-letters", "show", "0:0", expect=1).stderr
    assert "0 letters" in shop.recsys("dead-letters", "purge").stdout
    same = shop.recsys("dead-letters", "purge", expect=2, RECSYS_KAFKA__DEAD_LETTER_TOPIC=shop.topic).stderr
    assert "dead_letter_topic must not be the topic with the purchases" in same
    missing = shop.recsys("dead-letters", "list", expect=1, RECSYS_KAFKA__TOPIC="nowhere").stderr
    assert "set RECSYS_KAFKA__DEAD_LETTER_TOPIC" in missing
    assert "topic nowhere.dlq does not exist" in missing
    assert not list(shop.folder.glob("data/dead-letters/*.parquet")), "who only looks writes nothing"
