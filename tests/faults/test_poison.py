"""Scenario 12: malformed records of every kind and floods of them, users out of all proportion, ids like code."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from typing import Any

import pytest
from confluent_kafka import Producer

from recsys.data.event import Event, decode
from recsys.data.history import HistoryReplay
from recsys.errors import MalformedEvent
from recsys.kafka.producer import encode
from tests.faults.conftest import Report, rounds
from tests.faults.ledger import Ledger
from tests.malformed import WAYS, malformed_records
from tests.planted import event_json, item_name, list_of
from tests.services import Service, kafka_jars, wait_until

pytestmark = pytest.mark.real_kafka

EVERYTHING_PASSES = {"RECSYS_CONSUMER__MAX_MALFORMED": "1000"}
ODD_IDS = [
    "{", "}", "{}", "}{", "{42}", "a}b", "{{{{}}}}", "}:history", "}:recs", "item:{x}:similar", "*", "[a-z]?", "\\",
    "|", "1|2", "a\\nb", "a\\u0000b", "\\\\", "%s%n{0}$(id)`id`", "'; FLUSHALL; --", "<script>", "[/bold]:cat:", " ",
    "  a  ", "\u2028", "\u200b", "\u202ereversed", "e\u0301", "\u00e9", "ﬃ", "汉字", "😀", "👩\u200d👧", "😀" * 256,
    "x" * 256, "{" * 256, "-1", "1e5", "null", "NaN", "0x10",
]  # fmt: skip


def errors_of(service: Service) -> list[str]:
    return [line for line in service.lines() if " ERROR " in line or "Traceback" in line]


def without_digits(text: str) -> str:
    return re.sub(r"\d+", "", text)


def reason_of(value: bytes | None) -> str:
    with pytest.raises(MalformedEvent) as caught:
        decode(value, record_timestamp_ms=0)
    return caught.value.reason


@pytest.mark.slow
def test_every_kind_of_malformed_record_is_passed_over(ledger: Ledger, report: Report) -> None:
    consumer = ledger.shop.start_consumer(**EVERYTHING_PASSES)
    values = malformed_records(12, rounds(len(WAYS) + 300, 20_000))
    for start in range(0, len(values), 50):
        ledger.send_malformed(values[start : start + 50])
        ledger.send(ledger.sales(25))
    ledger.flush()
    recovery_s = ledger.await_counted()
    wait_until(lambda: consumer.metrics().get("dead_letters_total") == len(values), "all of them are sent on")
    tally = ledger.check()
    said = without_digits(consumer.said())
    reasons = {without_digits(reason_of(value)) for value in values}
    assert [reason for reason in reasons if f": {reason}\n" not in said] == []
    assert consumer.said().count("dead letter: ") < len(values) / 2, "of each kind one line, not one of each record"
    assert errors_of(consumer) == []
    assert consumer.stop() == 0
    report(12, "malformed records of every kind", tally, faults=len(values), recovery_s=recovery_s)


def test_flood_stops_the_consumer_with_one_error_and_nothing_is_lost(ledger: Ledger, report: Report) -> None:
    shop = ledger.shop
    first = shop.start_consumer()
    ledger.send_malformed([b"malformed %d" % n for n in range(500)])
    ledger.flush()
    wait_until(lambda: first.metrics().get("dead_letters_total") == 500, "as many as allowed are sent on")
    ledger.publish(150)
    ledger.await_counted()  # and do not stop it
    ledger.send_malformed([b"malformed %d" % n for n in range(500, 1200)])
    ledger.send(ledger.sales(150))
    ledger.flush()
    stopped = [first, *(shop.start_consumer() for _ in range(rounds(0, 1)))]
    for consumer in stopped:
        assert consumer.process.wait(timeout=240) == 1
        (error,) = errors_of(consumer)
        assert re.search(r"501 of the newest [\d,]+ records are malformed", error), error
        assert re.search(rf"the newest is {shop.topic}\[\d\] \d+: not JSON: ", error), error
        assert "RECSYS_CONSUMER__MAX_MALFORMED is 500" in error
        assert f"with RECSYS_CONSUMER__MAX_MALFORMED=1000 all of them go to {shop.topic}.dlq" in error
        assert f"reset the offsets of group {shop.environment['RECSYS_KAFKA__GROUP_ID']}" in error
    last = shop.start_consumer(**EVERYTHING_PASSES)
    recovery_s = ledger.await_counted()
    wait_until(lambda: last.metrics().get("records_total", 0) > 0, "the rest is read")
    tally = ledger.check()
    assert last.stop() == 0
    report(12, "a flood of malformed records stops the consumer", tally, faults=700, recovery_s=recovery_s)


@pytest.mark.slow
def test_the_command_of_the_error_passes_over_a_flood(ledger: Ledger) -> None:
    shop = ledger.shop
    ledger.send_malformed([b"malformed %d" % n for n in range(700)], key=b"one partition")
    ledger.flush()
    stopped = shop.start_consumer()
    assert stopped.process.wait(timeout=240) == 1
    (error,) = errors_of(stopped)
    assert re.search(r"; reasons: 501 x not JSON: [^;]+\. Repair the producer", error), error
    script, *arguments = error.partition("reset the offsets of group ")[2].partition(": ")[2].split()
    assert script == "kafka-consumer-groups.sh"
    tool = ["java", "-cp", f"{kafka_jars()}/*", "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"]
    reset = subprocess.run([*tool, *arguments], capture_output=True, text=True, check=False)
    assert reset.returncode == 0, reset.stdout + reset.stderr
    consumer = shop.start_consumer()
    ledger.publish(100)
    ledger.await_counted()
    wait_until(lambda: consumer.metrics().get("dead_letters_total") == 199, "the rest goes to the dead letters")
    assert consumer.stop() == 0


@pytest.mark.slow
def test_user_with_a_hundred_thousand_purchases_and_a_basket_of_five_thousand_lines(
    ledger: Ledger, report: Report
) -> None:
    count = rounds(10_000, 100_000)
    # Some items the model knows, most it does not; times that go back and forth, so that old ones are evicted.
    heavy = [
        Event(
            user_id="heavy",
            item_id=item_name(n % 4, n % 20) if n % 97 == 0 else f"heavy-{n % 30_011}",
            timestamp=1_700_000_000_000 + 1000 * (n - 5_000 * (n % 7 == 0)),
            event_id=f"heavy-{n}" if n % 2 else None,
        )
        for n in range(count)
    ]
    basket = [
        Event(user_id="basket", item_id=f"line-{n}", quantity=1 + n % 3, timestamp=1_700_000_000_000 + n // 10)
        for n in range(4_990)
    ] + [Event(user_id="basket", item_id=item_name(1, n), timestamp=1_750_000_000_000) for n in range(10)]
    producer = Producer({"bootstrap.servers": ledger.shop.kafka.address, "linger.ms": 5, "log_level": 2})
    for event in heavy + basket:
        producer.produce(ledger.shop.topic, encode(event), event.user_id.encode())
        producer.poll(0)
    assert producer.flush(60) == 0
    consumer = ledger.shop.start_consumer(RECSYS_CONSUMER__BATCH_SIZE="10000")
    ledger.publish(100)
    client: Any = ledger.store.connection.client
    expected = {user: HistoryReplay(2000) for user in ("heavy", "basket")}
    for event in heavy + basket:
        expected[event.user_id].apply([event])
    wait_until(lambda: consumer.metrics().get("records_total") == count + 5_100, "everything has been read", 600)
    recovery_s = ledger.await_counted()

    def listed(user: str) -> bool:
        state = ledger.store.users.read([user])[user]
        return state.listed_sequence > 0

    for user, replay in expected.items():
        wait_until(lambda user=user: listed(user), f"{user} has a list")  # type: ignore[misc]
        found = client.hgetall(ledger.store.users._keys.history(user))
        assert len(found) == 2000
        assert {item.decode(): value.decode() for item, value in found.items()} == {
            item: str(entry) for item, entry in replay.entries.items()
        }
    tally = ledger.check()  # verifies these two users as well
    assert consumer.stop() == 0
    tally = replace(tally, events=tally.events + len(heavy) + len(basket))
    report(12, "users out of all proportion", tally, faults=2, recovery_s=recovery_s)


@pytest.mark.slow
def test_ids_that_look_like_code_are_served_and_those_that_break_a_rule_are_refused(
    ledger: Ledger, report: Report
) -> None:
    ledger.add_users(ODD_IDS)
    consumer = ledger.shop.start_consumer()
    producer = Producer({"bootstrap.servers": ledger.shop.kafka.address, "log_level": 2})
    for user in ODD_IDS:  # items with such ids, too
        for item in ODD_IDS:
            producer.produce(ledger.shop.topic, event_json(f"owner of {user}"[:256], item), b"odd")
    assert producer.flush(60) == 0
    refused = ["", "a\nb", "\u0000", "\u009f", "x" * 257, "😀" * 257, "\ud800"]
    ledger.send_malformed([event_json(user, "sku-0-00") for user in refused])
    ledger.send_malformed([event_json("buyer", item) for item in refused])
    while not all(list_of(ledger.store, user) for user in ODD_IDS):
        ledger.publish(100)
        ledger.await_counted()
    for user in ODD_IDS:
        assert (list_of(ledger.store, user) or {})["user_id"] == user
        owned = ledger.store.users.read([f"owner of {user}"[:256]]).popitem()[1].history
        assert sorted(owned.entries) == sorted(ODD_IDS)
    ledger.shop.run("trainer", "--once")  # a model that knows these items, and lists for those who own nothing else
    tally = ledger.check()
    assert errors_of(consumer) == []
    assert consumer.stop() == 0
    report(12, "ids that look like code", tally, faults=len(ODD_IDS) + 2 * len(refused))
