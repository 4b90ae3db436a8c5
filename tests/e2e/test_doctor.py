"""`recsys doctor` names of real servers what is wrong or will be, what it endangers, and what mends it."""

from __future__ import annotations

import json
import re
import shlex
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from confluent_kafka import Consumer
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
)
from confluent_kafka.cimpl import NewTopic

from recsys.data.reserved import PROBE_PREFIX, PROBE_TTL_S
from recsys.kafka.clients import open_reader
from recsys.kafka.topics import describe_topic, end_offsets
from recsys.operations.finding import KINDS
from recsys.operations.probe import CODES as CODES_OF_PROBE
from recsys.redis import Service, open_store
from recsys.redis.rights import acl_rules
from recsys.redis.service_registry import ConsumerFacts, TrainerFacts
from recsys.runtime.clock import now
from recsys.storage.data_dir import open_data_dir
from tests.conftest import opened_shop
from tests.faults.disk import SmallDisk, small_disk
from tests.looks import LENIENT, Said, said_by
from tests.prepared import train_planted
from tests.secured import Authority, SecuredKafka, SecuredRedis, secured_redis
from tests.services import KafkaServer, RedisServer, Shop, kept_port, wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.real_kafka]
PATIENT_WITH_SERVERS = {"RECSYS_KAFKA__TIMEOUT_S": "60", "RECSYS_REDIS__TIMEOUT_S": "60"}
"""On a busy machine the coordinator of a cluster's first group, among others, takes its time."""
SLOW_IS_FINE = {"RECSYS_STATUS__EVENT_TO_LIST_MS": "1e9", "RECSYS_STATUS__LAG_S": "1e6"}
UNTIL_SOON = {"tls-expiry"}
"""The certificates of these tests end in two days."""


def doctor(shop: Shop, *arguments: str, **settings: str) -> Said:
    """Ask for JSON; each finding that is not well says what it endangers, and what mends it.

    What status says is left out: hardly any of these shops has services and a model.
    """
    said = said_by(shop, "doctor", *arguments, lists="findings", **{**PATIENT_WITH_SERVERS, **settings})
    for code, finding in said.listed.items():
        is_told = finding["level"] != "ok" and finding["checked"]
        assert bool(finding["endangers"]) == is_told
        assert not is_told or finding["command"] or finding["advice"], code
    return replace(said, listed={code: finding for code, finding in said.listed.items() if code != "status"})


def altered(shop: Shop, topic: str, **options: str) -> None:
    """Set options of a topic; names have ``_`` for ``.``."""
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
    for name, value in options.items():
        entry = ConfigEntry(name.replace("_", "."), value, incremental_operation=AlterConfigOpType.SET)
        resource.add_incremental_config(entry)
    admin = AdminClient({"bootstrap.servers": shop.kafka.address})
    for changed in admin.incremental_alter_configs([resource]).values():
        changed.result()


@pytest.fixture
def well(kafka: KafkaServer, own_redis: RedisServer, tmp_path: Path) -> Iterator[Shop]:
    """A shop with which nothing is wrong."""
    with opened_shop(kafka, own_redis.url, tmp_path) as shop:
        yield shop


def said_of_all(shop: Shop) -> Said:
    return said_by(shop, "doctor", lists="findings", **PATIENT_WITH_SERVERS, **SLOW_IS_FINE)


def test_nothing_is_wrong_until_the_shop_is_not_served(well: Shop, own_redis: RedisServer) -> None:
    well.environment["RECSYS_TRAINER__HOLDOUT_DAYS"] = "0"
    train_planted(well)
    consumer, _ = well.start_consumer(), well.start_trainer()
    consumer.await_assigned(4)
    said = wait_until(lambda: one if (one := said_of_all(well)).code == 0 else None, "the services are seen")
    assert said.found["sentence"] == "Nothing is wrong."
    assert said.text("status") == "recsys status: The shop is served."
    assert list(said.listed) == [code for code in KINDS if not code.startswith("probe-")]
    settings = {**LENIENT, **PATIENT_WITH_SERVERS, **SLOW_IS_FINE, "COLUMNS": "80"}
    shown = well.recsys("doctor", expect=0, **settings).stdout
    assert shown.startswith("Nothing is wrong.\n")
    assert max(map(len, shown.splitlines())) <= 80
    consumer.stop()
    alone = said_of_all(well)
    assert alone.wrong == {"status"}
    assert (alone.level("status"), alone.command("status")) == ("broken", "recsys status")
    assert alone.text("status") == "recsys status: Something is broken: consumers."
    own_redis.client.flushall()
    emptied = said_of_all(well)
    assert emptied.level("status") == "broken"
    assert "histories" in emptied.text("status")


def test_nothing_of_what_is_checked_is_wrong(well: Shop) -> None:
    assert doctor(well).wrong == set()
    without_kafka = doctor(well, "--as", "api", RECSYS_API__PURCHASES="false", RECSYS_DATA_DIR=str(well.folder))
    assert without_kafka.code == 0
    assert not {"kafka", "kafka-rights", "topic-retention", "clock-kafka"} & set(without_kafka.listed)


def copied(shown: str, program: str) -> list[str]:
    """Return the commands of a program as a shell takes them from what is shown."""
    return [line.strip() for line in shown.replace("\\\n", "").splitlines() if line.split()[:1] == [program]]


def test_each_setting_of_a_topic_that_loses_purchases_is_named_with_the_command_that_mends_it(well: Shop) -> None:
    altered(well, well.topic, cleanup_policy="compact,delete", retention_ms="3600000", max_message_bytes="20000")
    altered(well, f"{well.topic}.dlq", max_message_bytes="10000")
    said = doctor(well)
    assert said.wrong == {"topic-compacted", "topic-retention", "topic-record-size", "dead-letter-topic"}
    levels = [said.level(code) for code in ("topic-compacted", "topic-retention", "topic-record-size")]
    assert levels == ["broken", "broken", "warning"]
    assert "--add-config cleanup.policy=delete" in said.command("topic-compacted")
    assert "--add-config max.message.bytes=66560" in said.command("topic-record-size")
    shown = well.recsys("doctor", expect=2, **{**LENIENT, **PATIENT_WITH_SERVERS, "COLUMNS": "80"}).stdout
    assert [line for line in shown.splitlines() if line != line.rstrip()] == []
    told = [said.command(code) for code in said.listed if said.command(code).startswith("kafka-configs.sh ")]
    assert [shlex.split(command) for command in copied(shown, "kafka-configs.sh")] == list(map(shlex.split, told))
    altered(well, well.topic, cleanup_policy="delete", retention_ms="604800000", max_message_bytes="66560")
    altered(well, f"{well.topic}.dlq", max_message_bytes="132096")
    wait_until(lambda: not doctor(well).wrong, "what the commands say mends it")


def test_one_partition_is_too_few(well: Shop) -> None:
    topic = f"{well.topic}-narrow"
    admin = AdminClient({"bootstrap.servers": well.kafka.address})
    for created in admin.create_topics([NewTopic(topic, 1)]).values():
        created.result()
    said = doctor(well, RECSYS_KAFKA__TOPIC=topic)
    assert said.wrong == {"topic-partitions"}
    assert said.command("topic-partitions").endswith(f"--alter --topic {topic} --partitions 4")


def test_a_topic_that_is_missing_is_named_and_what_needs_none_is_looked_at(well: Shop) -> None:
    said = doctor(well, RECSYS_KAFKA__TOPIC="none-such")
    assert said.level("kafka") == "broken"
    assert "--create --topic none-such" in said.command("kafka")
    assert said.text("topic-retention") == "not checked: Kafka cannot be asked"
    assert said.level("redis") == "ok"


def test_who_else_holds_partitions_of_the_group_is_named(well: Shop) -> None:
    stranger = Consumer(
        {
            "bootstrap.servers": well.kafka.address, "group.id": well.environment["RECSYS_KAFKA__GROUP_ID"],
            "client.id": "stranger", "auto.offset.reset": "earliest",
        }
    )  # fmt: skip
    stranger.subscribe([well.topic])
    try:
        wait_until(lambda: stranger.poll(0.1) or stranger.assignment(), "it holds partitions")
        said = doctor(well)
        assert said.wrong == {"group-members"}
        assert said.level("group-members") == "broken"
        assert "stranger at 127.0.0.1 holds partitions 0, 1, 2, 3" in said.text("group-members")
    finally:
        stranger.close()
    consumer = well.start_consumer()
    consumer.await_assigned(4)
    said = wait_until(lambda: one if not (one := doctor(well)).wrong else None, "our own consumer is no stranger")
    assert said.text("group-members") == "1 member, all of this shop"


def test_what_redis_may_lose_is_named(well: Shop, own_redis: RedisServer) -> None:
    own_redis.client.config_set("appendonly", "no")
    own_redis.client.config_set("maxmemory-policy", "allkeys-lru")
    said = doctor(well)
    assert said.wrong == {"redis-eviction", "redis-append-only"}
    assert said.level("redis-eviction") == "broken"
    assert said.command("redis-eviction").endswith("CONFIG SET maxmemory-policy noeviction")
    told = f"redis-cli -h 127.0.0.1 -p {own_redis.port}"
    assert said.command("redis-append-only") == f"{told} CONFIG SET appendonly yes"
    own_redis.client.config_set("maxmemory", "1gb")  # now no connection of ours takes it
    said = doctor(well)
    assert said.level("redis-eviction") == "broken"
    assert said.text("redis-rights") == "not checked: Redis cannot be used as it is"


def test_a_replica_is_none_to_write_to(well: Shop, own_redis: RedisServer, tmp_path: Path) -> None:
    replica = RedisServer(tmp_path, "--appendonly", "yes", "--replicaof", f"127.0.0.1 {own_redis.port}")
    replica.start()
    try:
        said = doctor(well, RECSYS_REDIS__URL=replica.url)
        assert said.level("redis-role") == "broken"
        assert "is a read-only replica" in said.text("redis-role")
        assert said.level("redis-version") == "ok"
    finally:
        replica.kill()


def test_a_server_that_is_away_hides_nothing_of_the_other(well: Shop) -> None:
    no_redis = doctor(well, RECSYS_REDIS__URL=f"redis://127.0.0.1:{kept_port()}/0", RECSYS_REDIS__TIMEOUT_S="1")
    assert no_redis.level("redis") == "broken"
    assert no_redis.level("ports") == "broken"
    assert no_redis.text("redis-rights") == "not checked: Redis cannot be asked"
    assert no_redis.level("kafka") == no_redis.level("topic-retention") == "ok"
    no_kafka = doctor(well, RECSYS_KAFKA__BOOTSTRAP_SERVERS=f"127.0.0.1:{kept_port()}", RECSYS_KAFKA__TIMEOUT_S="2")
    assert no_kafka.level("kafka") == no_kafka.level("ports") == "broken"
    assert no_kafka.text("clock-kafka") == "not checked: Kafka cannot be asked"
    assert no_kafka.level("redis") == no_kafka.level("data-dir") == "ok"


def test_a_name_that_is_unknown_is_named(well: Shop) -> None:
    said = doctor(well, RECSYS_KAFKA__BOOTSTRAP_SERVERS="no-such-host.invalid:9092", RECSYS_KAFKA__TIMEOUT_S="2")
    assert said.level("names") == "broken"
    assert "no-such-host.invalid" in said.text("names")
    assert said.level("redis") == "ok"


def test_versions_and_mappings_that_differ_are_named(well: Shop) -> None:
    with open_store(well.settings()) as store:
        started = now()
        for facts in (ConsumerFacts(reading="0123456789abcdef"), TrainerFacts()):
            store.services.say_alive(store.services.new_name(facts), facts, since=started, at=started)
        keys, client = store.services._keys, store.connection.client
        (name,) = [name.decode() for name in client.smembers(keys.services) if name.startswith(b"trainer:")]
        entry = json.loads(client.get(keys.service(name)))
        client.set(keys.service(name), json.dumps({**entry, "version": "0.0.1"}))
        client.persist(keys.service(name))
    said = doctor(well)
    assert {"versions", "readings"} <= said.wrong
    assert "trainer on " in said.text("versions")
    assert "is 0.0.1" in said.text("versions")
    assert "as 0123456789abcdef; these settings as" in said.text("readings")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path) as mounted:
        if mounted is None:
            pytest.skip("no namespace for a small disk can be had")
        yield mounted


def test_a_full_disk_is_named(well: Shop, disk: SmallDisk) -> None:
    where = {"RECSYS_DATA_DIR": str(disk.folder)}
    assert doctor(well, **where).wrong == set()
    disk.fill()
    said = doctor(well, **where)
    assert said.wrong == {"data-dir", "data-dir-space"}
    assert said.text("data-dir") == f"the disk of {disk.folder} is full (No space left on device); make room on it"
    assert "data-dir" not in doctor(well, "--as", "consumer", **where).wrong, "a consumer only reads"


def test_rights_that_redis_withholds_are_named(tmp_path: Path, kafka: KafkaServer) -> None:
    with secured_redis("--appendonly", "yes") as server, opened_shop(kafka, server.url, tmp_path) as shop:
        rules = acl_rules(Service.CONSUMER, shop.environment["RECSYS_REDIS__PREFIX"])
        server.set_user("consumer", *[rule for rule in rules if rule != "+hset"])
        login = {"RECSYS_REDIS__URL": server.url_of("consumer")}
        said = doctor(shop, "--as", "consumer", **login)
        assert said.wrong == {"redis-rights", *UNTIL_SOON, "data-dir"}
        assert "is not there, so no model can be loaded" in said.text("data-dir")
        assert said.text("redis-rights") == "user consumer lacks +hset"
        assert said.command("redis-rights").startswith("redis-cli -h localhost -p ")
        assert said.command("redis-rights").endswith(" ACL SETUSER consumer +hset")
        server.set_user("consumer", *[rule for rule in rules if rule not in ("+hset", "+multi")])
        untold = doctor(shop, "--as", "consumer", **login)
        assert untold.text("redis-rights").startswith("not checked: this user may use no transaction")
        server.set_user("consumer", *rules)
        assert "redis-rights" not in doctor(shop, "--as", "consumer", **login).wrong
        wrong = server.url_of("consumer", "another")
        refused = doctor(shop, "--as", "consumer", RECSYS_REDIS__URL=wrong)
        assert "refuses user consumer" in refused.text("redis")


def test_certificates_that_nobody_should_trust_are_named(tmp_path: Path, kafka: KafkaServer) -> None:
    authority = Authority(tmp_path / "other")
    expired = authority.issue("redis", expired=True)
    server = SecuredRedis(tmp_path, "--appendonly", "yes", server=expired)
    server.start()
    try:
        with opened_shop(kafka, server.url, tmp_path) as shop:
            url = f"rediss://localhost:{server.tls_port}/0?ssl_ca_certs={authority.certificate}"
            said = doctor(shop, RECSYS_REDIS__URL=url)
            assert said.level("tls") == "broken"
            assert "certificate has expired" in said.text("tls")
            server.kill()
            other = authority.issue("another", names=("DNS:another.example",))
            replaced = SecuredRedis(tmp_path / "named", "--appendonly", "yes", server=other)
            replaced.start()
            try:
                where = f"rediss://localhost:{replaced.tls_port}/0?ssl_ca_certs={authority.certificate}"
                named = doctor(shop, RECSYS_REDIS__URL=where)
                assert named.level("tls") == "broken"
                assert "Hostname mismatch" in named.text("tls")
            finally:
                replaced.kill()
            server.start()
            stranger = doctor(shop, RECSYS_REDIS__URL=f"rediss://localhost:{server.port}/0")
            assert "it speaks no TLS at this port" in stranger.text("tls")
    finally:
        server.kill()


@pytest.mark.slow
def test_rights_that_kafka_withholds_are_named(
    secured: SecuredKafka, own_redis: RedisServer, tmp_path: Path
) -> None:  # fmt: skip
    with opened_shop(KafkaServer(secured.address, True, "a Kafka with rights"), own_redis.url, tmp_path) as shop:
        secured.add_user(shop.name)
        login = {
            "RECSYS_KAFKA__BOOTSTRAP_SERVERS": secured.sasl_address,
            "RECSYS_KAFKA__LIBRDKAFKA": json.dumps(secured.login(shop.name)),
        }
        group = shop.environment["RECSYS_KAFKA__GROUP_ID"]
        may = f"--allow-principal User:{shop.name} --operation"
        for right in ("Read --topic {}", "DescribeConfigs --topic {}", "Write --topic {}.dlq"):
            secured.allow(f"{may} {right.format(shop.topic)}")
        secured.allow(f"{may} Read --group {group}")

        def lacks(service: str, *rights: str) -> Said | None:
            said = doctor(shop, "--as", service, **login)
            return said if all(right in said.text("kafka-rights") for right in rights) else None

        consumer = wait_until(lambda: lacks("consumer", "all there"), "a consumer has all")
        assert consumer.wrong == {*UNTIL_SOON, "data-dir"}
        assert "valid until" in consumer.text("tls-expiry")
        api = wait_until(lambda: lacks("api", "no WRITE right"), "an API lacks one")
        assert api.level("kafka-rights") == "broken"
        assert f"--allow-principal User:{shop.name} --operation Write --topic {shop.topic}" in api.command(
            "kafka-rights"
        )
        secured.take_away(f"{may} Read --group {group}")
        wait_until(lambda: lacks("consumer", f"no READ right on group {group}"), "it is gone")
        secured.take_away(f"{may} Read --topic {shop.topic}")
        secured.take_away(f"{may} DescribeConfigs --topic {shop.topic}")
        said = wait_until(lambda: one if (one := lacks("trainer", "not checked")) else None, "it sees no topic")
        assert said.level("kafka") == "broken"
        assert f"no DESCRIBE right for User:{shop.name} on topic {shop.topic}" in said.text("kafka")
        wrong = {**login, "RECSYS_KAFKA__LIBRDKAFKA": json.dumps(secured.login(shop.name, "another"))}
        refused = doctor(shop, **wrong, RECSYS_KAFKA__TIMEOUT_S="3")
        assert f"User:{shop.name} is refused" in refused.text("kafka")


PATIENT = ("--probe", "--within", "200")


def keys_of_probes(server: RedisServer) -> dict[str, int]:
    """Return the keys of all probes, each with the seconds until it expires; -1 = never."""
    return {key.decode(): server.client.ttl(key) for key in server.client.scan_iter(match=f"*{PROBE_PREFIX}*")}


def expires_soon(keys: dict[str, int]) -> bool:
    return all(0 <= left_s <= PROBE_TTL_S for left_s in keys.values())


def archived_users(shop: Shop) -> set[str]:
    tables = open_data_dir(shop.settings()).archive.tables(["user_id"])
    return {user for table in tables for user in table["user_id"].unique().to_pylist()}


def dead_letters(shop: Shop) -> int:
    settings = shop.settings().kafka
    reader = open_reader(settings, "test")
    try:
        ends = end_offsets(reader, settings, describe_topic(settings, settings.dead_letters))
    finally:
        reader.close()
    return sum(end for _, end in ends.values())


def test_a_probe_goes_through_everything_and_leaves_nothing(well: Shop, own_redis: RedisServer) -> None:
    well.environment["RECSYS_TRAINER__HOLDOUT_DAYS"] = "0"
    train_planted(well)
    users = archived_users(well)
    consumer = well.start_consumer()
    consumer.await_assigned(4)
    said = doctor(well, *PATIENT)
    probed = {code: said.listed[code] for code in CODES_OF_PROBE}
    assert {finding["level"] for finding in probed.values()} == {"ok"}, probed
    assert all(re.search(r"\d+ (ms|s|min)\b", probed[code]["text"]) for code in CODES_OF_PROBE[:3])
    assert probed["probe-gone"]["text"] == "no history, no list, no bookkeeping of it in Redis"
    wait_until(lambda: consumer.metrics().get("records_total", 0) == 2, "purchase and forget, and nothing else")
    assert keys_of_probes(own_redis) == {}
    assert dead_letters(well) == 0
    popular = popular_scores(well)
    well.run("trainer", "--once")
    assert archived_users(well) == users, "the archive, and so model, demand and popular lists, know no probe"
    assert popular_scores(well) == pytest.approx(popular, rel=1e-3), "only the time has passed"
    assert ": 0 differences" in well.recsys("verify", "--all", expect=0).stdout
    assert keys_of_probes(own_redis) == {}


def popular_scores(shop: Shop) -> dict[str, float]:
    with open_store(shop.settings()) as store:
        popular = store.item_lists.popular()
    assert popular is not None
    return {item["item_id"]: item["score"] for item in popular["items"]}


def test_a_probe_that_is_killed_half_way_leaves_nothing_for_ever(well: Shop, own_redis: RedisServer) -> None:
    well.environment["RECSYS_TRAINER__HOLDOUT_DAYS"] = "0"
    train_planted(well)
    users = archived_users(well)
    well.start_consumer().await_assigned(4)
    killed = well.recsys("doctor", "--probe", expect=None, RECSYS_TEST_FAIL_POINTS="probe-published=kill")
    assert killed.returncode == -signal.SIGKILL

    def there() -> dict[str, int] | None:
        found = keys_of_probes(own_redis)
        kinds = {key.rpartition(":")[2] for key in found}
        return found if {"history", "applied", "recs"} <= kinds and expires_soon(found) else None

    wait_until(there, "the purchase counts, and all of it is to expire")
    well.run("trainer", "--once")  # its full refresh writes all lists anew
    assert expires_soon(keys_of_probes(own_redis))
    assert archived_users(well) == users
    assert ": 0 differences" in well.recsys("verify", "--all", expect=0).stdout
    next_one = doctor(well, *PATIENT)
    assert next_one.level("probe-gone") == "ok"


def test_a_probe_without_a_consumer_says_so_and_waits_for_none(well: Shop, own_redis: RedisServer) -> None:
    said = doctor(well, "--probe", "--within", "1")
    assert said.level("probe-kafka") == "ok"
    assert said.text("probe-history") == "not within 1 s: no consumer runs"
    assert said.command("probe-history") or "python -m consumer" in said.listed["probe-history"]["advice"]
    assert said.text("probe-gone").startswith("not checked: purchase and forget wait in Kafka for a consumer")
    consumer = well.start_consumer()
    wait_until(lambda: consumer.metrics().get("records_total", 0) == 2, "a consumer applies both")

    def only_what_expires() -> bool:
        found = keys_of_probes(own_redis)
        return set(found) <= {key for key in found if key.endswith(":applied")} and expires_soon(found)

    wait_until(only_what_expires, "the user is erased, and what is remembered of it is to expire")


def test_a_probe_where_kafka_cannot_be_used_is_not_sent(well: Shop) -> None:
    where = {"RECSYS_KAFKA__BOOTSTRAP_SERVERS": f"127.0.0.1:{kept_port()}", "RECSYS_KAFKA__TIMEOUT_S": "2"}
    said = doctor(well, "--probe", **where)
    assert {said.text(code) for code in CODES_OF_PROBE} == {"not checked: kafka cannot be used"}
    refused = well.recsys("doctor", "--probe", "--as", "api", expect=2)
    assert "--probe" in refused.stderr
