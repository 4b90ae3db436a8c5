"""What `recsys doctor` makes of what it is told: each level, what mends it, and the table of docs/operations.md."""

from __future__ import annotations

import re
import shlex
import socket
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import recsys
from recsys.cli.doctor import described, screen
from recsys.kafka.broker_look import Broker, TopicLook
from recsys.kafka.groups import GroupLook, Member
from recsys.operations import kafka_checks, machine_checks, network_checks, redis_checks
from recsys.operations.check_watch import CheckWatch
from recsys.operations.finding import KINDS, Finding, fine, not_checked, of_state, sentence, worst
from recsys.operations.machine_checks import records_clock, redis_clock
from recsys.operations.network_checks import Reached, Server, network_findings, reach
from recsys.operations.server_lines import eviction_line, memory_line, persistence_line
from recsys.operations.status_facts import Unknown, redis_server_facts
from recsys.operations.status_line import Level, Line, State
from recsys.redis import Service, open_store
from recsys.redis.addresses import redis_cli_options
from recsys.redis.server_look import ServerLook
from recsys.redis.service_registry import ConsumerEntry, ConsumerFacts, FoundServices
from recsys.runtime.terminal import SafeConsole
from recsys.settings import Settings

AT = datetime(2026, 11, 22, 10, 15, tzinfo=UTC)
OPERATIONS = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
WELL: Mapping[str, str] = {
    "cleanup.policy": "delete", "retention.ms": "604800000", "retention.bytes": "-1", "max.message.bytes": "1048588",
    "min.insync.replicas": "1", "unclean.leader.election.enable": "false",
}  # fmt: skip
TOPIC = TopicLook("purchases", "id", 4, 1, (Broker("kafka", 9092),), frozenset({"READ"}), WELL)
INFO = {
    "redis_version": "7.0.15", "redis_mode": "standalone", "role": "master", "maxmemory": 2**30, "used_memory": 2**20,
    "maxmemory_policy": "noeviction", "evicted_keys": 0, "aof_enabled": 1,
}  # fmt: skip
CLI = ("-h", "redis", "-p", "6379")


def settings(**sections: Any) -> Settings:
    return Settings.model_validate({"kafka": {"bootstrap_servers": "kafka:9092"}, **sections})


def of_topic(given: Settings | None = None, *, consumers: int | None = 1, at: TopicLook = TOPIC) -> dict[str, Finding]:
    return {f.code: f for f in kafka_checks.topic_findings(given or settings(), at, consumers, at=AT)}


def with_config(**options: str) -> TopicLook:
    return replace(TOPIC, config={**WELL, **{name.replace("_", "."): value for name, value in options.items()}})


def of_redis(**info: Any) -> dict[str, Finding]:
    look = ServerLook("redis:6379", {**INFO, **info}, 0.0, CLI)
    return {f.code: f for f in redis_checks.server_findings(settings(), [look])}


def test_every_code_has_its_row_in_the_document_in_the_same_order() -> None:
    section = OPERATIONS.split("## What is wrong, or will be")[1].split("\n## ")[0]
    rows = re.findall(r"^\| ([^|`]+) `([\w-]+)` \|", section, flags=re.MULTILINE)
    assert rows == [(kind.name, code) for code, kind in KINDS.items()], "as the screen names it, and the code"


def test_a_topic_as_kafka_makes_it_loses_nothing() -> None:
    assert {f.level for f in of_topic().values()} == {Level.OK}


@pytest.mark.parametrize(
    ("options", "code", "level", "mends"),
    [
        ({"cleanup_policy": "compact"}, "topic-compacted", Level.BROKEN, "cleanup.policy=delete"),
        ({"retention_ms": "7199999"}, "topic-retention", Level.BROKEN, "retention.ms=604800000"),
        ({"retention_ms": "7200000"}, "topic-retention", Level.WARNING, "retention.ms=604800000"),
        ({"retention_ms": "36000000"}, "topic-retention", Level.OK, ""),
        ({"retention_ms": "-1"}, "topic-retention", Level.OK, ""),
        ({"retention_bytes": "1000000"}, "topic-retention", Level.WARNING, "retention.bytes=-1"),
        ({"max_message_bytes": "66559"}, "topic-record-size", Level.WARNING, "max.message.bytes=66560"),
        ({"max_message_bytes": "66560"}, "topic-record-size", Level.OK, ""),
        ({"max_message_bytes": "4095"}, "topic-record-size", Level.BROKEN, "max.message.bytes=66560"),
        (
            {"unclean_leader_election_enable": "true"},
            "topic-durability",
            Level.WARNING,
            "unclean.leader.election.enable=false",
        ),
    ],
)
def test_settings_of_a_topic(options: dict[str, str], code: str, level: Level, mends: str) -> None:
    found = of_topic(at=with_config(**options))
    assert found[code].level is level
    assert mends in found[code].command
    assert {f.level for f in found.values() if f.code != code} == {Level.OK}


def test_the_time_between_rounds_is_that_of_the_schedule_with_its_longest_gap() -> None:
    weekly = settings(trainer={"cron": "15 3 * * 1,2"})
    assert kafka_checks.longest_interval_s(weekly.trainer, AT) == 6 * 86_400
    assert of_topic(weekly)["topic-retention"].level is Level.BROKEN
    assert of_topic(settings(trainer={"interval_s": 86_400}))["topic-retention"].level is Level.WARNING


def test_a_mapping_and_a_setting_change_how_long_records_may_be() -> None:
    assert kafka_checks.longest_record_bytes(settings()) == 65_536
    assert kafka_checks.longest_record_bytes(settings(events={"mapping": "debezium"})) == 2**20
    assert of_topic(settings(events={"mapping": "debezium"}))["topic-record-size"].level is Level.OK
    large = of_topic(settings(events={"max_record_bytes": 2**21}))["topic-record-size"]
    assert large.level is Level.WARNING
    assert large.command.endswith(f"max.message.bytes={2**21 + 1024}")


def test_partitions_and_replicas() -> None:
    assert of_topic(consumers=5)["topic-partitions"].level is Level.WARNING
    assert of_topic(consumers=4)["topic-partitions"].level is Level.OK
    assert of_topic(consumers=None, at=replace(TOPIC, partitions=1))["topic-partitions"].level is Level.WARNING
    brokers = tuple(Broker(f"kafka-{number}", 9092) for number in range(3))
    assert of_topic(at=replace(TOPIC, brokers=brokers))["topic-durability"].level is Level.WARNING
    three = replace(TOPIC, brokers=brokers, replicas=3)
    assert "min.insync.replicas=2" in of_topic(at=three)["topic-durability"].command
    well = replace(three, config={**WELL, "min.insync.replicas": "2"})
    assert of_topic(at=well)["topic-durability"].level is Level.OK


def test_a_configuration_that_may_not_be_read_is_not_checked() -> None:
    found = of_topic(at=replace(TOPIC, config=None))
    assert {f.code for f in found.values() if not f.is_checked} == {
        "topic-compacted", "topic-retention", "topic-record-size", "topic-durability",
    }  # fmt: skip
    assert found["topic-partitions"].level is Level.OK


@pytest.mark.parametrize("service", list(kafka_checks.NEEDS), ids=lambda service: service.name)
def test_each_right_that_is_missing_is_named_and_granted(service: Service) -> None:
    kafka = settings(kafka={"bootstrap_servers": "k:9092", "librdkafka": {"sasl.username": "shop"}}).kafka
    needs = kafka_checks.needs_of(service, with_group=True)
    everything = frozenset({"READ", "WRITE", "DESCRIBE", "DESCRIBE_CONFIGS"})
    rights: dict[str, frozenset[str] | None] = dict.fromkeys(("topic", "dead-letter topic", "group"), everything)
    assert kafka_checks.rights_finding(kafka, needs, rights).level is Level.OK
    for need in needs:
        lacking = {**rights, need.resource: everything - {need.operation}}
        found = kafka_checks.rights_finding(kafka, needs, lacking)
        assert found.level is need.level
        assert f"no {need.operation} right on" in found.text
        assert "--allow-principal User:shop" in found.command
        assert need.operation.replace("_", "").lower() in found.command.lower()
    assert "group" not in {need.resource for need in kafka_checks.needs_of(service, with_group=False)}


def test_the_rights_that_are_asked_for_are_those_of_the_document() -> None:
    lines = re.findall(r"^kafka-acls.sh .*? --add (.*)$", re.sub(r" \\\n +", " ", OPERATIONS), flags=re.MULTILINE)
    for name, service in (("consumer", "CONSUMER"), ("trainer", "TRAINER"), ("api", "API"), ("operator", "COMMAND")):
        documented = set()
        for line in (one for one in lines if f"User:{name} " in one):
            (operation,) = re.findall(r"--operation (\w+)", line)
            named = dict(re.findall(r"--(topic|group) (\S+)", line))
            resources = {"purchases": "topic", "purchases.dlq": "dead-letter topic", "recsys": "group"}
            documented |= {(resources[resource], operation.lower()) for resource in named.values()}
        needs = kafka_checks.NEEDS[Service[service]]
        assert {(need.resource, need.operation.replace("_", "").lower()) for need in needs} == documented


def services(*consumers: ConsumerFacts) -> FoundServices:
    about: dict[str, Any] = {"host": "h", "pid": 7, "version": recsys.__version__, "since": AT, "at": AT}
    return FoundServices([ConsumerEntry(kind="consumer", facts=facts, **about) for facts in consumers], ())


def test_strangers_in_the_group() -> None:
    kafka = settings().kafka
    ours, found = Member("rdkafka", "h", {"purchases": [0, 1]}), services(ConsumerFacts(partitions={0: 1.0, 1: 1.0}))

    def level(*members: Member) -> Level:
        return kafka_checks.group_finding(kafka, GroupLook(members, None), found).level

    assert level(ours) is Level.OK
    assert level(ours, Member("other", "h", {"purchases": [2]})) is Level.BROKEN
    assert level(ours, Member("other", "h", {"orders": [0]})) is Level.WARNING
    assert level(ours, Member("other", "h", {})) is Level.WARNING


@pytest.mark.parametrize("code", ["data-dir-space", "redis-memory"])
def test_what_is_full_already_is_not_said_to_become_full(code: str) -> None:
    assert "once" not in KINDS[code].endangers


@pytest.mark.parametrize("level", list(Level))
def test_what_status_says_is_a_finding(level: Level) -> None:
    state = State([Line("consumers", "consumers", level, "none runs")])
    found = of_state(state)
    assert (found.level, found.text) == (level, f"recsys status: {state.sentence}")
    assert found.command == ("recsys status" if level else "")
    unknown = of_state(Unknown("no answer"))
    assert (unknown.level, unknown.is_checked) == (Level.WARNING, False)


def test_redis_as_it_should_be() -> None:
    assert {f.level for f in of_redis().values()} == {Level.OK}


@pytest.mark.parametrize(
    ("info", "code", "level"),
    [
        ({"redis_version": "6.0.9"}, "redis-version", Level.BROKEN),
        ({"redis_mode": "cluster"}, "redis-mode", Level.BROKEN),
        ({"role": "slave"}, "redis-role", Level.BROKEN),
        ({"maxmemory_policy": "allkeys-lru"}, "redis-eviction", Level.BROKEN),
        ({"maxmemory_policy": "volatile-lru"}, "redis-eviction", Level.WARNING),
        ({"aof_enabled": 0}, "redis-append-only", Level.WARNING),
        ({"aof_last_write_status": "err"}, "redis-persistence", Level.BROKEN),
        ({"used_memory": 2**30}, "redis-memory", Level.BROKEN),
    ],
)
def test_what_is_wrong_with_redis(info: dict[str, Any], code: str, level: Level) -> None:
    found = of_redis(**info)
    assert found[code].level is level
    assert found[code].command or found[code].advice
    assert {f.level for f in found.values() if f.code != code} == {Level.OK}


def test_redis_cli_is_told_of_the_servers_concerned() -> None:
    cluster, given = [], settings(redis={"cluster": True})
    for number, policy in enumerate(["noeviction", "allkeys-lru", "volatile-lru"]):
        info = {**INFO, "redis_mode": "cluster", "maxmemory_policy": policy, "aof_enabled": int(number != 1)}
        cluster.append(ServerLook(f"node-{number}:1", info, 0.0, ("-h", f"node-{number}", "-p", "1")))
    found = {f.code: f.command for f in redis_checks.server_findings(given, cluster)}
    setting = "CONFIG SET maxmemory-policy noeviction"
    assert found["redis-eviction"] == f"redis-cli -h node-1 -p 1 {setting} && redis-cli -h node-2 -p 1 {setting}"
    assert found["redis-append-only"] == "redis-cli -h node-1 -p 1 CONFIG SET appendonly yes"
    lacking = redis_checks.rights_finding(given, cluster[:2], ["+eval"])
    assert lacking.command == " && ".join(f"redis-cli -h node-{n} -p 1 ACL SETUSER default +eval" for n in (0, 1))


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("redis://shop:secret@redis:7000/0", "-h redis -p 7000"),
        ("redis://[::1]", "-h ::1 -p 6379"),
        ("unix:///run/redis.sock", "-s /run/redis.sock"),
        ("rediss://:secret@redis/0?ssl_cert_reqs=none", "-h redis -p 6379 --tls --insecure"),
    ],
)
def test_redis_cli_is_told_where_redis_is_and_no_password(url: str, told: str) -> None:
    with open_store(settings(redis={"url": url})) as store:
        pool = store.connection.client.connection_pool
        connection = pool.connection_class(**pool.connection_kwargs)  # connects nowhere
    assert " ".join(redis_cli_options(settings(redis={"url": url}).redis, connection)) == told


@pytest.mark.parametrize("policy", ["noeviction", "allkeys-lru", "volatile-lru"])
@pytest.mark.parametrize("used", [2**20, 2**30])
@pytest.mark.parametrize("status", ["ok", "err"])
def test_doctor_and_status_never_contradict_each_other(policy: str, used: int, status: str) -> None:
    info = {**INFO, "maxmemory_policy": policy, "used_memory": used, "aof_last_write_status": status}
    facts = [redis_server_facts("redis:6379", info)]
    lines = memory_line(facts, settings().status), eviction_line(facts), persistence_line(facts)
    found = of_redis(**info)
    for line in lines:
        assert found[f"redis-{line.code}"].level is line.level
        assert found[f"redis-{line.code}"].text == line.text


@pytest.mark.parametrize(("off_s", "level"), [(9, Level.OK), (-9, Level.OK), (11, Level.WARNING), (-400, Level.BROKEN)])
def test_the_clock_of_redis(off_s: float, level: Level) -> None:
    found = redis_clock([ServerLook("a", INFO, 0.1, CLI), ServerLook("b", INFO, off_s, CLI)])
    assert found.level is level
    assert ("ahead of" if off_s > 0 else "behind") in found.text
    assert redis_clock([ServerLook("a", INFO, None, CLI)]).level is Level.OK


@pytest.mark.parametrize(
    ("ahead_s", "level"), [(-1e6, Level.OK), (5, Level.OK), (60, Level.WARNING), (9e4, Level.BROKEN)]
)
def test_records_of_the_future(ahead_s: float, level: Level) -> None:
    newest_ms = round(1000 * (AT.timestamp() + ahead_s))
    assert records_clock(newest_ms, AT).level is level
    assert records_clock(None, AT).level is Level.OK


def of_network(*reached: Reached, own: Mapping[str, datetime] | None = None) -> dict[str, Level]:
    return {f.code: f.level for f in network_findings(reached, dict(own or {}), at=AT)}


def test_names_ports_and_certificates() -> None:
    first, second = Server("Kafka", "a", 1), Server("Kafka", "b", 1)
    well = Reached(first, listens=True)
    assert set(of_network(well).values()) == {Level.OK}
    assert of_network(Reached(first, name_problem="unknown"))["names"] is Level.BROKEN
    assert of_network(Reached(first))["ports"] is Level.BROKEN
    assert of_network(well, Reached(second))["ports"] is Level.WARNING, "clients find the other broker"
    assert of_network(well, Reached(Server("Redis", "c", 1)))["ports"] is Level.BROKEN
    assert of_network(replace(well, tls_problem="self-signed"))["tls"] is Level.BROKEN
    for days, level in [(15, Level.OK), (13, Level.WARNING), (-1, Level.BROKEN)]:
        ends = AT + timedelta(days=days)
        assert of_network(replace(well, tls_problem="", ends_at=ends))["tls-expiry"] is level
        assert of_network(well, own={"the client certificate": ends})["tls-expiry"] is level


@pytest.mark.parametrize(
    ("hosts", "said"),
    [
        (["shop-kafka"], "shop-kafka resolves"),
        (["shop", "shop"], "shop resolves"),
        (["shop-kafka", "127.0.0.1", "shop-redis"], "shop-kafka, shop-redis resolve"),
        (["127.0.0.1", "::1"], "there is none to look up: servers are given by address"),
        ([], "there is none to look up: servers are given by address"),
    ],
)
def test_names_are_told_of_and_addresses_are_none(hosts: list[str], said: str) -> None:
    reached = [Reached(Server("Kafka", host, 1), listens=True) for host in hosts]
    assert next(f for f in network_findings(reached, {}, at=AT) if f.code == "names").text == said


def test_an_address_is_not_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def getaddrinfo(host: str, *_: Any, **__: Any) -> None:
        asked.append(host)
        raise OSError("no such name")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(network_checks, "takes_connections", lambda host, port: True)
    assert reach(Server("Redis", "127.0.0.1", 1), None).listens
    assert reach(Server("Redis", "shop-redis", 1), None).name_problem == "no such name"
    assert asked == ["shop-redis"]


def test_a_disk_that_is_slow_to_sync(tmp_path: Path) -> None:
    from recsys.storage.files import Storage

    ticks = iter([0.0, machine_checks.SLOW_SYNC_S + 1])
    slow = machine_checks.folder_finding(Storage(str(tmp_path)), to_write=True, clock=lambda: next(ticks))
    assert slow.level is Level.WARNING
    assert list(tmp_path.iterdir()) == []
    missing = tmp_path / "none" / "yet"
    there = machine_checks.folder_finding(Storage(str(missing)), to_write=True, clock=lambda: 0.0)
    assert there.level is Level.OK
    assert not missing.parent.exists(), "nothing is made"


COMMANDS = [
    "kafka-configs.sh --bootstrap-server shop-kafka:9092 --alter --add-config 'a=b  c' --entity-name purchases",
    shlex.join(["redis-cli", "ACL", "SETUSER", "it's", *(f"+right{number}" for number in range(40))]),
    f"kafka-topics.sh --bootstrap-server {','.join(f'broker-{number}.shop.example:9092' for number in range(9))}",
    """openssl s_client -connect "a \\"b\\" c":1 -showcerts -servername some-name-that-fills-the-line < /dev/null""",
]


def printed(findings: Sequence[Finding], **options: Any) -> list[str]:
    console = SafeConsole(**options)
    with console.capture() as captured:
        console.print(screen(findings), crop=False)
    return re.sub("\x1b\\[[0-9;]*m", "", captured.get()).splitlines()


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("is_terminal", [True, False])
@pytest.mark.parametrize("width", [80, 160])
def test_commands_can_be_copied_from_the_screen(command: str, is_terminal: bool, width: int) -> None:
    finding = Finding("topic-compacted", Level.BROKEN, "long " * 40, command, "then see A compacted topic")
    lines = printed([fine("names", "well"), finding], width=width, force_terminal=is_terminal)
    assert [line for line in lines if line != line.rstrip()] == []
    first = next(place for place, line in enumerate(lines) if line.split()[:1] == command.split()[:1])
    last = next(place for place in range(first, len(lines)) if not lines[place].endswith("\\"))
    copied = lines[first : last + 1]
    assert shlex.split("\n".join(copied).replace("\\\n", "")) == shlex.split(
        described([finding])["findings"][0]["command"]
    )
    assert all(len(line) <= 80 or len(line.split()) <= 2 for line in copied), (
        "only a word that is longer makes it longer"
    )
    assert lines[last + 1].strip() == "→ then see A compacted topic"


def test_what_comes_after_a_command_stands_behind_it_in_logs_too(caplog: pytest.LogCaptureFixture) -> None:
    finding = Finding("topic-retention", Level.BROKEN, "short", "kafka-configs.sh --alter", "then see Models")
    CheckWatch(lambda: [finding], lambda code, is_wrong: None).look()
    assert caplog.messages[0].endswith("; kafka-configs.sh --alter; then see Models")


def test_the_screen_has_80_columns_and_no_escapes() -> None:
    findings = [
        *(fine(code, "well") for code in KINDS),
        not_checked("names", "Kafka cannot be asked"),
        Finding("redis", Level.BROKEN, "\x1b[31m" + "long " * 40, "command " * 20, "advice " * 20),
    ]
    console = SafeConsole(width=80, force_terminal=False)
    with console.capture() as captured:
        console.print(screen(findings), crop=False)
    assert "\x1b" not in captured.get()
    assert max(map(len, captured.get().splitlines())) <= 80
    assert worst(findings) is Level.BROKEN
    assert sentence(findings) == "Something is broken: redis."
