"""The consumer when things come and go: members of the group, Redis, and requests it cannot serve."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest

from recsys.demo.services import find_redis_server
from recsys.recommend.user_lists import RankedList
from recsys.redis import ModelStamp, Store, open_store
from recsys.settings import Settings
from tests.lists import write_lists
from tests.planted import event_json, item_name, list_of, owned_by, write_history
from tests.prepared import train_planted
from tests.services import RedisServer, Shop, kept_port, running, wait_until
from tests.stream import await_records, publish

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

NOW = datetime(2026, 11, 22, 10, 15, tzinfo=UTC)
USERS = [f"user-{n}" for n in range(40)]
EXPECTED = {item_name(n % 4, n % 20): 2.0 for n in range(20)}


def load(first: int, last: int) -> list[tuple[str, bytes]]:
    return [(user, event_json(user, item_name(n % 4, n % 20))) for n in range(first, last) for user in USERS]


def everyone_has_everything(store: Store) -> bool:
    return all(owned_by(store, user) == EXPECTED for user in USERS)


def test_members_that_come_and_go_under_load_lose_and_double_nothing(shop: Shop, settings: Settings) -> None:
    first = shop.start_consumer(RECSYS_CONSUMER__BATCH_SIZE="25")
    first.await_assigned()
    publish(shop, load(0, 10))
    await_records(first, 25)
    second = shop.start_consumer(RECSYS_CONSUMER__BATCH_SIZE="25")
    second.await_assigned()
    publish(shop, load(10, 20))
    await_records(second, 1)
    assert first.stop() == 0
    publish(shop, load(20, 40))
    with open_store(settings) as store:
        wait_until(lambda: everyone_has_everything(store), "every event counted once")
    assert second.stop() == 0


def test_redis_killed_under_load_holds_the_stream_back_and_nothing_is_dropped(shop: Shop, tmp_path: Path) -> None:
    server = RedisServer(tmp_path, "--appendonly", "yes", "--appendfsync", "always")
    shop.environment["RECSYS_REDIS__URL"] = server.url
    redis_settings = Settings.model_validate(
        {"redis": {"url": server.url, "prefix": shop.environment["RECSYS_REDIS__PREFIX"]}}
    )
    with ExitStack() as stack:
        stack.callback(server.kill)
        server.start()
        store = stack.enter_context(open_store(redis_settings))
        consumer = shop.start_consumer(RECSYS_CONSUMER__BATCH_SIZE="25")
        consumer.await_assigned()
        publish(shop, load(0, 10))
        await_records(consumer, 25)
        server.kill()
        publish(shop, load(10, 40))  # Redis is dead
        wait_until(lambda: "partitions paused, nothing is dropped" in consumer.said(), "the consumer says so")
        assert consumer.process.poll() is None
        server.start()
        wait_until(lambda: everyone_has_everything(store), "every event counted once")
        consumer.await_saying("Redis answers again")  # which it says after it has sent again what was under way
        assert consumer.stop() == 0


def test_consumer_stops_at_once_while_redis_is_away(shop: Shop) -> None:
    consumer = shop.start_consumer(RECSYS_REDIS__URL="redis://127.0.0.1:1/0")
    wait_until(lambda: "waiting: Redis at redis://127.0.0.1:1/0" in consumer.said(), "the log says what is missing")
    assert consumer.stop() == 0


@pytest.mark.real_kafka  # the embedded broker creates every topic that it is asked for
def test_consumer_waits_for_a_topic_that_is_not_there_yet(shop: Shop) -> None:
    consumer = shop.start_consumer(RECSYS_KAFKA__TOPIC="not-there")
    wait_until(lambda: "topic not-there does not exist" in consumer.said(), "the log says what is missing")
    assert consumer.stop() == 0


def test_wrong_setting_ends_each_service_with_one_line(shop: Shop) -> None:
    for module in (["consumer"], ["trainer", "--once"], ["recsys", "config"]):
        done = shop.run(*module, expect=2, RECSYS_RANKING__N="many")
        assert len(done.stderr.strip().splitlines()) == 1
        assert "RECSYS_RANKING__N" in done.stderr


def test_consumer_with_an_older_model_than_the_list_goes_on_at_once(shop: Shop, settings: Settings) -> None:
    train_planted(shop)
    with open_store(settings) as store:
        state = store.users.read(["user-1"])["user-1"]
        far_ahead = ModelStamp("a-newer-one", int(NOW.timestamp()) + 10**9)
        write_lists(store.users, {"user-1": state.revision}, [RankedList(("x",), (1.0,))], far_ahead, at=NOW)
        consumer = shop.start_consumer()
        consumer.await_assigned()
        publish(shop, [("user-1", event_json("user-1", item_name(0, 0))), ("new", event_json("new", item_name(0, 1)))])
        wait_until(lambda: list_of(store, "new"), "others are served")
        wait_until(lambda: consumer.metrics().get("lists_rejected_total") == 1, "the older list is turned away")
        assert (list_of(store, "user-1") or {})["model"] == "a-newer-one"


def test_round_that_was_cut_off_is_made_good_at_the_next_start(shop: Shop, settings: Settings) -> None:
    train_planted(shop)
    with open_store(settings) as store:
        before = store.pointer.read()
        store.trainer.write_status({"state": "failed", "error": "the trainer was stopped"})
        trainer = shop.start_trainer()
        wait_until(lambda: store.pointer.read() != before, "a round at once, though the model is young")
        wait_until(lambda: store.trainer.status().get("state") == "succeeded", "it is completed")
        assert trainer.stop() == 0


def test_trainer_stops_at_once_while_redis_is_away(shop: Shop) -> None:
    trainer = shop.start_trainer(RECSYS_REDIS__URL="redis://127.0.0.1:1/0")
    wait_until(lambda: "waiting: Redis at redis://127.0.0.1:1/0" in trainer.said(), "the log says what is missing")
    assert trainer.stop() == 0


def test_second_import_waits_for_the_lock_on_the_archive(shop: Shop, settings: Settings) -> None:
    write_history(shop.folder / "history.csv")
    with open_store(settings) as store:
        with store.trainer_lock.held(ttl_s=60):
            log = shop.folder / "import.log"
            command = [sys.executable, "-m", "recsys", "import", str(shop.folder / "history.csv")]
            process = shop.stack.enter_context(running(command, log, shop.environment))
            wait_until(lambda: "waiting: another process (process " in log.read_text(), "it says so")
        assert process.wait(timeout=240) == 0
        assert store.users.read(["user-1"])["user-1"].revision > 0


def test_no_trainer_once_while_another_is_at_work(shop: Shop, settings: Settings) -> None:
    with open_store(settings) as store, store.trainer_lock.held(ttl_s=60):
        assert "holds the lock on archive and models" in shop.run("trainer", "--once", expect=1).stderr


def test_newer_rebalance_protocol_serves_as_well(shop: Shop, settings: Settings) -> None:
    protocol = {"RECSYS_KAFKA__GROUP_PROTOCOL": "consumer", "RECSYS_KAFKA__LIBRDKAFKA": "{}"}
    first, second = shop.start_consumer(**protocol), shop.start_consumer(**protocol)
    for consumer in (first, second):
        consumer.await_assigned()
    publish(shop, load(0, 40))
    with open_store(settings) as store:
        wait_until(lambda: everyone_has_everything(store), "every event counted once")
    assert first.stop() == 0
    assert second.stop() == 0


def test_services_say_in_one_line_what_is_missing(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way of a folder")
    trainer = shop.start_trainer(RECSYS_DATA_DIR=str(tmp_path / "file" / "data"))
    wait_until(lambda: "waiting: " in trainer.said(), "the trainer says what is missing")
    (line,) = [line for line in trainer.said().splitlines() if "waiting: " in line]
    assert str(tmp_path / "file") in line
    (tmp_path / "file").unlink()
    wait_until(lambda: "trainer ready" in trainer.said(), "it goes on when it is there")
    assert trainer.stop() == 0


def test_redis_that_may_evict_histories_is_refused(shop: Shop, tmp_path: Path) -> None:
    command = [find_redis_server(), "--save", "", "--maxmemory", "1gb", "--maxmemory-policy", "allkeys-lru", "--port"]
    port = kept_port()
    with running([*command, str(port)], tmp_path / "redis.log", shop.environment):
        consumer = shop.start_consumer(RECSYS_REDIS__URL=f"redis://127.0.0.1:{port}/0")
        wait_until(lambda: "maxmemory-policy is allkeys-lru" in consumer.said(), "the log says what is wrong")
        assert consumer.stop() == 0
