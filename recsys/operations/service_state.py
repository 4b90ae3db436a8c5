"""Decides how the shop is served: facts → lines, each with its level and what to do.

`recsys status` and `/readyz` both ask here, so that they cannot contradict each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from typing import TypeVar

from recsys.operations.histories import MISSING
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
from recsys.operations.status_words import counted, duration, named, size
from recsys.redis.service_registry import ApiEntry, ConsumerEntry, FoundServices, TrainerEntry
from recsys.settings.status import StatusSettings
from recsys.storage.verified import VerifyRecord

T = TypeVar("T")
_TENFOLD = 10
_SILENT_S = 10.0
_TO_LOAD_S = 120.0
"""How long a consumer may take to load a model that has been published."""
_MOST_REASONS = 3
_WITHOUT_MODEL = ("failed", "rejected")
"""How a round ends that publishes nothing."""


class Level(IntEnum):
    """How bad it is; the worst one is the exit code of `recsys status`."""

    OK = 0
    WARNING = 1
    BROKEN = 2


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that can be well or not.

    Attributes
    ----------
    code : str
        Never changes.
    name : str
    level : Level
    text : str
        What is so.
    remedy : str
        What to look at or do, with the section of docs/operations.md; empty where all is well, or another line says it.
    """

    code: str
    name: str
    level: Level
    text: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class State:
    """All lines, and the worst level among them."""

    lines: Sequence[Line]

    @property
    def level(self) -> Level:
        """The worst level."""
        return max((line.level for line in self.lines), default=Level.OK)

    @property
    def sentence(self) -> str:
        """What an operator wants to know first."""
        broken = [line.name for line in self.lines if line.level is Level.BROKEN]
        warned = [line.name for line in self.lines if line.level is Level.WARNING]
        if broken:
            return f"Something is broken: {', '.join(broken)}."
        if warned:
            return f"The shop is served. Look at: {', '.join(warned)}."
        return "The shop is served."


def what_is_missing(*, redis: bool, histories: bool, model: bool, kafka: bool) -> list[str]:
    """Return what cannot be done without, as `/readyz` says it; `decide` has a broken line for each."""
    there = {"redis": redis, MISSING: histories, "model": model, "kafka": kafka}
    return [name for name, is_there in there.items() if not is_there]


def decide(facts: Facts, settings: StatusSettings, *, at: datetime) -> State:
    """Return the state of a shop.

    Parameters
    ----------
    facts : Facts
    settings : StatusSettings
        From when on something is worth a warning; ten times as much is broken.
    at : datetime
        When the facts were gathered.
    """
    return State(list(_Decider(facts, settings, at).lines()))


class _Decider:
    def __init__(self, facts: Facts, settings: StatusSettings, at: datetime) -> None:
        self._facts = facts
        self._settings = settings
        self._at = at

    def lines(self) -> Iterator[Line]:
        facts = self._facts
        yield self._kafka()
        yield self._redis()
        yield from self._known("services", "services", facts.services, self._services)
        yield from self._known("histories", "histories", facts.histories_missing, self._histories)
        yield from self._known("lag", "lag", facts.partitions, lambda found: [self._lag(found)])
        yield from self._known("latency", "event to list", facts.services, lambda found: [self._latency(found)])
        yield from self._known("model", "live model", facts.model, lambda model: [self._model(model)])
        yield from self._known("rounds", "rounds", facts.rounds, lambda found: [self._rounds(found)])
        yield from self._known(
            "dead-letters", "dead letters", facts.dead_letters, lambda found: [self._dead_letters(found)]
        )
        yield from self._known("lists", "lists", facts.lists, lambda found: [self._lists(found)])
        yield from self._known(
            "memory", "Redis memory", facts.redis, lambda found: [memory_line(found, self._settings)]
        )
        yield from self._known("eviction", "Redis eviction", facts.redis, lambda found: [eviction_line(found)])
        yield from self._known("persistence", "Redis on disk", facts.redis, lambda found: [persistence_line(found)])
        yield from self._known("archive", "archive", facts.archive, lambda found: [self._archive(found)])
        yield from self._known("disk", "disk", facts.disk, lambda found: [disk_line(found, self._settings)])
        yield from self._known("verify", "recsys verify", facts.verified, lambda found: [_verified(found)])

    def _known(self, code: str, name: str, fact: T | Unknown, tell: Callable[[T], Iterable[Line]]) -> Iterable[Line]:
        """Return what there is to tell of a fact, or that it is not known, and why."""
        if not isinstance(fact, Unknown):
            return tell(fact)
        for away, server in ((self._facts.kafka, "Kafka"), (self._facts.redis, "Redis")):
            if away == fact:  # the line of the server has the cause, says how bad that is, and what to do
                return [Line(code, name, Level.WARNING, f"not known: {server} cannot be asked")]
        return [Line(code, name, Level.WARNING, f"not known: {fact.cause}", "do what the line says, see Rights")]

    def _kafka(self) -> Line:
        if isinstance(self._facts.kafka, Unknown):
            return Line(
                "kafka", "Kafka", Level.BROKEN, self._facts.kafka.cause,
                "bring Kafka back: lists stay, new purchases wait; see Messages and what to do",
            )  # fmt: skip
        return Line("kafka", "Kafka", Level.OK, f"answers; {counted(self._facts.kafka, 'partition')}")

    def _redis(self) -> Line:
        if isinstance(self._facts.redis, Unknown):
            return Line(
                "redis", "Redis", Level.BROKEN, self._facts.redis.cause,
                "bring Redis back: apps get no lists; see Messages and what to do",
            )  # fmt: skip
        return Line("redis", "Redis", Level.OK, f"answers; {counted(len(self._facts.redis), 'server')}")

    def _services(self, found: FoundServices) -> Iterator[Line]:
        yield self._consumers([entry for entry in found.entries if isinstance(entry, ConsumerEntry)])
        yield self._trainer([entry for entry in found.entries if isinstance(entry, TrainerEntry)])
        yield self._api([entry for entry in found.entries if isinstance(entry, ApiEntry)])
        if found.damaged:
            yield Line(
                "registry",
                "service registry",
                Level.WARNING,
                named(found.damaged),
                "do what the line says, see Is the shop being served?",
            )

    def _consumers(self, entries: Sequence[ConsumerEntry]) -> Line:
        said = "consumers", "consumers"
        if not entries:
            text = "none runs: new purchases are not counted"
            return Line(*said, Level.BROKEN, text, "start python -m consumer, see Supervision")
        paused = [entry.host for entry in entries if entry.facts.paused]
        if paused:
            text = f"paused: {named(paused)}: waits for Redis or the dead-letter topic; nothing is dropped"
            return Line(*said, Level.BROKEN, text, "its log says what it waits for, see Messages and what to do")
        silent = [entry for entry in entries if entry.facts.kafka_silent_s > _SILENT_S]
        if silent:
            longest = max(entry.facts.kafka_silent_s for entry in silent)
            text = f"{named([entry.host for entry in silent])}: Kafka is silent for {duration(longest)}"
            return Line(*said, Level.BROKEN, text, "bring Kafka back, see Messages and what to do")
        behind = self._on_another_model(entries)
        if behind:
            text = f"not on the live model: {named(behind)}"
            return Line(*said, Level.WARNING, text, "look for model refused in its log, see Messages and what to do")
        rate = sum(entry.facts.records_per_s for entry in entries)
        return Line(*said, Level.OK, f"{counted(len(entries), 'consumer')}, {rate:,.1f} records/s in the last minute")

    def _on_another_model(self, entries: Sequence[ConsumerEntry]) -> list[str]:
        model = self._facts.model
        if not isinstance(model, ModelFacts) or (self._at - model.published_at).total_seconds() < _TO_LOAD_S:
            return []
        others = [entry for entry in entries if entry.facts.model != model.version]
        return [f"{entry.host} ({entry.facts.model or 'none'})" for entry in others]

    def _trainer(self, entries: Sequence[TrainerEntry]) -> Line:
        if not entries:
            text = "none runs: no new model, and users who are set aside stay so"
            return Line("trainer", "trainer", Level.WARNING, text, "start python -m trainer, see Models")
        return Line("trainer", "trainer", Level.OK, f"runs on {named([entry.host for entry in entries])}")

    def _api(self, entries: Sequence[ApiEntry]) -> Line:
        if not entries:
            return Line("api", "HTTP API", Level.OK, "none runs; apps that read Redis need none")
        missing = sorted({name for entry in entries for name in entry.facts.missing})
        text = counted(len(entries), "worker process", "worker processes")
        if missing:
            text += f"; not ready, missing: {', '.join(missing)}"
            return Line(
                "api", "HTTP API", Level.BROKEN, text, "bring back what is missing, see Messages and what to do"
            )
        return Line("api", "HTTP API", Level.OK, f"{text}, ready")

    def _histories(self, is_missing: bool) -> Iterator[Line]:
        if is_missing:
            text = "Redis was emptied, or is the wrong one: no model is made and no list is written"
            yield Line("histories", "histories", Level.BROKEN, text, "recsys rebuild, see Disaster recovery")
        else:
            yield Line("histories", "histories", Level.OK, "there")

    def _lag(self, partitions: Sequence[PartitionFacts]) -> Line:
        lag = sum(partition.lag for partition in partitions)
        if lost := [partition for partition in partitions if partition.lost]:
            count = sum(partition.lost for partition in lost)
            text = f"{counted(count, 'record')} expired in Kafka before they were applied"
            return Line(
                "lag", "lag", Level.BROKEN, text, "do what the consumer's log says, see Messages and what to do"
            )
        oldest_s = max((partition.oldest_s or 0.0 for partition in partitions), default=0.0)
        text = f"{counted(lag, 'record')} to apply" + (f", the oldest {duration(oldest_s)} old" if oldest_s else "")
        remedy = "start consumers, up to one for each partition; if they run, look at their logs, see Supervision"
        return _rising("lag", "lag", text, oldest_s, self._settings.lag_s, remedy)

    def _latency(self, found: FoundServices) -> Line:
        consumers = [entry.facts for entry in found.entries if isinstance(entry, ConsumerEntry)]
        p50 = max((facts.p50_ms for facts in consumers if facts.p50_ms is not None), default=None)
        p99 = max((facts.p99_ms for facts in consumers if facts.p99_ms is not None), default=None)
        if p50 is None or p99 is None:
            return Line("latency", "event to list", Level.OK, "no purchases in the last minute")
        text = f"p50 {duration(p50 / 1000)}, p99 {duration(p99 / 1000)} in the last minute"
        remedy = "look at the lag, then whether Redis or this machine is busy, see Is the shop being served?"
        return _rising("latency", "event to list", text, p99, self._settings.event_to_list_ms, remedy)

    def _model(self, model: ModelFacts | None) -> Line:
        said = "model", "live model"
        if model is None:
            text = "there is none: users get no lists of their own"
            return Line(*said, Level.BROKEN, text, "recsys retrain, or python -m trainer --once, see Models")
        age_h = max(0.0, (self._at - model.published_at).total_seconds() / 3600)
        events = "" if model.events is None else f", {counted(model.events, 'event')}"
        gate = f", {model.decision}" if model.decision else ""
        text = f"{model.version}, {duration(3600 * age_h)} old{events}{gate}"
        return _rising(*said, text, age_h, self._settings.model_age_h, "look at the rounds, see Models")

    def _rounds(self, rounds: Sequence[RoundFacts]) -> Line:
        services = self._facts.services
        entries = [] if isinstance(services, Unknown) else services.entries
        due = [entry.facts.next_round_at for entry in entries if isinstance(entry, TrainerEntry)]
        times = [at for at in due if at is not None]
        after = ""
        if times:
            left_s = (min(times) - self._at).total_seconds()
            after = f"; the next is due in {duration(left_s)}" if left_s > 1 else "; the next is due now"
        if not rounds:
            return Line("rounds", "rounds", Level.OK, f"none yet{after}")
        newest = rounds[0]
        text = f"{newest.finished_at[:16].replace('T', ' ')} {newest.outcome}"
        if newest.outcome in _WITHOUT_MODEL:
            is_again = len(rounds) > 1 and rounds[1].outcome in _WITHOUT_MODEL
            again = ", and the one before was no better" if is_again else ""
            text = f"{text}{again}: {newest.reason or 'no reason is noted'}{after}"
            section = "Rejected models" if newest.outcome == "rejected" else "Models"
            remedy = f"do what the line says, see {section}"
            return Line("rounds", "rounds", Level.BROKEN if is_again else Level.WARNING, text, remedy)
        return Line("rounds", "rounds", Level.OK, f"{text}{after}")

    def _dead_letters(self, found: DeadLetterFacts) -> Line:
        if not found.count:
            return Line("dead-letters", "dead letters", Level.OK, "none in the last hour")
        reasons = [f"{count:,} x {reason}" for reason, count in list(found.reasons.items())[:_MOST_REASONS]]
        text = f"{found.count:,} in the last hour"
        if found.looked_at < found.count:
            text += f"; of the newest {found.looked_at:,}"
        text += f": {'; '.join(reasons)}" if reasons else ""
        share = found.count / max(1, found.records, found.count)
        remedy = "repair the producer that the reasons tell of, see Messages and what to do"
        return _rising("dead-letters", "dead letters", text, share, self._settings.dead_letter_share, remedy)

    def _lists(self, found: ListFacts) -> Line:
        of = "all" if found.is_all else "some"
        text = (
            f"of {of} {counted(found.users, 'user')}: {found.personal:,} personal, {found.popular:,} popular, "
            f"{found.expired:,} expired"
        )
        share = found.expired / max(1, found.users)
        remedy = "a round writes them again: recsys retrain, see Models"
        return _rising("lists", "lists", text, share, self._settings.expired_share, remedy)

    def _archive(self, found: ArchiveFacts) -> Line:
        newest = "" if found.newest_event is None else f", newest event {found.newest_event:%Y-%m-%d %H:%M} UTC"
        text = f"{size(found.size_bytes)} in {counted(found.segments, 'segment')}{newest}"
        return Line("archive", "archive", Level.OK, text if found.segments else "empty")


def _rising(code: str, name: str, text: str, value: float, threshold: float, remedy: str) -> Line:
    level = Level.BROKEN if value > _TENFOLD * threshold else Level.WARNING if value > threshold else Level.OK
    return Line(code, name, level, text, remedy if level else "")


def _falling(code: str, name: str, text: str, left: float, threshold: float, remedy: str) -> Line:
    level = Level.BROKEN if left < threshold / _TENFOLD else Level.WARNING if left < threshold else Level.OK
    return Line(code, name, level, text, remedy if level else "")


def memory_line(servers: Sequence[RedisServerFacts], settings: StatusSettings) -> Line:
    """Say how much memory Redis has left."""
    known = [server for server in servers if server.limit]
    if not known:
        return Line("memory", "Redis memory", Level.OK, f"{size(sum(server.used for server in servers))} used")
    fullest = min(known, key=lambda server: _left(server.limit - server.used, server.limit))
    of = "maxmemory" if fullest.has_maxmemory else "the machine's"
    left = _left(fullest.limit - fullest.used, fullest.limit)
    text = f"{size(fullest.used)} of {of} {size(fullest.limit)} used, {left:.0%} left"
    remedy = "give Redis more memory, see Evicted keys"
    return _falling("memory", "Redis memory", text, left, settings.memory_headroom, remedy)


def disk_line(found: DiskFacts, settings: StatusSettings) -> Line:
    """Say how much of the disk of ``data_dir`` is free."""
    if not found.total:
        return Line("disk", "disk", Level.OK, "RECSYS_DATA_DIR is no local folder")
    left = _left(found.free, found.total)
    text = f"{size(found.free)} of {size(found.total)} free, {left:.0%}"
    remedy = "make room on the disk of RECSYS_DATA_DIR, see Is the shop being served?"
    return _falling("disk", "disk", text, left, settings.disk_free, remedy)


def eviction_line(servers: Sequence[RedisServerFacts]) -> Line:
    """Say whether Redis evicts keys, or may."""
    said = "eviction", "Redis eviction"
    remedy = "set maxmemory-policy noeviction and run recsys rebuild, see Evicted keys"
    policies = ", ".join(sorted({server.policy for server in servers}))
    if any(server.policy.startswith("allkeys") for server in servers):
        return Line(*said, Level.BROKEN, f"{policies}: may evict histories", remedy)
    evicted = sum(server.evicted for server in servers)
    if evicted or any(server.policy.startswith("volatile") for server in servers):
        return Line(*said, Level.WARNING, f"{policies}; {counted(evicted, 'key')} evicted", remedy)
    return Line(*said, Level.OK, f"{policies}; nothing is evicted")


def persistence_line(servers: Sequence[RedisServerFacts]) -> Line:
    """Say whether Redis can write what it keeps on disk."""
    said = "persistence", "Redis on disk"
    if problems := [
        f"{server.address}: {server.persistence_problem}" for server in servers if server.persistence_problem
    ]:
        remedy = "look at the log and the disk of Redis, see Is the shop being served?"
        return Line(*said, Level.BROKEN, named(problems), remedy)
    with_file = sum(server.append_only for server in servers)
    if with_file == len(servers):
        return Line(*said, Level.OK, "append-only file")
    return Line(*said, Level.OK, "no append-only file: after a restart the newest writes are read again, or rebuilt")


def _verified(found: VerifyRecord | None) -> Line:
    said = "verify", "recsys verify"
    if found is None:
        return Line(*said, Level.OK, "was not run yet")
    text = f"{found.at:%Y-%m-%d %H:%M} UTC: {counted(found.users, 'user')}, {counted(found.differences, 'difference')}"
    if found.differences:
        return Line(*said, Level.BROKEN, text, "recsys verify says which; then recsys rebuild, see Disaster recovery")
    return Line(*said, Level.OK, text)


def _left(left: int, total: int) -> float:
    return max(0.0, left / total)
