"""Topics that lose purchases, rights that are missing, and strangers in the consumer group."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from recsys.data.event import MAX_RECORD_BYTES
from recsys.kafka.broker_look import TopicLook
from recsys.kafka.causes import user_of
from recsys.kafka.cleanup_policy import is_compacted
from recsys.kafka.decoder import MAX_MAPPED_BYTES
from recsys.kafka.groups import GroupLook
from recsys.operations.finding import Finding, fine, not_checked
from recsys.operations.status_line import Level
from recsys.operations.status_words import counted, duration, named, size
from recsys.redis import Service
from recsys.redis.service_registry import ConsumerEntry, FoundServices
from recsys.settings import KafkaSettings, Settings, TrainerSettings

OVERHEAD_BYTES = 1_024
"""What a record needs in Kafka besides its value: the key, headers, and its batch."""
LARGEST_OWN_EVENT_BYTES = 4_096
"""Of what the HTTP API and `recsys publish` write: ids of 256, 256 and 128 characters, of up to four bytes each."""
ROUNDS_KEPT, FEWEST_ROUNDS_KEPT = 10, 2
"""For how many rounds purchases should, and must, stay in Kafka: some fail, or wait for one another."""
_CRON_FIRINGS = 50


@dataclass(frozen=True, slots=True)
class Need:
    """A right that a service needs: an operation on ``topic``, ``dead-letter topic`` or ``group``."""

    resource: str
    operation: str
    level: Level = Level.BROKEN


_CONFIG = Need("topic", "DESCRIBE_CONFIGS", Level.WARNING)
NEEDS: dict[Service, tuple[Need, ...]] = {
    Service.CONSUMER: (
        Need("topic", "READ"), _CONFIG, Need("group", "READ"), Need("dead-letter topic", "WRITE"),
    ),
    Service.TRAINER: (Need("topic", "READ"), _CONFIG, Need("dead-letter topic", "READ", Level.WARNING)),
    Service.API: (Need("topic", "WRITE"), _CONFIG),
    Service.COMMAND: (
        Need("topic", "READ"), Need("topic", "WRITE", Level.WARNING), _CONFIG, Need("group", "READ"),
        Need("dead-letter topic", "READ", Level.WARNING),
    ),
}  # fmt: skip
"""As docs/operations.md lists them. What a warning lacks works but for one thing, such as `recsys publish`."""


def needs_of(service: Service, *, with_group: bool) -> list[Need]:
    """Return the rights that are asked for; only commands can ask for those on the group."""
    return [need for need in NEEDS[service] if with_group or need.resource != "group"]


def rights_finding(
    settings: KafkaSettings, needs: Sequence[Need], rights: Mapping[str, frozenset[str] | None]
) -> Finding:
    """Say which rights are missing; ``rights``: resource → what this user may do, None where nobody tells."""
    known = [need for need in needs if rights.get(need.resource) is not None]
    missing = [need for need in known if need.operation not in (rights[need.resource] or ())]
    if missing:
        text = "; ".join(f"no {need.operation} right on {_name(settings, need)}" for need in missing)
        level = max(need.level for need in missing)
        return Finding("kafka-rights", level, f"{user_of(settings)}: {text}", grant(settings, missing))
    if not known:
        return fine("kafka-rights", "the brokers tell of none, so none is missing")
    return fine("kafka-rights", f"all there: {', '.join(f'{need.operation} on {need.resource}' for need in known)}")


def _name(settings: KafkaSettings, need: Need) -> str:
    if need.resource == "group":
        return f"group {settings.group_id}"
    return f"topic {settings.topic if need.resource == 'topic' else settings.dead_letters}"


def grant(settings: KafkaSettings, missing: Sequence[Need]) -> str:
    """Return the commands that grant rights."""
    user = user_of(settings)
    principal = user if user.startswith("User:") else "User:NAME"
    return " && ".join(
        shlex.join(
            [
                "kafka-acls.sh", "--bootstrap-server", settings.bootstrap_servers, "--add",
                "--allow-principal", principal, "--operation", need.operation.title().replace("_", ""),
                *(f"--{_name(settings, need)}".split(" ", 1)),
            ]
        )
        for need in missing
    )  # fmt: skip


def _alter(settings: KafkaSettings, topic: str, setting: str) -> str:
    return shlex.join(
        [
            "kafka-configs.sh", "--bootstrap-server", settings.bootstrap_servers, "--alter", "--entity-type", "topics",
            "--entity-name", topic, "--add-config", setting,
        ]
    )  # fmt: skip


_OF_CONFIG = ("topic-compacted", "topic-retention", "topic-record-size", "topic-durability")


def topic_findings(settings: Settings, look: TopicLook, consumers: int | None, *, at: datetime) -> Iterator[Finding]:
    """Yield what of the topic's settings may lose purchases; ``consumers``: how many run, None where not known."""
    if look.config is None:
        why = "there is no right to describe the topic's configuration (DescribeConfigs)"
        yield from (not_checked(code, why, "grant it, see Rights") for code in _OF_CONFIG)
    elif not look.config:
        yield from (fine(code, "the embedded broker has no such setting") for code in _OF_CONFIG)
    else:
        yield _compaction(settings.kafka, look.config)
        yield _retention(settings, look.config, at)
        yield _record_size(settings, look.config)
        yield _durability(settings.kafka, look, look.config)
    yield _partitions(settings.kafka, look, consumers)


def _compaction(settings: KafkaSettings, config: Mapping[str, str]) -> Finding:
    policy = config.get("cleanup.policy", "")
    if not is_compacted(policy):
        return fine("topic-compacted", f"cleanup.policy={policy}")
    command = _alter(settings, settings.topic, "cleanup.policy=delete")
    text = f"cleanup.policy={policy}: of each key only the newest purchase stays"
    return Finding("topic-compacted", Level.BROKEN, text, command, "then see A compacted topic")


def longest_interval_s(settings: TrainerSettings, at: datetime) -> float:
    """Return the longest time from one scheduled round to the next."""
    if not settings.cron:
        return settings.interval_s
    from croniter import croniter  # as the setting does: consumers have no use for it

    times, longest = croniter(settings.cron, at), timedelta(0)
    before: datetime = times.get_next(datetime)
    for _ in range(_CRON_FIRINGS):
        after: datetime = times.get_next(datetime)
        longest, before = max(longest, after - before), after
    return longest.total_seconds()


def _retention(settings: Settings, config: Mapping[str, str], at: datetime) -> Finding:
    kept_ms, kept_bytes = int(config.get("retention.ms", -1)), int(config.get("retention.bytes", -1))
    interval_s = longest_interval_s(settings.trainer, at)
    kept = "for good" if kept_ms < 0 else f"for {duration(kept_ms / 1000)}"
    rounds = f"a round comes every {duration(interval_s)}"
    enough_ms = int(1000 * ROUNDS_KEPT * interval_s)
    if 0 <= kept_ms < enough_ms:
        level = Level.BROKEN if kept_ms < 1000 * FEWEST_ROUNDS_KEPT * interval_s else Level.WARNING
        command = _alter(settings.kafka, settings.kafka.topic, f"retention.ms={max(enough_ms, 604_800_000)}")
        return Finding("topic-retention", level, f"records stay {kept}, and {rounds}", command)
    if kept_bytes >= 0:
        text = f"records stay {kept}, but at most {size(kept_bytes)} of a partition: a busy day may push them out"
        command = _alter(settings.kafka, settings.kafka.topic, "retention.bytes=-1")
        return Finding("topic-retention", Level.WARNING, text, command)
    return fine("topic-retention", f"records stay {kept}, and {rounds}")


def longest_record_bytes(settings: Settings) -> int:
    """Return how long the value of a record may be that is not malformed."""
    with_mapping = settings.events.mapping or settings.events.envelope != "none"
    return settings.events.max_record_bytes or (MAX_MAPPED_BYTES if with_mapping else MAX_RECORD_BYTES)


def _record_size(settings: Settings, config: Mapping[str, str]) -> Finding:
    takes, longest = int(config.get("max.message.bytes", 0)), longest_record_bytes(settings)
    # A broker's default, 12 bytes above 1 MiB, is what shops have that send records of up to 1 MiB.
    wanted = longest if longest == MAX_MAPPED_BYTES else longest + OVERHEAD_BYTES
    said = f"max.message.bytes={takes:,}; a record may have {longest:,} bytes"
    if takes >= wanted:
        return fine("topic-record-size", said)
    command = _alter(settings.kafka, settings.kafka.topic, f"max.message.bytes={wanted}")
    if takes < LARGEST_OWN_EVENT_BYTES:
        text = f"{said}, and one event of the HTTP API {LARGEST_OWN_EVENT_BYTES:,}"
        return Finding("topic-record-size", Level.BROKEN, text, command)
    return Finding("topic-record-size", Level.WARNING, said, command)


def _durability(settings: KafkaSettings, look: TopicLook, config: Mapping[str, str]) -> Finding:
    brokers, replicas = len(look.brokers), look.replicas
    least = int(config.get("min.insync.replicas", 1))
    said = f"{counted(replicas, 'replica')} on {counted(brokers, 'broker')}, min.insync.replicas={least}"
    if config.get("unclean.leader.election.enable") == "true":
        command = _alter(settings, look.name, "unclean.leader.election.enable=false")
        return Finding("topic-durability", Level.WARNING, f"{said}, unclean.leader.election.enable=true", command)
    if brokers > 1 and replicas == 1:
        advice = "give its partitions two more replicas (kafka-reassign-partitions.sh)"
        return Finding("topic-durability", Level.WARNING, said, advice=advice)
    if replicas > 1 and least == 1:
        command = _alter(settings, look.name, "min.insync.replicas=2")
        return Finding("topic-durability", Level.WARNING, said, command)
    return fine("topic-durability", said)


def _partitions(settings: KafkaSettings, look: TopicLook, consumers: int | None) -> Finding:
    wanted = max(2, consumers or 0)
    running = "" if consumers is None else f", {counted(consumers, 'consumer')}"
    said = f"{counted(look.partitions, 'partition')}{running}"
    if look.partitions >= wanted:
        return fine("topic-partitions", said)
    command = shlex.join(
        [
            "kafka-topics.sh", "--bootstrap-server", settings.bootstrap_servers, "--alter", "--topic", look.name,
            "--partitions", str(max(4, wanted)),
        ]
    )  # fmt: skip
    return Finding("topic-partitions", Level.WARNING, f"{said}: at most one consumer works for each", command)


def dead_letter_finding(settings: KafkaSettings, look: TopicLook | None, source: TopicLook) -> Finding:
    """Say whether malformed records can be kept whole; ``look`` is None where the topic does not exist."""
    if look is None:
        return fine("dead-letter-topic", f"{settings.dead_letters} does not exist yet; a consumer creates it")
    config = look.config
    if config is None:
        return fine("dead-letter-topic", f"{look.name} is there; its configuration may not be read")
    if is_compacted(config.get("cleanup.policy", "")):
        command = _alter(settings, look.name, "cleanup.policy=delete")
        return Finding("dead-letter-topic", Level.WARNING, f"{look.name} is compacted: letters vanish", command)
    takes, sent = (int((one or {}).get("max.message.bytes", 0)) for one in (config, source.config))
    if takes < sent:
        command = _alter(settings, look.name, f"max.message.bytes={sent + 65_536}")
        text = f"{look.name} takes {takes:,} bytes, {source.name} {sent:,}: of larger records a part is kept"
        return Finding("dead-letter-topic", Level.WARNING, text, command)
    return fine("dead-letter-topic", f"{look.name} takes what {source.name} takes")


def group_finding(settings: KafkaSettings, group: GroupLook, services: FoundServices) -> Finding:
    """Say whether somebody else uses the consumer group: who holds what no consumer of this shop says that it holds."""
    consumers = [entry for entry in services.entries if isinstance(entry, ConsumerEntry)]
    ours = {partition for entry in consumers for partition in entry.facts.partitions}
    others = [topic for member in group.members for topic in member.held if topic != settings.topic]
    strangers = {
        f"{member.client} at {member.host}": sorted(set(member.held.get(settings.topic, ())) - ours)
        for member in group.members
    }
    holding = {who: partitions for who, partitions in strangers.items() if partitions}
    advice = "stop it, or give it a group of its own; a consumer that has just started is known in a moment"
    command = shlex.join(
        [
            "kafka-consumer-groups.sh", "--bootstrap-server", settings.bootstrap_servers, "--describe", "--members",
            "--group", settings.group_id,
        ]
    )  # fmt: skip
    if holding:
        said = [f"{who} holds partitions {', '.join(map(str, held))}" for who, held in holding.items()]
        text = f"no consumer of this shop: {named(said)}"
        return Finding("group-members", Level.BROKEN, text, command, advice)
    if others:
        text = f"group {settings.group_id} also reads {named(others)}"
        return Finding("group-members", Level.WARNING, text, command, advice)
    if len(group.members) > len(consumers):
        text = f"{counted(len(group.members), 'member')}, but {counted(len(consumers), 'consumer')} of this shop"
        return Finding("group-members", Level.WARNING, text, command, advice)
    return fine("group-members", f"{counted(len(group.members), 'member')}, all of this shop")
