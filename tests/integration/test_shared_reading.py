"""How records are read, and from which one on, as services note it in Redis."""

from __future__ import annotations

import io
import json
import logging
from typing import Any

import pytest
from confluent_kafka import TIMESTAMP_CREATE_TIME, Message
from fastavro import schemaless_writer

from recsys.errors import DamagedKey, DecoderUnavailable
from recsys.kafka.shared_reading import SharedReading
from recsys.kafka.topics import Topic
from recsys.redis import Store
from recsys.settings import Settings
from tests.builders import NOON_MS
from tests.registries import AnsweringServer
from tests.schemas import published

TOPIC = Topic(name="purchases", id="8Jq4absFQfaeoSIaQnR8vw", partitions=(0, 1))


def record(offset: int, partition: int = 0) -> Message:
    """One record that each reading understands, as a purchase of another item."""
    value = json.dumps({"user_id": "u", "item_id": "plain", "a": "of a", "b": "of b"}).encode()
    return Message(
        topic="purchases", partition=partition, offset=offset, value=value, timestamp=(TIMESTAMP_CREATE_TIME, NOON_MS)
    )


@pytest.fixture
def readings(store: Store, store_settings: Settings, tmp_path: Any) -> dict[str, Any]:
    """By name a function that makes a service whose mapping takes the item from this field."""

    def service(field: str) -> SharedReading:
        settings = store_settings
        if field != "plain":
            path = tmp_path / f"{field}.toml"
            path.write_text(f'[fields]\nuser_id = "value.user_id"\nitem_id = "value.{field}"\n')
            events = settings.events.model_copy(update={"mapping": str(path)})
            settings = settings.model_copy(update={"events": events})
        return SharedReading(settings, store.readings, store.applied_offsets.read)

    return {field: (lambda field=field: service(field)) for field in ("plain", "a", "b")}


def items(reading: SharedReading, *offsets: int, partition: int = 0) -> list[str | None]:
    return [event.item_id for at in offsets for event in reading.decoder.events(record(at, partition))]


def test_a_changed_mapping_counts_from_the_next_record_on(readings: dict[str, Any]) -> None:
    consumer = readings["a"]()
    consumer.begin(TOPIC, {0: 0, 1: 0})
    assert items(consumer, 0, 9) == ["of a"] * 2
    later = readings["b"]()
    later.begin(TOPIC, {0: 10})
    assert items(later, 9, 10, 11) == ["of a", "of b", "of b"]
    assert items(later, 9, 10, partition=1) == ["of a", "of a"], "another consumer has this partition"
    again = readings["b"]()
    again.begin(TOPIC, {0: 12, 1: 3})
    assert items(again, 9, 10, 12) == ["of a", "of b", "of b"]
    assert items(again, 2, 3, partition=1) == ["of a", "of b"]


def test_what_is_archived_already_keeps_its_reading(readings: dict[str, Any]) -> None:
    readings["a"]().begin(TOPIC, {0: 0})
    trainer = readings["b"]()  # restarted with the new settings before the consumers are
    trainer.claim(TOPIC, {0: 50})
    assert items(trainer, 10, 49, 70) == ["of a"] * 3, "it archives what consumers apply"
    consumer = readings["b"]()
    consumer.begin(TOPIC, {0: 20})
    assert items(consumer, 20, 49, 50) == ["of a", "of a", "of b"]
    trainer.claim(TOPIC, {0: 90})
    assert items(trainer, 49, 50) == ["of a", "of b"]
    assert (
        trainer.decoder.fingerprint(0, 49) != trainer.decoder.fingerprint(0, 50) == consumer.decoder.fingerprint(0, 99)
    )


def test_where_nothing_is_noted_the_archive_is_first(readings: dict[str, Any]) -> None:
    trainer = readings["a"]()
    trainer.claim(TOPIC, {0: 30})
    assert items(trainer, 0, 29) == ["of a"] * 2
    consumer = readings["a"]()
    consumer.begin(TOPIC, {0: 0})
    assert items(consumer, 0, 29, 30) == ["of a"] * 3


def test_what_was_applied_before_readings_were_noted_was_in_the_contracts_form(
    readings: dict[str, Any], store: Store
) -> None:
    store.applied_offsets.follow({TOPIC.source(0): (7, None)})
    trainer = readings["a"]()
    trainer.claim(TOPIC, {0: 30})
    assert items(trainer, 6, 7) == ["plain", "of a"]
    consumer = readings["a"]()
    consumer.begin(TOPIC, {1: 5})
    assert items(consumer, 4, 5, partition=1) == ["plain", "of a"]


def test_a_mapping_that_comes_back_and_one_without_a_record_leave_no_trace(
    readings: dict[str, Any], store: Store
) -> None:
    for field, at in (("a", 0), ("b", 5), ("a", 5), ("plain", 5), ("b", 8), ("a", 8), ("plain", 8)):
        readings[field]().begin(TOPIC, {0: at})
    begins = store.readings.history().begins[TOPIC.source(0)]
    own = readings["plain"]().decoder.reading.fingerprint
    assert [at for at, _ in begins] == [0, 5]
    assert begins[-1][1] == own


def test_begins_ascend_though_a_mark_goes_back(readings: dict[str, Any], store: Store) -> None:
    """As another master may have it, or as marks that are deleted have it."""
    readings["a"]().begin(TOPIC, {0: 1000})
    consumer = readings["b"]()
    consumer.begin(TOPIC, {0: 900})
    begins = store.readings.history().begins[TOPIC.source(0)]
    assert [at for at, _ in begins] == [0, 1000]
    archiver = readings["b"]()
    archiver.follow(TOPIC)
    assert items(consumer, 950, 1000) == items(archiver, 950, 1000) == ["plain", "of b"]


def test_a_reading_of_a_newer_version_is_waited_for_and_named(store: Store, readings: dict[str, Any]) -> None:
    readings["a"]().begin(TOPIC, {0: 0})
    name = readings["a"]().decoder.reading.fingerprint
    key, client = store.readings._keys.readings, store.connection.client
    client.hset(key, f"as {name}", '{"mapping": {"new_key": 1}, "unit": null}')
    later = readings["b"]()
    later.begin(TOPIC, {0: 10})
    with pytest.raises(DecoderUnavailable, match=f"reading {name}.*newer version"):
        items(later, 5)
    assert items(later, 10) == ["of b"]


def test_a_reading_that_is_lost_is_said(
    store: Store, readings: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    readings["a"]().begin(TOPIC, {0: 0})
    store.connection.client.hdel(store.readings._keys.readings, f"as {readings['a']().decoder.reading.fingerprint}")
    later = readings["b"]()
    later.begin(TOPIC, {0: 10})
    assert items(later, 5, 6) == ["of b", "of b"]
    assert caplog.text.count("has lost how earlier records were read") == 1


def test_services_that_disagree_say_so(readings: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    readings["a"]().begin(TOPIC, {0: 0, 1: 0})
    assert "in another way" not in caplog.text
    trainer = readings["b"]()
    for _ in range(3):
        trainer.claim(TOPIC, {0: 10})
    assert caplog.text.count("in another way") == 1
    caplog.set_level(logging.INFO)
    readings["b"]().begin(TOPIC, {0: 10, 1: 10})
    assert "from the next ones on" in caplog.text
    caplog.clear()
    trainer.follow(TOPIC)
    assert "in another way" not in caplog.text


@pytest.mark.parametrize("value", ["", "5", "x 1", "5 a 6", "1234567890123456 a", "5  a"])
def test_damage_is_named(store: Store, readings: dict[str, Any], value: str) -> None:
    readings["a"]().begin(TOPIC, {0: 0})
    store.connection.client.hset(store.readings._keys.readings, f"from {TOPIC.source(0)}", value)
    with pytest.raises(DamagedKey, match=r"readings is damaged: .*delete it: records that are not archived yet"):
        store.readings.history()


def test_a_changed_format_counts_from_the_next_record_on(store: Store, store_settings: Settings) -> None:
    schema = published("purchase.avsc")
    written = io.BytesIO()
    schemaless_writer(written, schema, {"user_id": "u", "item_id": "of avro"})
    avro = b"\x00\x00\x00\x00\x07" + written.getvalue()

    def at(offset: int, value: bytes) -> Message:
        timestamp = (TIMESTAMP_CREATE_TIME, NOON_MS)
        return Message(topic="purchases", partition=0, offset=offset, value=value, timestamp=timestamp)

    def service(**events: str) -> SharedReading:
        changed = store_settings.events.model_copy(update=events)
        return SharedReading(
            store_settings.model_copy(update={"events": changed}), store.readings, store.applied_offsets.read
        )

    with AnsweringServer(200) as server:
        server.answer_schema(schema)
        service().begin(TOPIC, {0: 0})
        later = service(format="avro", registry_url=server.url)
        later.begin(TOPIC, {0: 10})
        assert items(later, 9) == ["plain"]
        assert [event.item_id for event in later.decoder.events(at(10, avro))] == ["of avro"]
        back = service(registry_url=server.url)
        back.begin(TOPIC, {0: 20})
        assert [event.item_id for event in back.decoder.events(at(19, avro))] == ["of avro"]
        assert items(back, 9, 20) == ["plain", "plain"]
        without = service()
        without.begin(TOPIC, {0: 20})
        with pytest.raises(
            DecoderUnavailable, match="RECSYS_EVENTS__REGISTRY_URL: is required: the topic has records in"
        ):
            without.decoder.events(at(19, avro))
