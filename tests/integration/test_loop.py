"""The consumer's loop and its parts, in this process, with a real Redis and the embedded broker."""

from __future__ import annotations

import json
import logging
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from confluent_kafka import TIMESTAMP_CREATE_TIME, Message

from consumer.batch import MessageBatch
from consumer.commits import Commits
from consumer.dead_letters import DeadLetters
from consumer.loop import Loop
from consumer.main import consume
from consumer.metrics import ConsumerMetrics
from consumer.model_swap import ModelSwap
from consumer.outages import Outages, on_one_server
from consumer.polling import Polling, Stopped
from consumer.rebalance import Assignment, close
from consumer.refresher import Refresher
from consumer.stats import Snapshot, total
from recsys.errors import KafkaUnavailable, RedisUnavailable, TooManyMalformed, WritesLost
from recsys.kafka.clients import open_consumer
from recsys.kafka.decoder import make_decoder
from recsys.kafka.embedded import create_by_asking, embedded_broker
from recsys.kafka.producer import Publisher
from recsys.kafka.records import read_range
from recsys.kafka.shared_reading import SharedReading
from recsys.kafka.topics import Topic, TopicWatch, describe_topic, end_offsets
from recsys.lists.live_model import LiveModel
from recsys.recommend.user_lists import RankedList, refresh
from recsys.redis import Store, open_store
from recsys.runtime.clock import now
from recsys.settings import Settings
from recsys.storage.artifact import ArtifactFolder, load_model
from recsys.storage.data_dir import open_data_dir
from tests.builders import NOON_MS, item_ids, make_draft, make_event, make_model
from tests.services import RedisServer, wait_until

IDS = item_ids(40)
JOINS_QUICKLY = {"session.timeout.ms": 6000}  # the embedded broker waits for members that have left


@pytest.fixture(scope="module")
def broker() -> Iterator[str]:
    with embedded_broker() as address:
        yield address


def settings_of(broker: str, url: str, folder: Path, **consumer: object) -> Settings:
    name = f"shop-{uuid.uuid4().hex[:8]}"
    create_by_asking(broker, name, f"{name}.dlq")
    return Settings.model_validate(
        {
            "data_dir": str(folder),
            "kafka": {"bootstrap_servers": broker, "topic": name, "group_id": name, "librdkafka": JOINS_QUICKLY},
            "redis": {"url": url, "prefix": name, "timeout_s": 1.0},
            "ranking": {"n": 5},
            "consumer": {"model_poll_s": 0.05, "commit_interval_s": 0.05, **consumer},
        }
    )


def publish_model(settings: Settings, store: Store, *, seed: int) -> None:
    version, uri, digest = open_data_dir(settings).models.save(
        make_draft(make_model(seed=seed)), popular=RankedList(), archive={}, at=now()
    )
    assert store.pointer.move(version, uri, digest, seen=store.pointer.value(), at=now()) is not None


@dataclass
class Parts:
    """A loop whose batches are made by the test."""

    settings: Settings
    store: Store
    live: LiveModel
    metrics: ConsumerMetrics
    stop: threading.Event
    topic: Topic
    polling: Polling
    outages: Outages
    swap: ModelSwap
    loop: Loop

    def batch(self, records: Sequence[tuple[int, bytes]]) -> MessageBatch:
        """Make a batch of (offset, value) in partition 0."""
        name = self.settings.kafka.topic
        messages = [
            Message(topic=name, partition=0, offset=at, value=value, timestamp=(TIMESTAMP_CREATE_TIME, NOON_MS))
            for at, value in records
        ]
        return MessageBatch(messages, {0: 1}, self.topic, make_decoder(self.settings))

    def purchases(self, first: int, users: Sequence[str]) -> MessageBatch:
        """Make a batch in which each user buys one item."""
        return self.batch([(first + at, purchase(user, IDS[at % 40])) for at, user in enumerate(users)])

    def right_lists(self, users: Sequence[str]) -> list[list[str]]:
        live = self.live.current
        assert live is not None
        histories = [state.history for state in self.store.users.read(users).values()]
        return [list(one.item_ids) for one in refresh(histories, live.model, n=5)]

    def lists(self, users: Sequence[str]) -> list[list[str]]:
        found = self.store.users.lists(users)
        return [[item["item_id"] for item in one["items"]] if one else [] for one in found]

    def listed(self) -> float:
        """Return of how many records the time to the list is known."""
        return max(Snapshot.of(self.metrics).latencies.values())

    def counts(self) -> Mapping[str, float]:
        return {
            name: total(counter)
            for name, counter in vars(self.metrics).items()
            if name in ("records", "applied", "duplicates", "dead_letters", "published", "rejected", "outages")
        }


def purchase(user: str, item: str) -> bytes:
    return json.dumps({"user_id": user, "item_id": item}).encode()


@contextmanager
def opened_parts(settings: Settings, *, with_model: bool = True) -> Iterator[Parts]:
    with ExitStack() as stack:
        store = stack.enter_context(open_store(settings))
        if with_model:
            publish_model(settings, store, seed=1)
        metrics, stop = ConsumerMetrics(), threading.Event()
        live = stack.enter_context(LiveModel(store, open_data_dir(settings).models, poll_s=0.05).followed())
        consumer = open_consumer(settings.kafka, settings.kafka.group_id)
        stack.callback(close, consumer)
        topic = describe_topic(settings.kafka, settings.kafka.topic)
        describe_topic(settings.kafka, settings.kafka.dead_letters)
        assignment = Assignment(settings.kafka, topic, store.applied_offsets)
        assignment.held = {0: 1}
        dead_letters = stack.enter_context(DeadLetters(settings, metrics, topic))
        watch = TopicWatch(settings.kafka, topic)
        reading = SharedReading(settings, store.readings, store.applied_offsets.read)
        polling = Polling(consumer, assignment, watch, reading.decoder, settings, stop)
        outages = Outages(polling, metrics)
        refresher = Refresher(store.users, live, settings.ranking, metrics)
        swap = ModelSwap(refresher, polling, outages, store.connection, metrics, settings)
        commits = Commits(consumer, assignment, settings)
        loop = Loop(polling, outages, store, refresher, swap, dead_letters, commits, reading, metrics)
        store.applied_offsets.follow({topic.source(0): (0, None)})
        yield Parts(settings, store, live, metrics, stop, topic, polling, outages, swap, loop)


@pytest.fixture
def parts(broker: str, redis_url: str, tmp_path: Path) -> Iterator[Parts]:
    with opened_parts(settings_of(broker, redis_url, tmp_path)) as opened:
        yield opened


@pytest.mark.parametrize("n_users", [1, 10, 300])
def test_a_step_leaves_each_users_history_list_and_offset(parts: Parts, n_users: int) -> None:
    users = [f"user-{number}" for number in range(n_users)]
    parts.loop.step(parts.purchases(0, users))
    assert parts.lists(users) == parts.right_lists(users)
    assert all(parts.lists(users))
    assert parts.store.applied_offsets.read([parts.topic.source(0)]) == {parts.topic.source(0): n_users}
    counts = parts.counts()
    assert (counts["records"], counts["applied"], counts["published"]) == (n_users, n_users, n_users)


def test_a_batch_that_comes_twice_counts_once_and_its_lists_stay(parts: Parts) -> None:
    users = [f"user-{number}" for number in range(50)]
    parts.loop.step(parts.purchases(0, users))
    before = parts.store.users.lists(users)
    parts.loop.step(parts.purchases(0, users))
    assert parts.store.users.lists(users) == before
    assert (parts.counts()["applied"], parts.counts()["duplicates"]) == (50, 50)
    assert parts.counts()["published"] == 50, "a list that is current is not computed again"


def test_malformed_records_go_to_the_dead_letters_and_the_others_count(parts: Parts) -> None:
    parts.loop.step(parts.batch([(0, b"{"), (1, purchase("u", IDS[0])), (2, b'{"user_id": "u"}')]))
    assert parts.lists(["u"]) == parts.right_lists(["u"])
    kafka = parts.settings.kafka
    reader = open_consumer(kafka, "reader", enable_partition_eof=True)
    topic = describe_topic(kafka, kafka.dead_letters)
    letters = list(read_range(reader, kafka, topic, end_offsets(reader, kafka, topic)))
    reader.close()
    assert {letter.value() for letter in letters} == {b'{"user_id": "u"}', b"{"}
    assert parts.counts()["dead_letters"] == 2


@pytest.mark.parametrize("most", [0, 1, 3])
def test_a_flood_ends_the_loop_and_each_start_lets_as_many_pass_as_the_limit_allows(
    broker: str, redis_url: str, tmp_path: Path, most: int
) -> None:
    """However many of them one batch holds: what comes before the one that is too many is done."""
    settings = settings_of(broker, redis_url, tmp_path, max_malformed=most)
    records = [(at, purchase("u", "a") if at % 5 == 0 else b"{") for at in range(25)]
    done, starts, letters, applied = 0, 0, 0.0, 0.0
    while starts < 1 + 20 // max(most, 1):
        starts += 1
        with opened_parts(settings, with_model=False) as parts:
            source, flood = parts.topic.source(0), None
            parts.store.applied_offsets.follow({source: (done, done or None)})
            try:
                parts.loop.step(parts.batch(records[done:]))
            except TooManyMalformed as error:
                flood = error
            assert parts.counts()["dead_letters"] <= most
            letters += parts.counts()["dead_letters"]
            applied += parts.counts()["applied"]
            done = parts.store.applied_offsets.everything().get(source, 0)
            assert parts.store.users.read(["u"])["u"].revision == applied
            if flood is None or most == 0:
                break
            assert f"the newest is {settings.kafka.topic}[0] {done}: " in str(flood)
    if most == 0:
        assert (done, letters, applied) == (1, 0, 1)
    else:
        assert (done, letters, applied) == (25, 20, 5)


def test_without_a_model_histories_are_kept_and_lists_come_with_the_first_one(
    broker: str, redis_url: str, tmp_path: Path
) -> None:
    users = [f"user-{number}" for number in range(20)]
    with opened_parts(settings_of(broker, redis_url, tmp_path), with_model=False) as parts:
        parts.loop.step(parts.purchases(0, users))
        assert parts.lists(users) == [[]] * 20
        assert parts.listed() == 0, "what led to no list took no time to it"
        publish_model(parts.settings, parts.store, seed=1)
        parts.live.look_and_wait(10.0)
        assert parts.swap.swap()
        parts.loop.step(parts.purchases(100, users[:5]))  # the others' lists are the full refresh's
        assert parts.listed() == 5
        assert parts.lists(users[:5]) == parts.right_lists(users[:5])
        assert all(state.revision == 2 for state in parts.store.users.read(users[:5]).values())


def test_a_swap_refreshes_those_who_were_served_since_the_last_look(parts: Parts) -> None:
    users = [f"user-{number}" for number in range(20)]
    parts.loop.step(parts.purchases(0, users))
    assert not parts.swap.swap()
    publish_model(parts.settings, parts.store, seed=2)
    parts.loop.step(parts.purchases(100, users[:7]))  # by the model of before: the new one is not taken yet
    parts.live.look_and_wait(10.0)
    assert parts.swap.swap()
    live = parts.live.current
    assert live is not None
    states = parts.store.users.read(users[:7])
    assert {state.listed_sequence for state in states.values()} == {live.stamp.sequence}
    assert parts.lists(users[:7]) == parts.right_lists(users[:7])


def test_an_item_that_is_hidden_meanwhile_is_in_no_list(parts: Parts) -> None:
    users = [f"user-{number}" for number in range(100)]
    for item in parts.live.current.model.items.ids[:20] if parts.live.current else ():
        parts.store.catalogue.hide(item)
    parts.live.look_and_wait(10.0)
    parts.loop.step(parts.purchases(0, users))
    listed = {item for one in parts.lists(users) for item in one}
    assert listed
    assert not listed & parts.live.hidden


def test_redis_that_is_away_is_waited_for(broker: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    server = RedisServer(tmp_path, "--appendonly", "yes", "--appendfsync", "always")
    server.start()
    users = [f"user-{number}" for number in range(100)]
    try:
        with opened_parts(settings_of(broker, server.url, tmp_path)) as parts, caplog.at_level(logging.INFO):
            parts.loop.step(parts.purchases(0, users))
            server.kill()
            step = threading.Thread(target=parts.loop.step, args=(parts.purchases(100, users),))
            step.start()
            wait_until(lambda: parts.counts()["outages"] == 1, "the outage is counted")
            wait_until(lambda: parts.polling.assignment.paused, "the partitions are paused")
            server.start()
            step.join(60)
            assert not step.is_alive()
            assert not parts.polling.assignment.paused
            assert parts.lists(users) == parts.right_lists(users)
            assert any("Redis answers again after" in line for line in caplog.messages)
            assert all(state.revision == 2 for state in parts.store.users.read(users).values())
    finally:
        server.kill()


def test_a_stop_ends_the_wait_for_redis(broker: str, tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    server.start()
    with opened_parts(settings_of(broker, server.url, tmp_path)) as parts:
        server.kill()
        parts.stop.set()
        with pytest.raises(Stopped):
            parts.loop.step(parts.purchases(0, ["u"]))


def test_only_outages_are_waited_for(parts: Parts) -> None:
    tried: list[None] = []
    for attempt in parts.outages.retry("a step"):
        with attempt:
            tried.append(None)
            if len(tried) < 3:
                raise RedisUnavailable("away")
    assert len(tried) == 3
    assert parts.counts()["outages"] == 1
    for error in (WritesLost("gone"), ValueError("a bug")):
        with pytest.raises(type(error)):  # noqa: PT012 - this is how it is used
            for attempt in parts.outages.retry("a step"):
                with attempt:
                    raise error


def test_each_cause_of_an_outage_is_told_at_once_and_not_at_every_try(
    parts: Parts, caplog: pytest.LogCaptureFixture
) -> None:
    causes = ["refuses", "does not answer", "refuses", "does not answer", "refuses"]
    for attempt in parts.outages.retry("a step"):
        with attempt:
            if causes:
                raise KafkaUnavailable(causes.pop(0))
    assert [line for line in caplog.messages if line.startswith("a step: ")] == [
        "a step: refuses; partitions paused, nothing is dropped",
        "a step: still waiting after 0 s: does not answer",
    ]


def test_what_is_done_while_another_server_takes_over_is_done_again(parts: Parts) -> None:
    connection, done = parts.store.connection, 0
    for _ in on_one_server(connection):
        done += 1
        if done == 1:
            connection.epoch += 1
    assert done == 2


def test_partitions_that_were_given_up_move_no_applied_offset(parts: Parts) -> None:
    batch = parts.purchases(0, ["u"])
    parts.polling.assignment.held = {0: 2}  # it went and came back: reading may have begun again before this batch
    parts.loop.step(batch)
    assert parts.store.applied_offsets.read([parts.topic.source(0)]) == {parts.topic.source(0): 0}


def test_the_service_reads_commits_and_goes_on_where_it_was(broker: str, redis_url: str, tmp_path: Path) -> None:
    settings = settings_of(broker, redis_url, tmp_path, batch_size=16)
    users = [f"user-{number}" for number in range(40)]
    describe_topic(settings.kafka, settings.kafka.topic)
    with open_store(settings) as store:
        publish_model(settings, store, seed=1)
        for run, item in enumerate(IDS[:2], start=1):
            with Publisher(settings.kafka) as publisher:
                for user in users:
                    publisher.publish(make_event(user, item))
            metrics, stop = ConsumerMetrics(), threading.Event()
            with LiveModel(store, open_data_dir(settings).models, poll_s=0.05).followed() as live:
                service = threading.Thread(target=consume, args=(settings, store, live, metrics, stop))
                service.start()
                wait_until(
                    lambda run=run: all(s.revision == run for s in store.users.read(users).values()),  # type: ignore[misc]
                    "everybody's purchase is applied",
                )
                stop.set()
                service.join(60)
                assert not service.is_alive()
            assert total(metrics.records) == len(users), "nothing is read twice"
        pointer = store.pointer.read()
        assert pointer is not None
        model = load_model(ArtifactFolder.at(pointer.uri), manifest_sha256=pointer.manifest_sha256)
        histories = [state.history for state in store.users.read(users).values()]
        expected = [list(one.item_ids) for one in refresh(histories, model, n=5)]
        assert [[item["item_id"] for item in one["items"]] for one in store.users.lists(users) if one] == expected


def test_a_first_model_that_is_refused_leaves_a_consumer_without_lists_which_is_said(
    broker: str, redis_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with opened_parts(settings_of(broker, redis_url, tmp_path), with_model=False) as parts:
        parts.store.pointer.move("v1", "nowhere", "a" * 64, seen=parts.store.pointer.value(), at=now())
        wait_until(lambda: "model refused" in caplog.text, "it is refused")
    assert "no other one is loaded: this process computes no lists until one can be" in caplog.text
    assert "the live model stays" not in caplog.text


def test_records_that_are_no_events_take_no_time_to_a_list(parts: Parts) -> None:
    parts.loop.step(parts.batch([(0, b"{")]))
    assert parts.counts()["records"] == 1
    assert parts.listed() == 0
    parts.loop.step(parts.purchases(1, ["user-1"]))
    assert parts.listed() == 1
