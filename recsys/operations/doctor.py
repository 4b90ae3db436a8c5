"""Looks end to end from this machine with these settings: what is wrong or will be, side by side, changing nothing."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from datetime import UTC, datetime
from functools import partial
from typing import Literal

from recsys.errors import RedisUnsuitable, RightMissing, TopicMissing
from recsys.kafka.broker_look import TopicLook, look_at_topic, newest_record_ms
from recsys.kafka.groups import GroupLook, look_at_group
from recsys.kafka.readings import reading_of
from recsys.operations import kafka_checks, redis_checks
from recsys.operations.asking import Asking
from recsys.operations.finding import KINDS, Area, Finding, fine, not_checked, of_line
from recsys.operations.machine_checks import (
    folder_finding,
    readings_finding,
    records_clock,
    redis_clock,
    registry_finding,
    versions_finding,
)
from recsys.operations.network_checks import (
    Reached,
    Server,
    kafka_servers,
    kafka_tls,
    network_findings,
    own_certificates,
    reach,
    redis_servers,
    redis_tls,
)
from recsys.operations.server_lines import disk_line
from recsys.operations.status_facts import DiskFacts, Unknown
from recsys.operations.status_line import Level
from recsys.operations.status_words import counted
from recsys.redis import Service, Store
from recsys.redis.server_look import ServerLook, look_at_servers
from recsys.redis.service_registry import ConsumerEntry, FoundServices
from recsys.settings import Settings
from recsys.storage.data_dir import DataDir

_ASKS_A_CHECK = 3
"""A check needs a few answers, one after the other."""
_EMBEDDED = "the embedded broker does not tell"
_NO_KAFKA, _NO_REDIS = "Kafka cannot be asked", "Redis cannot be asked"
_BESIDES_TOPICS = {"kafka-rights", "clock-kafka"}
_OF_KAFKA = [code for code, kind in KINDS.items() if kind.area in (Area.TOPICS, Area.GROUP) or code in _BESIDES_TOPICS]
_OF_REGISTRY = ("versions", "readings", "registry")
_WRITERS = (Service.TRAINER, Service.COMMAND)
"""Who writes to ``data_dir``; and who may read which services run."""
_Topic = TopicLook | RightMissing | TopicMissing


def examine(
    settings: Settings,
    service: Service,
    store: Store,
    data_dir: DataDir,
    *,
    clock: Callable[[], float] = time.time,
    is_command: bool = True,
) -> list[Finding]:
    """Return what there is to find; whatever is away, within a few time-outs.

    Parameters
    ----------
    settings : Settings
    service : Service
        Whose rights these settings must have.
    store : Store
    data_dir : DataDir
    clock : callable
        Returns the time of this machine, in seconds since 1970.
    is_command : bool
        False = a running service looks: it leaves out what may end a process that must not end, see `look_at_group`.
    """
    found = {
        finding.code: finding
        for finding in _Examination(settings, service, store, data_dir, clock, is_command).findings()
    }
    return [found[code] for code in KINDS if code in found]


class _Examination:
    def __init__(
        self,
        settings: Settings,
        service: Service,
        store: Store,
        data_dir: DataDir,
        clock: Callable[[], float],
        is_command: bool,
    ) -> None:
        self._settings = settings
        self._service = service
        self._store = store
        self._data_dir = data_dir
        self._clock = clock
        self._at = datetime.fromtimestamp(clock(), UTC)
        self._is_command = is_command
        self._knows_members = is_command and service is Service.COMMAND  # a trainer may not describe the group
        self._uses_kafka = service is not Service.API or settings.api.purchases
        self._ask = Asking(_ASKS_A_CHECK * max(settings.kafka.timeout_s, settings.redis.timeout_s))

    def findings(self) -> Iterator[Finding]:
        """Ask everything that needs no other answer at once, then the rest."""
        ask, settings, kafka = self._ask, self._settings, self._settings.kafka
        ways = {server: self._way(server) for server in self._servers()}
        topic = ask.begin(lambda: _look_or_why_not(settings, kafka.topic)) if self._uses_kafka else None
        letters = ask.begin(lambda: _look_or_why_not(settings, kafka.dead_letters)) if self._uses_kafka else None
        usable = ask.begin(self._is_usable)
        looks = ask.begin(lambda: look_at_servers(settings.redis, self._clock))
        writes = self._service in _WRITERS
        folder = ask.begin(lambda: folder_finding(self._data_dir.storage, to_write=writes, clock=time.monotonic))
        disk = ask.begin(lambda: DiskFacts(*(self._data_dir.storage.nearest().disk() or (0, 0))))
        services = self._begin_registry(usable)
        yield from self._redis(ask.end(usable), ask.end(looks))
        found_services: FoundServices | Unknown | None = None
        if services is not None:
            found_services = ask.end(services)
        found_topic: _Topic | Unknown | None = None
        if topic is not None and letters is not None:
            found_topic = ask.end(topic)
            yield from self._kafka(found_topic, ask.end(letters), found_services)
        yield from self._services(found_services, found_topic)
        yield from self._network(ways, found_topic)
        yield _known("data-dir", ask.end(folder))
        space = ask.end(disk)
        if isinstance(space, Unknown):
            yield not_checked("data-dir-space", space)
        else:
            yield of_line("data-dir-space", disk_line(space, settings.status))

    def _is_usable(self) -> Literal[True]:
        self._store.connection.check()
        return True

    def _servers(self) -> list[Server]:
        redis = redis_servers(self._settings.redis)
        return [*kafka_servers(self._settings.kafka), *redis] if self._uses_kafka else redis

    def _way(self, server: Server) -> Future[Reached | Unknown]:
        tls = (
            redis_tls(self._settings.redis) if server.what in ("Redis", "Sentinel") else kafka_tls(self._settings.kafka)
        )
        return self._ask.begin(partial(reach, server, tls))

    def _network(
        self, ways: Mapping[Server, Future[Reached | Unknown]], topic: _Topic | Unknown | None
    ) -> Iterator[Finding]:  # fmt: skip
        if isinstance(topic, TopicLook):  # the addresses to which the brokers send their clients
            named = {(server.host, server.port) for server in ways}
            others = [broker for broker in topic.brokers if (broker.host, broker.port) not in named]
            told = [Server("Kafka broker", broker.host, broker.port) for broker in others]
            ways = {**ways, **{server: self._way(server) for server in told}}
        found = {server: self._ask.end(way) for server, way in ways.items()}
        reached = [
            Reached(server, name_problem=one.cause) if isinstance(one, Unknown) else one
            for server, one in found.items()
        ]
        own = own_certificates(self._settings.kafka) if self._uses_kafka else {}
        yield from network_findings(reached, own, at=self._at)

    def _begin_registry(self, usable: Future[Literal[True] | Unknown]) -> Future[FoundServices | Unknown] | None:
        """Ask which services run, where this one may."""
        if self._service not in _WRITERS:
            return None
        is_usable = self._ask.end(usable)
        return self._ask.begin(self._store.services.read, is_usable)

    def _redis(self, usable: Literal[True] | Unknown, looks: list[ServerLook] | Unknown) -> Iterator[Finding]:
        if isinstance(looks, Unknown):
            cause = usable.cause if isinstance(usable, Unknown) else looks.cause
            yield Finding("redis", Level.BROKEN, cause, advice="bring it back, or correct RECSYS_REDIS__URL")
            of_redis = [code for code, kind in KINDS.items() if kind.area is Area.REDIS and code != "redis"]
            yield from (not_checked(code, _NO_REDIS) for code in (*of_redis, *self._clock_codes()))
            return
        findings = list(redis_checks.server_findings(self._settings, looks))
        yield from findings
        if isinstance(usable, Unknown) and not any(finding.level is Level.BROKEN for finding in findings):
            yield Finding("redis", Level.BROKEN, usable.cause, advice="do what the line says")
        else:
            yield fine("redis", f"logged in; {counted(len(looks), 'server')}")
        if "clock-redis" in self._clock_codes():
            yield redis_clock(looks)
        yield self._redis_rights(usable, looks)

    def _clock_codes(self) -> tuple[str, ...]:
        return () if self._service is Service.API else ("clock-redis",)  # it has no right to ask for the time

    def _redis_rights(self, usable: Literal[True] | Unknown, looks: Sequence[ServerLook]) -> Finding:
        if isinstance(usable, Unknown):
            return not_checked("redis-rights", "Redis cannot be used as it is")
        missing = self._ask.end(self._ask.begin(self._missing_rights))
        if isinstance(missing, Unknown):
            return not_checked("redis-rights", missing, "grant +multi +discard, see Rights")
        return redis_checks.rights_finding(self._settings, looks, missing)

    def _missing_rights(self) -> list[str]:
        connection = self._store.connection
        if not connection.may_ask_for_rights():
            raise RedisUnsuitable("this user may use no transaction, with which rights are looked at")
        return connection.missing_rights(self._service)

    def _kafka(
        self, topic: _Topic | Unknown, letters: _Topic | Unknown, services: FoundServices | Unknown | None
    ) -> Iterator[Finding]:  # fmt: skip
        settings, ask = self._settings, self._ask
        needs = kafka_checks.needs_of(self._service, with_group=self._is_command)
        if isinstance(topic, RightMissing):
            topic_needs = [need for need in needs if need.resource == "topic"]
            yield Finding("kafka", Level.BROKEN, str(topic), kafka_checks.grant(settings.kafka, topic_needs))
        elif isinstance(topic, TopicMissing):
            yield Finding("kafka", Level.BROKEN, str(topic), _creating(settings), "or correct RECSYS_KAFKA__TOPIC")
        elif isinstance(topic, Unknown):
            yield Finding("kafka", Level.BROKEN, topic.cause, advice="bring Kafka back, or correct RECSYS_KAFKA__…")
        if not isinstance(topic, TopicLook):
            yield from (not_checked(code, _NO_KAFKA) for code in self._kafka_codes())
            return
        yield fine("kafka", f"logged in; topic {topic.name} is there")
        asks_group = any(need.resource == "group" for need in needs) and not topic.is_embedded
        newest = None if topic.is_embedded else ask.begin(lambda: newest_record_ms(settings.kafka, topic))
        group = ask.end(ask.begin(lambda: _group_or_why_not(settings))) if asks_group else None
        rights = {"topic": topic.rights, "dead-letter topic": _rights(letters), "group": _rights_on_group(group)}
        yield kafka_checks.rights_finding(settings.kafka, needs, rights)
        yield from kafka_checks.topic_findings(settings, topic, _count_consumers(services), at=self._at)
        yield self._dead_letters(letters, topic)
        if newest is None:
            yield from (fine(code, _EMBEDDED) for code in ("clock-kafka", *self._members_code()))
            return
        if self._knows_members:
            yield self._group(group, services)
        at_ms = ask.end(newest)
        if isinstance(at_ms, Unknown):
            yield not_checked("clock-kafka", at_ms)
        else:
            yield records_clock(at_ms, self._at)

    def _members_code(self) -> list[str]:
        return ["group-members"] if self._knows_members else []

    def _kafka_codes(self) -> list[str]:
        return [code for code in _OF_KAFKA if self._knows_members or code != "group-members"]

    def _dead_letters(self, letters: _Topic | Unknown, topic: TopicLook) -> Finding:
        if isinstance(letters, Unknown):
            return not_checked("dead-letter-topic", letters)
        if isinstance(letters, RightMissing):
            return fine("dead-letter-topic", f"{self._settings.kafka.dead_letters} may not be looked at")
        found = None if isinstance(letters, TopicMissing) else letters
        return kafka_checks.dead_letter_finding(self._settings.kafka, found, topic)

    def _group(
        self, group: GroupLook | RightMissing | Unknown | None, services: FoundServices | Unknown | None
    ) -> Finding:  # fmt: skip
        if isinstance(group, RightMissing | Unknown):
            return not_checked("group-members", group if isinstance(group, Unknown) else str(group))
        if group is None or services is None or isinstance(services, Unknown):
            return not_checked("group-members", _NO_REDIS)
        return kafka_checks.group_finding(self._settings.kafka, group, services)

    def _services(
        self, services: FoundServices | Unknown | None, topic: _Topic | Unknown | None
    ) -> Iterator[Finding]:  # fmt: skip
        if services is None:
            return
        if isinstance(services, Unknown):
            yield from (not_checked(code, _NO_REDIS) for code in _OF_REGISTRY)
            return
        yield registry_finding(services)
        yield versions_finding(services)
        noted = self._ask.end(self._ask.begin(lambda: self._noted_readings(topic)))
        if isinstance(noted, Unknown):
            yield not_checked("readings", noted)
        else:
            yield readings_finding(reading_of(self._settings.events).fingerprint, services, noted)

    def _noted_readings(self, topic: _Topic | Unknown | None) -> list[str]:
        """Return how consumers noted that the newest records of the topic's partitions are read."""
        if not isinstance(topic, TopicLook):
            return []
        begins = self._store.readings.history().begins
        sources = (f"{topic.id}:{partition}" for partition in range(topic.partitions))
        return [begins[source][-1][1] for source in sources if begins.get(source)]


def _look_or_why_not(settings: Settings, name: str) -> _Topic:
    try:
        return look_at_topic(settings.kafka, name)
    except (RightMissing, TopicMissing) as error:
        return error


def _group_or_why_not(settings: Settings) -> GroupLook | RightMissing:
    try:
        return look_at_group(settings.kafka)
    except RightMissing as error:
        return error


def _rights(topic: _Topic | Unknown) -> frozenset[str] | None:
    if isinstance(topic, RightMissing):
        return frozenset()
    return topic.rights if isinstance(topic, TopicLook) else None


def _rights_on_group(group: GroupLook | RightMissing | Unknown | None) -> frozenset[str] | None:
    if isinstance(group, RightMissing):
        return frozenset()
    return group.rights if isinstance(group, GroupLook) else None


def _count_consumers(services: FoundServices | Unknown | None) -> int | None:
    if services is None or isinstance(services, Unknown):
        return None
    return sum(isinstance(entry, ConsumerEntry) for entry in services.entries)


def _known(code: str, finding: Finding | Unknown) -> Finding:
    return not_checked(code, finding) if isinstance(finding, Unknown) else finding


def _creating(settings: Settings) -> str:
    return shlex.join(
        [
            "kafka-topics.sh", "--bootstrap-server", settings.kafka.bootstrap_servers, "--create",
            "--topic", settings.kafka.topic, "--partitions", "12",
        ]
    )  # fmt: skip
