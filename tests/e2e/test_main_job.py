"""The main job, end to end: real processes, real Kafka, real Redis, and kcat as the producer."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest
from confluent_kafka import Consumer as KafkaConsumer
from confluent_kafka import Producer, TopicPartition

from recsys.kafka.topics import describe_topic
from recsys.redis import Store, open_store
from recsys.settings import Settings
from tests.planted import LiveArtifact, event_json, item_name, list_of, owned_by
from tests.prepared import train_planted
from tests.services import Shop, wait_until
from tests.stream import publish

pytestmark = pytest.mark.kafka


@pytest.fixture
def trained(shop: Shop, settings: Settings) -> Any:
    """A shop with an imported history and its first model, whose services start as an operator starts them."""
    shop.forked = False
    train_planted(shop)
    with open_store(settings) as store:
        yield store


def kcat_publish(kcat: str, shop: Shop, records: list[tuple[str, bytes]]) -> None:
    lines = b"".join(key.encode() + b"\t" + value + b"\n" for key, value in records)
    command = [kcat, "-P", "-b", shop.kafka.address, "-t", shop.topic, "-K", "\t"]
    subprocess.run(command, input=lines, check=True, timeout=60)


def dead_letters(shop: Shop) -> list[Any]:
    """Read the dead-letter topic from its beginning to its end."""
    topic = f"{shop.topic}.dlq"
    consumer = KafkaConsumer(
        {"bootstrap.servers": shop.kafka.address, "group.id": "reader", "enable.auto.commit": False}
    )
    try:
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        ends = {p: consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=10) for p in partitions}
        total = sum(high - low for low, high in ends.values())
        consumer.assign([TopicPartition(topic, p, low) for p, (low, _) in ends.items()])
        found: list[Any] = []
        while len(found) < total:
            found += consumer.consume(100, 0.2)
        return found
    finally:
        consumer.close()


def test_kcat_purchases_become_lists_that_a_plain_solve_confirms(
    trained: Store, shop: Shop, kcat: str, settings: Settings
) -> None:
    consumer = shop.start_consumer()
    consumer.await_assigned()
    basket = {item_name(1, number): 1.0 + number % 3 for number in range(6)}
    records = [("newcomer", event_json("newcomer", item, quantity=int(q))) for item, q in basket.items()]
    kcat_publish(kcat, shop, records)
    wait_until(lambda: owned_by(trained, "newcomer") == basket, "the basket is in the history")
    published = wait_until(lambda: list_of(trained, "newcomer"), "the newcomer has a list")
    artifact = LiveArtifact(trained)
    artifact.check_list(published, basket, settings.ranking.n)
    assert published["items"][0]["item_id"].startswith("sku-1-"), "the planted taste is on top"
    assert published["model"] == artifact.version

    best = published["items"][0]["item_id"]
    kcat_publish(kcat, shop, [("newcomer", event_json("newcomer", best))])
    after = wait_until(lambda: changed(trained, "newcomer", published), "the list follows the purchase")
    assert best not in {entry["item_id"] for entry in after["items"]}
    artifact.check_list(after, {**basket, best: 1.0}, settings.ranking.n)

    kcat_publish(kcat, shop, [("newcomer", event_json("newcomer", best, type="return"))])
    returned = wait_until(lambda: changed(trained, "newcomer", after), "the list follows the return")
    assert returned["items"] == published["items"], "what was returned is recommended again"


def changed(store: Store, user: str, before: dict[str, Any]) -> dict[str, Any] | None:
    published = list_of(store, user)
    return published if published and published["revision"] > before["revision"] else None


def test_basket_of_thirty_lines_is_one_revision_and_one_solve(trained: Store, shop: Shop) -> None:
    # The basket is in Kafka before the consumer starts, so that one poll brings all of it.
    items = [item_name(line % 4, line // 2) for line in range(30)]
    publish(shop, [("shopper", event_json("shopper", item)) for item in items])
    consumer = shop.start_consumer()
    published = wait_until(lambda: list_of(trained, "shopper"), "the shopper has a list")
    assert published["revision"] == 1
    wait_until(lambda: consumer.metrics()["solves_total"], "the list is counted, which comes after it is published")
    metrics = consumer.metrics()
    assert metrics["events_applied_total"] == 30
    assert metrics["solves_total"] == 1
    LiveArtifact(trained).check_list(published, owned_by(trained, "shopper"), 50)


def test_malformed_record_is_a_dead_letter_and_the_stream_goes_on(trained: Store, shop: Shop, kcat: str) -> None:
    consumer = shop.start_consumer()
    consumer.await_assigned()
    bad = b'{"user_id": "bad-user", "item_id": "x", "quantity": -1}'
    producer = Producer({"bootstrap.servers": shop.kafka.address})
    producer.produce(shop.topic, bad, b"bad-user", headers=[("trace", b"\xff\x00")])
    producer.produce(shop.topic, b"\xff not json", b"bad-user")
    assert producer.flush(30) == 0
    kcat_publish(kcat, shop, [("good", event_json("good", item_name(0, 0)))])
    wait_until(lambda: list_of(trained, "good"), "the stream goes on")
    wait_until(lambda: consumer.metrics().get("dead_letters_total") == 2, "both dead letters are counted")
    letters = {message.value(): message for message in dead_letters(shop)}
    assert set(letters) == {bad, b"\xff not json"}
    message = letters[bad]
    assert message.key() == b"bad-user"
    headers = dict(message.headers())
    assert headers["trace"] == b"\xff\x00", "its own headers stay"
    errors = {
        name.removeprefix("__recsys.errors."): value.decode() for name, value in headers.items() if name != "trace"
    }
    assert errors["topic"] == shop.topic
    assert errors["group"] == f"recsys-{shop.name}"
    assert errors["stage"] == "decode"
    assert errors["reason.code"] == "quantity"
    assert errors["topic.id"] == describe_topic(shop.settings().kafka, shop.topic).id
    assert errors["exception.class"] == "MalformedEvent"
    assert "quantity" in errors["exception.message"]
    assert int(errors["offset"]) >= 0
    assert int(errors["partition"]) >= 0
    assert int(errors["timestamp"]) > 0
    assert owned_by(trained, "bad-user") == {}


def test_consumer_started_before_any_model_keeps_histories_until_the_first_full_refresh(
    shop: Shop, settings: Settings
) -> None:
    consumer = shop.start_consumer()
    consumer.await_assigned()
    records = [(f"u{n}", event_json(f"u{n}", item_name(n % 4, i))) for n in range(40) for i in range(n % 7, n % 7 + 6)]
    publish(shop, records)
    with open_store(settings) as store:
        wait_until(lambda: consumer.metrics().get("events_applied_total") == len(records), "histories are kept")
        assert list_of(store, "u1") is None
        shop.run("trainer", "--once")
        LiveArtifact(store).check_list(list_of(store, "u1") or {}, owned_by(store, "u1"), settings.ranking.n)
        assert store.item_lists.popular() is not None
        similar = store.item_lists.similar(item_name(1, 3))
        assert similar is not None
        assert item_name(1, 3) not in {entry["item_id"] for entry in similar["items"]}
        wait_until(lambda: consumer.metrics().get("model_sequence", 0) > 0, "the consumer has the model, too")
        publish(shop, [("late", event_json("late", item_name(2, 5)))])
        wait_until(lambda: list_of(store, "late"), "a list within the stream")
    assert " 0 differences" in shop.recsys("verify", "--all").stdout


def test_retrain_is_done_by_the_running_trainer_and_swapped_in_by_the_consumer(trained: Store, shop: Shop) -> None:
    consumer = shop.start_consumer()
    consumer.await_assigned()
    before = LiveArtifact(trained).version
    trainer = shop.start_trainer()
    wait_until(trained.trainer.is_alive, "the trainer is ready")
    publish(shop, [("brand-new", event_json("brand-new", "sku-never-seen"))])
    wait_until(lambda: owned_by(trained, "brand-new"), "the purchase is in the history")
    assert list_of(trained, "brand-new") is None, "the model knows nothing this user owns"
    output = shop.recsys("retrain", "--wait")
    after = LiveArtifact(trained)
    assert after.version != before
    assert after.version in output.stdout
    assert "sku-never-seen" in after.items
    assert (list_of(trained, "brand-new") or {}).get("model") == after.version
    pointer = trained.pointer.read()
    assert pointer is not None
    wait_until(lambda: consumer.metrics().get("model_sequence") == pointer.sequence, "the consumer swapped")
    publish(shop, [("brand-new", event_json("brand-new", item_name(3, 3)))])
    wait_until(
        lambda: (
            len(owned_by(trained, "brand-new")) == 2
            and trained.users.read(["brand-new"])["brand-new"].listed_sequence == pointer.sequence
        ),
        "the consumer lists with the new model",
    )
    assert trainer.stop() == 0
    assert "no trainer is running" in shop.recsys("retrain", expect=1).stderr


def test_damaged_model_is_refused_and_the_live_one_stays(trained: Store, shop: Shop) -> None:
    consumer = shop.start_consumer()
    consumer.await_assigned()
    good = trained.pointer.read()
    assert good is not None
    trained.connection.client.set(
        trained.pointer._keys.model,
        json.dumps({**good.model_dump(), "sequence": good.sequence + 1, "manifest_sha256": "0" * 64}),
    )
    wait_until(lambda: consumer.metrics().get("models_refused_total") == 1, "the model is refused")
    publish(shop, [("calm", event_json("calm", item_name(0, 1)))])
    published = wait_until(lambda: list_of(trained, "calm"), "the live model goes on")
    assert published["model"] == good.version
    assert "sha256" in consumer.said()


def test_verify_finds_planted_differences(trained: Store, shop: Shop) -> None:
    assert " 0 differences" in shop.recsys("verify", "--all").stdout
    keys = trained.users._keys
    client: Any = trained.connection.client
    client.hset(keys.history("user-1"), item_name(1, 0), "99|1")
    published = json.loads(client.get(keys.recs("user-2")))
    published["items"][0], published["items"][5] = published["items"][5], published["items"][0]
    client.set(keys.recs("user-2"), json.dumps(published))
    client.delete(keys.recs("user-3"))
    output = shop.recsys("verify", "--all", expect=1).stdout
    for user in ("user-1", "user-2", "user-3"):
        assert user in output
    assert "user-4 " not in output
    assert output.count("history of") == 1
    assert "a list" in output


def test_publish_sends_a_file_in_time_order(trained: Store, shop: Shop) -> None:
    (shop.folder / "more.csv").write_text(
        "customer,sku,n,when\nlate-user,sku-0-01,1,2026-11-02T00:00:00Z\nlate-user,sku-0-00,2,2026-11-01T00:00:00Z\n"
        "late-user,sku-0-02,-1,2026-11-03T00:00:00Z\n"
    )
    options = [
        "--user-id-column",
        "customer",
        "--item-id-column",
        "sku",
        "--quantity-column",
        "n",
        "--timestamp-column",
        "when",
    ]
    output = shop.recsys("publish", "more.csv", "--rate", "1000", *options).stdout
    assert "2 events published" in output
    assert "1 row rejected" in output
    shop.start_consumer()
    wait_until(lambda: owned_by(trained, "late-user") == {"sku-0-00": 2.0, "sku-0-01": 1.0}, "both are applied")
    shown = shop.recsys("show", "late-user").stdout
    assert "sku-0-00" in shown
    assert "Recommended to late-user" in shown
