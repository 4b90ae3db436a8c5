"""What each fact means: every line at every level, with what to do; `/readyz` and `recsys status` say the same."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from recsys.operations.histories import MISSING
from recsys.operations.service_state import decide, what_is_missing
from recsys.operations.status_facts import (
    ArchiveFacts,
    DeadLetterFacts,
    DiskFacts,
    Facts,
    ListFacts,
    ModelFacts,
    PartitionFacts,
    RedisServerFacts,
    RoundFacts,
    Unknown,
)
from recsys.operations.status_line import Level, Line
from recsys.redis.service_registry import (
    ApiEntry,
    ApiFacts,
    ConsumerEntry,
    ConsumerFacts,
    Ending,
    FoundServices,
    TrainerEntry,
    TrainerFacts,
)
from recsys.settings.status import StatusSettings
from recsys.storage.verified import VerifyRecord

AT = datetime(2026, 11, 22, 10, 15, tzinfo=UTC)
GIB = 2**30
ABOUT: dict[str, Any] = {"host": "shop-1", "pid": 7, "version": "0.1.0", "since": AT, "at": AT}
VERSION = "20261122T101500Z-1a2b3c"
SERVER = RedisServerFacts(
    address="redis:6379", used=GIB, limit=4 * GIB, has_maxmemory=True, policy="noeviction", evicted=0, append_only=True
)


def consumer(**facts: Any) -> ConsumerEntry:
    told = {"partitions": {0: 1.0}, "p50_ms": 20.0, "p99_ms": 80.0, "model": VERSION, **facts}
    return ConsumerEntry(kind="consumer", facts=ConsumerFacts(**told), **ABOUT)


def services(
    *consumers: ConsumerEntry,
    trainer: TrainerFacts | bool = True,
    api: ApiFacts | None = None,
    damaged: tuple[str, ...] = (),
    ended_kind: Any = None,
) -> FoundServices:
    entries: list[Any] = list(consumers)
    if trainer:
        due = TrainerFacts(next_round_at=AT + timedelta(minutes=45)) if trainer is True else trainer
        entries.append(TrainerEntry(kind="trainer", facts=due, **ABOUT))
    if api is not None:
        entries.append(ApiEntry(kind="api", facts=api, **ABOUT))
    why = "501 of the newest 1,000 records are malformed"
    endings = [Ending(kind=ended_kind, host="shop-1", at=AT, why=why)] if ended_kind else []
    return FoundServices(entries, damaged, endings)


def partition(**changed: Any) -> list[PartitionFacts]:
    return [PartitionFacts(**{"partition": 0, "applied": 90, "first": 10, "end": 100, **changed})]


def model(age_h: float) -> ModelFacts:
    return ModelFacts(VERSION, AT - timedelta(hours=age_h), AT - timedelta(hours=age_h), 12_345, "passed")


def ended(*outcomes: str) -> list[RoundFacts]:
    return [RoundFacts("2026-11-22T09:58:12.123Z", outcome, "the reason") for outcome in outcomes]


def letters(count: int) -> DeadLetterFacts:
    return DeadLetterFacts(count, 1_000, min(count, 5), {"the record is empty": count})


WELL = Facts(
    kafka=4,
    redis=[SERVER],
    services=services(consumer(), api=ApiFacts(model=VERSION)),
    histories_missing=False,
    partitions=partition(),
    dead_letters=letters(0),
    model=model(1),
    rounds=ended("passed"),
    lists=ListFacts(users=100, is_all=True, personal=90, expired=0),
    verified=None,
    archive=ArchiveFacts(12, 5 * 2**20, AT),
    disk=DiskFacts(50 * GIB, 100 * GIB),
)
FACTS = [field.name for field in fields(Facts) if field.name not in ("kafka", "redis")]
"""Those that may be unknown by themselves."""
CAUSE = Unknown("no READ right for User:operator on topic purchases.dlq")

CASES: list[tuple[str, Mapping[str, Any], Level, str]] = [
    ("kafka", {"kafka": Unknown("Kafka at k:9092 is away")}, Level.BROKEN, "Kafka at k:9092 is away"),
    ("kafka", {}, Level.OK, "4 partitions"),
    ("redis", {"redis": Unknown("Redis at r:6379 is away")}, Level.BROKEN, "Redis at r:6379 is away"),
    ("redis", {}, Level.OK, "1 server"),
    ("consumers", {"services": services()}, Level.BROKEN, "none runs"),
    (
        "consumers",
        {"services": services(ended_kind="consumer")},
        Level.BROKEN,
        "none runs; the last one ended at 10:15 UTC: 501 of the newest 1,000 records are malformed",
    ),
    ("consumers", {"services": services(ended_kind="trainer")}, Level.BROKEN, "none runs: new purchases"),
    ("trainer", {"services": services(ended_kind="trainer", trainer=False)}, Level.WARNING, "none runs; the last one"),
    ("consumers", {"services": services(consumer(), ended_kind="consumer")}, Level.OK, "1 consumer"),
    ("consumers", {"services": services(consumer(paused=True))}, Level.BROKEN, "paused: shop-1"),
    (
        "consumers",
        {"services": services(consumer(), consumer(waiting_for="topic purchases is missing", paused=True))},
        Level.BROKEN,
        "shop-1 waits: topic purchases is missing",
    ),
    ("consumers", {"services": services(consumer(kafka_silent_s=30.0))}, Level.BROKEN, "silent for 30 s"),
    ("consumers", {"services": services(consumer(model="older"))}, Level.WARNING, "shop-1 (older)"),
    ("consumers", {"services": services(consumer(model=""))}, Level.WARNING, "shop-1 (none)"),
    ("consumers", {"services": services(consumer(model="older")), "model": model(0.01)}, Level.OK, "1 consumer"),
    ("consumers", {"services": services(consumer(), consumer(records_per_s=2.0))}, Level.OK, "2 consumers, 2.0 re"),
    ("trainer", {"services": services(consumer(), trainer=False)}, Level.WARNING, "none runs"),
    (
        "trainer",
        {"services": services(trainer=TrainerFacts(waiting_for="no folder"))},
        Level.WARNING,
        "shop-1 waits: no folder",
    ),
    ("trainer", {}, Level.OK, "shop-1"),
    ("api", {"services": services(consumer())}, Level.OK, "none runs"),
    ("api", {"services": services(api=ApiFacts(missing=["kafka"]))}, Level.BROKEN, "missing: kafka"),
    ("api", {"services": services(api=ApiFacts(missing=[MISSING]))}, Level.BROKEN, "not ready, missing: histories"),
    ("api", {}, Level.OK, "1 worker process, ready"),
    ("registry", {"services": services(damaged=("the key is damaged",))}, Level.WARNING, "the key is damaged"),
    ("histories", {"histories_missing": True}, Level.BROKEN, "Redis was emptied"),
    ("histories", {}, Level.OK, "there"),
    ("lag", {"partitions": partition(oldest_s=59.0)}, Level.OK, "10 records to apply, the oldest 59 s old"),
    ("lag", {"partitions": partition(oldest_s=61.0)}, Level.WARNING, "the oldest 61 s old"),
    ("lag", {"partitions": partition(oldest_s=601.0)}, Level.BROKEN, "the oldest 10 min old"),
    ("lag", {"partitions": partition(applied=5)}, Level.BROKEN, "5 records expired"),
    ("lag", {"partitions": partition(applied=None)}, Level.OK, "90 records to apply"),
    (
        "latency",
        {"services": services(consumer(p50_ms=None, p99_ms=None)), "partitions": partition(applied=100)},
        Level.OK,
        "no purchases in the last 15 s",
    ),
    (
        "latency",
        {"services": services(consumer(p50_ms=None, p99_ms=None)), "partitions": partition(oldest_s=0.5)},
        Level.OK,
        "no list in the last 15 s, although the oldest of 10 records to apply is 500 ms old",
    ),
    (
        "latency",
        {"services": services(consumer(p50_ms=None, p99_ms=None)), "partitions": partition(oldest_s=5.0)},
        Level.WARNING,
        "no list in the last 15 s, although the oldest of 10 records to apply is 5 s old",
    ),
    ("latency", {"services": services(), "partitions": partition(oldest_s=11.0)}, Level.BROKEN, "is 11 s old"),
    (
        "latency",
        {"services": services(consumer(), consumer(without_lists_s=5.0, p50_ms=None, p99_ms=None))},
        Level.WARNING,
        "no list is written for 5 s, although purchases are read",
    ),
    ("latency", {"services": services(consumer(without_lists_s=60.0))}, Level.BROKEN, "no list is written for 60 s"),
    (
        "latency",
        {"services": services(consumer(p99_ms=62_000.0, longest_ms=62_000.0))},
        Level.BROKEN,
        "p50 20 ms, p99 over 62 s in the last 15 s",
    ),
    ("latency", {"services": services(consumer(p99_ms=999.0), consumer())}, Level.OK, "p50 20 ms, p99 999 ms"),
    ("latency", {"services": services(consumer(), consumer(p99_ms=1_001.0))}, Level.WARNING, "p99 1 s"),
    ("latency", {"services": services(consumer(p99_ms=10_001.0))}, Level.BROKEN, "p99 10 s"),
    ("model", {"model": None}, Level.BROKEN, "there is none"),
    ("model", {"model": model(47)}, Level.OK, f"{VERSION}, 47 h old, 12,345 events, passed"),
    ("model", {"model": model(49)}, Level.WARNING, "2 d old"),
    ("model", {"model": model(481)}, Level.BROKEN, "20 d old"),
    ("model", {"model": replace(model(481), published_at=AT)}, Level.BROKEN, "20 d old"),
    ("rounds", {"rounds": []}, Level.OK, "none yet; the next is due in 45 min"),
    ("rounds", {"rounds": ended("passed")}, Level.OK, "2026-11-22 09:58 passed; the next is due in 45 min"),
    ("rounds", {"rounds": ended("rejected")}, Level.WARNING, "rejected: the reason"),
    ("rounds", {"rounds": ended("failed")}, Level.WARNING, "failed: the reason"),
    ("rounds", {"rounds": ended("failed", "passed")}, Level.WARNING, "failed: the reason"),
    (
        "rounds",
        {"rounds": ended("rejected", "failed")},
        Level.BROKEN,
        "rejected, and the one before was no better: the",
    ),
    ("dead-letters", {}, Level.OK, "none in the last hour"),
    ("dead-letters", {"dead_letters": letters(5)}, Level.OK, "5 in the last hour: 5 x the record is empty"),
    ("dead-letters", {"dead_letters": letters(11)}, Level.WARNING, "11 in the last hour; of the newest 5: 11 x"),
    ("dead-letters", {"dead_letters": letters(101)}, Level.BROKEN, "101 in the last hour"),
    ("lists", {}, Level.OK, "of all 100 users: 90 personal, 10 popular, 0 expired"),
    ("lists", {"lists": ListFacts(100, False, 94, 6)}, Level.WARNING, "of some 100 users"),
    ("lists", {"lists": ListFacts(100, True, 49, 51)}, Level.BROKEN, "51 expired"),
    ("lists", {"lists": ListFacts(0, True, 0, 0)}, Level.OK, "of all 0 users"),
    ("memory", {}, Level.OK, "1.0 GiB of maxmemory 4.0 GiB used, 75% left"),
    ("memory", {"redis": [SERVER, replace(SERVER, used=int(3.3 * GIB))]}, Level.WARNING, "3.3 GiB"),
    ("memory", {"redis": [replace(SERVER, used=4 * GIB)]}, Level.BROKEN, "0% left"),
    ("memory", {"redis": [replace(SERVER, has_maxmemory=False)]}, Level.OK, "of the machine's 4.0 GiB"),
    ("memory", {"redis": [replace(SERVER, limit=0)]}, Level.OK, "1.0 GiB used"),
    ("eviction", {}, Level.OK, "noeviction"),
    ("eviction", {"redis": [SERVER, replace(SERVER, policy="volatile-lru")]}, Level.WARNING, "volatile-lru"),
    ("eviction", {"redis": [replace(SERVER, evicted=3)]}, Level.WARNING, "3 keys evicted"),
    ("eviction", {"redis": [replace(SERVER, policy="allkeys-lru")]}, Level.BROKEN, "may evict histories"),
    ("persistence", {}, Level.OK, "append-only file"),
    ("persistence", {"redis": [replace(SERVER, append_only=False)]}, Level.OK, "no append-only file"),
    ("persistence", {"redis": [replace(SERVER, persistence_problem="no")]}, Level.BROKEN, "redis:6379: no"),
    ("archive", {}, Level.OK, "5.0 MiB in 12 segments, newest event 2026-11-22 10:15 UTC"),
    ("archive", {"archive": ArchiveFacts(0, 0, None)}, Level.OK, "empty"),
    ("disk", {}, Level.OK, "50.0 GiB of 100.0 GiB free, 50%"),
    ("disk", {"disk": DiskFacts(9 * GIB, 100 * GIB)}, Level.WARNING, "9%"),
    ("disk", {"disk": DiskFacts(GIB // 2, 100 * GIB)}, Level.BROKEN, "512.0 MiB"),
    ("disk", {"disk": DiskFacts(0, 0)}, Level.OK, "no local folder"),
    ("verify", {"verified": VerifyRecord(at=AT, users=1_000, differences=0)}, Level.OK, "1,000 users, 0 differences"),
    ("verify", {"verified": VerifyRecord(at=AT, users=1, differences=2)}, Level.BROKEN, "1 user, 2 differences"),
    ("checks", {}, Level.OK, "services found nothing wrong"),
    ("checks", {"services": services(trainer=False)}, Level.OK, "no consumer or trainer runs"),
    ("checks", {"services": services(consumer(checks={"redis-memory": "broken"}))}, Level.OK, "nothing wrong"),
    (
        "checks",
        {"services": services(consumer(checks={"tls-expiry": "warning"}))},
        Level.WARNING,
        "tls-expiry (warning)",
    ),
    (
        "checks",
        {
            "services": services(
                consumer(checks={"names": "warning", "topic-compacted": "warning"}),
                trainer=TrainerFacts(checks={"topic-compacted": "broken"}),
            )
        },
        Level.BROKEN,
        "topic-compacted (broken), names (warning)",
    ),
]


def lines(**changed: Any) -> dict[str, Line]:
    return {line.code: line for line in decide(replace(WELL, **changed), StatusSettings(), at=AT).lines}


@pytest.mark.parametrize(("code", "changed", "level", "words"), CASES)
def test_each_line_at_each_level(code: str, changed: Mapping[str, Any], level: Level, words: str) -> None:
    line = lines(**changed)[code]
    assert line.level is level
    assert words in line.text
    assert bool(line.remedy) == (level is not Level.OK)


def test_what_follows_from_an_emptied_redis_is_mended_as_that_is() -> None:
    nothing = consumer(p50_ms=None, p99_ms=None, waiting_for="Redis was emptied")
    found = lines(
        histories_missing=True,
        services=services(nothing, api=ApiFacts(missing=["model", MISSING])),
        partitions=partition(oldest_s=1_000.0),
        model=None,
        rounds=ended("failed"),
    )
    wrong = {code: line.remedy for code, line in found.items() if line.level}
    assert found["api"].text == "1 worker process; not ready, missing: histories, model"
    others = wrong.pop("rounds")
    assert wrong == dict.fromkeys(
        ["consumers", "api", "histories", "lag", "latency", "model"], "recsys rebuild, see Disaster recovery"
    )
    assert others != found["histories"].remedy
    without_consumers = lines(histories_missing=True, services=services())
    assert without_consumers["consumers"].remedy.startswith("start python -m consumer")


def test_every_line_is_well_in_a_shop_that_is_served() -> None:
    state = decide(WELL, StatusSettings(), at=AT)
    assert {line.code for line in state.lines if line.level is not Level.OK} == set()
    assert state.level is Level.OK
    assert state.sentence == "The shop is served."


def test_the_worst_line_counts() -> None:
    warned = replace(WELL, rounds=ended("rejected"))
    assert decide(warned, StatusSettings(), at=AT).level is Level.WARNING
    assert decide(warned, StatusSettings(), at=AT).sentence == "The shop is served. Look at: rounds."
    broken = replace(warned, services=services())
    assert decide(broken, StatusSettings(), at=AT).level is Level.BROKEN
    assert decide(broken, StatusSettings(), at=AT).sentence == "Something is broken: consumers. Warnings: rounds."


@pytest.mark.parametrize("fact", FACTS)
def test_a_fact_that_is_not_known_is_a_line_with_its_cause_and_nothing_else_changes(fact: str) -> None:
    found, before = lines(**{fact: CAUSE}), lines()
    unknown = {code for code, line in found.items() if CAUSE.cause in line.text}
    assert unknown
    assert all(found[code].level is Level.WARNING and found[code].remedy for code in unknown)
    gone = {"consumers", "trainer", "api"} if fact == "services" else set()
    changed = {code for code in before if code not in unknown | gone and found[code].level is not before[code].level}
    assert changed == set()


def test_what_a_server_that_is_away_would_tell_is_not_known_and_the_cause_is_said_once() -> None:
    away = Unknown("Redis at r:6379 is away")
    of_redis = ["services", "histories_missing", "partitions", "model", "lists"]
    found = lines(redis=away, **dict.fromkeys(of_redis, away))
    assert [code for code, line in found.items() if away.cause in line.text] == ["redis"]
    assert found["lag"].text == "not known: Redis cannot be asked"


@pytest.mark.parametrize("there", list(itertools.product([True, False], repeat=4)))
def test_what_readyz_misses_is_broken_and_what_it_does_not_miss_is_not(there: tuple[bool, ...]) -> None:
    redis, histories, has_model, kafka = there
    missing = what_is_missing(redis=redis, histories=histories, model=has_model, kafka=kafka)
    found = lines(
        redis=WELL.redis if redis else Unknown("away"),
        histories_missing=not histories,
        model=WELL.model if has_model else None,
        kafka=WELL.kafka if kafka else Unknown("gone"),
    )
    codes = {"redis": "redis", MISSING: "histories", "model": "model", "kafka": "kafka"}
    broken = {name for name, code in codes.items() if found[code].level is Level.BROKEN}
    assert broken == set(missing)


def test_thresholds_are_settings() -> None:
    strict = StatusSettings(
        lag_s=1, event_to_list_ms=1, model_age_h=0.5, expired_share=0.01, dead_letter_share=0.001, memory_headroom=0.9,
        disk_free=0.9,
    )  # fmt: skip
    facts = replace(WELL, partitions=partition(oldest_s=2), lists=ListFacts(100, True, 98, 2), dead_letters=letters(5))
    changed = {line.code for line in decide(facts, strict, at=AT).lines if line.level is not Level.OK}
    assert changed == {"lag", "latency", "model", "lists", "dead-letters", "memory", "disk"}
    assert decide(facts, StatusSettings(), at=AT).level is Level.OK


OPERATIONS = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()


def test_the_document_has_a_row_for_every_line_that_can_be_yellow_or_red() -> None:
    section = OPERATIONS.split("## Is the shop being served?")[1].split("\n## ")[0]
    documented = set(re.findall(r"^\| ([^|`]+) `([\w-]+)` \|", section.split("`--json` prints")[0], flags=re.MULTILINE))
    wrong = [lines(**changed)[code] for code, changed, level, _ in CASES if level]
    unknown = [line for name in FACTS for line in lines(**{name: CAUSE}).values() if CAUSE.cause in line.text]
    assert documented == {(line.name, line.code) for line in [*wrong, *unknown]}, "as the screen names it, and the code"


@pytest.mark.parametrize(("code", "changed"), [(code, changed) for code, changed, level, _ in CASES if level])
def test_a_remedy_names_a_section_that_there_is(code: str, changed: Mapping[str, Any]) -> None:
    section = lines(**changed)[code].remedy.rpartition("see ")[2]
    assert section in re.findall(r"^##+ (.*)$", OPERATIONS, flags=re.MULTILINE)
