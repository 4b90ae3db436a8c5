"""Scenario 5: the broker restarts, is away, and answers with errors; the dead-letter topic is away."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # it exports these, but not by mypy's rules
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
)
from confluent_kafka.cimpl import NewTopic

from tests.faults.conftest import FULL, Report, full_only, opened_ledger
from tests.faults.group import Group
from tests.faults.ledger import Ledger
from tests.faults.test_members import start
from tests.services import ApacheKafka, KafkaServer, wait_until

pytestmark = pytest.mark.real_kafka

_PER_SECOND = 100
_LONG_S = 60.0


@contextmanager
def broken(broker: ApacheKafka, how: str) -> Iterator[None]:
    """Kill or freeze the broker; it is back when the block ends."""
    breaks, mends = {"killed": (broker.kill, broker.start), "frozen": (broker.freeze, broker.thaw)}[how]
    breaks()
    try:
        yield
    finally:
        mends()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["killed", pytest.param("frozen", marks=full_only)])
def test_broker_is_down_and_everything_recovers_by_itself(
    breakable_kafka: ApacheKafka, redis_url: str, tmp_path: Path, report: Report, how: str
) -> None:
    server = KafkaServer(breakable_kafka.address, True, "the broker that is broken")
    with opened_ledger(server, redis_url, tmp_path, seed=5) as ledger:
        shop, store = ledger.shop, ledger.store
        shop.environment["RECSYS_KAFKA__TIMEOUT_S"] = "2"
        held = [tmp_path / "held-1", tmp_path / "held-2"]
        stays, leaves = (start(ledger, f"polled=hold:{path}") for path in held)
        trainer = shop.start_trainer()
        wait_until(store.trainer.is_alive, "the trainer takes requests")
        Group(shop).await_shared([stays, leaves])
        # Before the load, so that the batches held up are all malformed: it takes a dead letter to go on.
        ledger.send_malformed([f"before {number}".encode() for number in range(16)])
        with ledger.load(_PER_SECOND):
            for path in held:
                wait_until(path.exists, "a batch with malformed records is held up")
            with broken(breakable_kafka, how):
                since = time.monotonic()
                for path in held:
                    path.unlink()
                ledger.send_malformed([b"meanwhile"])
                shop.recsys("retrain")
                comes = start(ledger)
                comes.await_saying("waiting: Kafka at")
                trainer.await_saying("trying again in 10 s")
                for member in (stays, leaves):
                    member.await_saying("does not acknowledge; partitions paused, nothing is dropped")
                    member.await_saying("lost: ")
                assert leaves.stop() == 0
                if FULL:
                    time.sleep(max(0.0, since + _LONG_S - time.monotonic()))
                down_s = time.monotonic() - since
            back = time.monotonic()
            ledger.flush()
            ledger.await_counted()
            recovery_s = time.monotonic() - back
        Group(shop).await_shared([stays, comes])
        wait_until(lambda: store.trainer.status().get("state") == "succeeded", "the trainer has done its round")
        assert trainer.stop() == 0
        tally = ledger.check()
        report(5, f"Broker {how}, back after {down_s:.0f} s", tally, faults=1, recovery_s=recovery_s)


@pytest.mark.slow
def test_refusing_dead_letter_topic_holds_the_offsets_back(ledger: Ledger, report: Report) -> None:
    group = Group(ledger.shop)
    first = start(ledger)
    first.await_assigned()
    replace_dead_letter_topic(ledger, "max.message.bytes", "20")
    ledger.publish(100)
    ledger.send_malformed([f"malformed {number}".encode() for number in range(5)])
    ledger.publish(100)

    def held_back() -> bool:
        committed = group.committed()
        return all(committed.get(partition, 0) <= offset for partition, offset in ledger.malformed_at.items())

    first.await_saying("refuses a record: Broker: Message size too large; make sure that it exists")
    assert held_back()
    second = start(ledger)
    group.await_shared([first, second])
    assert first.stop() == 0
    second.await_assigned(4)
    second.await_saying("refuses a record")
    assert held_back()
    set_of_dead_letter_topic(ledger, "max.message.bytes", "1114124")
    mended = time.monotonic()
    ledger.await_counted()
    wait_until(lambda: group.lag() == 0, "everything is committed")
    recovery_s = time.monotonic() - mended
    report(5, "Dead-letter topic refuses records", ledger.check(), faults=1, recovery_s=recovery_s)
    assert "the dead-letter topic answers again" in second.said()


def test_deleted_dead_letter_topic_is_created_again(ledger: Ledger, report: Report) -> None:
    member = start(ledger)
    member.await_assigned()
    ledger.publish(100)
    admin = AdminClient({"bootstrap.servers": ledger.shop.kafka.address})
    for deleted in admin.delete_topics([f"{ledger.shop.topic}.dlq"]).values():
        deleted.result()
    ledger.send_malformed([f"malformed {number}".encode() for number in range(5)])
    ledger.publish(100)
    member.await_saying("was deleted and has been created again")
    recovery_s = ledger.await_counted()
    report(5, "Dead-letter topic deleted", ledger.check(), faults=1, recovery_s=recovery_s)
    member.ensure_running()


@pytest.mark.slow
def test_a_record_too_large_for_the_dead_letter_topic_is_cut_and_the_stream_goes_on(
    ledger: Ledger, report: Report
) -> None:
    """Letters that are too large together go one by one, and only those too large by themselves are cut."""
    set_of_topic(ledger, ledger.shop.topic, "max.message.bytes", "3000000")
    set_of_dead_letter_topic(ledger, "max.message.bytes", "40000")
    member = start(ledger)
    member.await_assigned(4)
    large = random.Random(13).randbytes(2_000_000)
    ledger.send_malformed([large, *(b"%d:" % number + b"x" * 20_000 for number in range(6)), b"small"], key=b"42")
    ledger.publish(100)
    recovery_s = ledger.await_counted()
    wait_until(lambda: member.metrics().get("dead_letters_total") == 8, "all letters are sent")
    wait_until(lambda: member.metrics().get("dead_letters_cut_total") == 1, "one of them is cut")
    letters = {len(letter.value() or b""): dict(letter.headers() or []) for letter in ledger.dead_letters()}
    (size,) = (size for size, headers in letters.items() if "__recsys.errors.left.out" in headers)
    assert 10_000 < size < 40_000
    assert all(letter.key() == b"42" for letter in ledger.dead_letters())
    assert letters[size]["__recsys.errors.value.size"] == b"2000000"
    tally = ledger.check()
    assert member.stop() == 0
    report(5, "Dead-letter topic too small for a record", tally, faults=1, recovery_s=recovery_s)


@pytest.mark.slow
def test_a_dead_letter_topic_that_is_made_takes_what_the_source_takes(ledger: Ledger) -> None:
    shop = ledger.shop
    admin = AdminClient({"bootstrap.servers": shop.kafka.address})
    for deleted in admin.delete_topics([f"{shop.topic}.dlq"]).values():
        deleted.result()
    set_of_topic(ledger, shop.topic, "max.message.bytes", "3000000")
    member = start(ledger)
    member.await_assigned(4)
    topic = ConfigResource(ConfigResource.Type.TOPIC, f"{shop.topic}.dlq")
    assert admin.describe_configs([topic])[topic].result()["max.message.bytes"].value == "3065536"
    ledger.send_malformed([random.Random(13).randbytes(2_900_000)], key=b"42")
    ledger.publish(20)
    ledger.await_counted()
    wait_until(lambda: member.metrics().get("dead_letters_total") == 1, "the letter is sent")
    assert "dead_letters_cut_total" not in member.metrics() or member.metrics()["dead_letters_cut_total"] == 0
    ledger.check()
    assert member.stop() == 0


def replace_dead_letter_topic(ledger: Ledger, option: str, value: str) -> None:
    """Delete the dead-letter topic and create it again with an option."""
    topic = f"{ledger.shop.topic}.dlq"
    admin = AdminClient({"bootstrap.servers": ledger.shop.kafka.address})
    for done in admin.delete_topics([topic]).values():
        done.result()
    for done in admin.create_topics([NewTopic(topic, 4, config={option: value})]).values():
        done.result()


def set_of_dead_letter_topic(ledger: Ledger, option: str, value: str) -> None:
    """Set an option of the dead-letter topic."""
    set_of_topic(ledger, f"{ledger.shop.topic}.dlq", option, value)


def set_of_topic(ledger: Ledger, topic: str, option: str, value: str) -> None:
    """Set an option of a topic."""
    admin = AdminClient({"bootstrap.servers": ledger.shop.kafka.address})
    entry = ConfigEntry(option, value, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[entry])
    for done in admin.incremental_alter_configs([resource]).values():
        done.result()
