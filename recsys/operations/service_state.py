"""Decides how the shop is served: facts → lines, each with its level and what to do.

`recsys status`, `/readyz` and the alerts all ask here, so that they cannot contradict each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TypeVar

from recsys.operations.data_lines import (
    REBUILD,
    archive_line,
    dead_letters_line,
    histories_line,
    lag_line,
    lists_line,
    model_line,
    rounds_line,
    verified_line,
)
from recsys.operations.histories import MISSING
from recsys.operations.server_lines import disk_line, eviction_line, memory_line, persistence_line
from recsys.operations.service_lines import (
    api_line,
    checks_line,
    consumers_line,
    latency_line,
    registry_line,
    trainer_line,
)
from recsys.operations.status_facts import Facts, RoundFacts, Unknown
from recsys.operations.status_line import Level, Line, State
from recsys.operations.status_words import counted
from recsys.redis.service_registry import ApiEntry, ConsumerEntry, FoundServices, TrainerEntry
from recsys.settings.status import StatusSettings

T = TypeVar("T")


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
    lines = list(_Decider(facts, settings, at).lines())
    return State([_rebuilt(line, facts) for line in lines] if facts.histories_missing is True else lines)


def _rebuilt(line: Line, facts: Facts) -> Line:
    """Return a line of an emptied Redis: what follows from that is mended as that is."""
    found = facts.services
    waits = not isinstance(found, Unknown) and any(entry.facts.waiting_for for entry in _consumers(found))
    follows = {"lag", "latency", "model", "lists", *(["consumers"] if waits else [])}
    return replace(line, remedy=REBUILD) if line.level and line.code in follows else line


class _Decider:
    def __init__(self, facts: Facts, settings: StatusSettings, at: datetime) -> None:
        self._facts = facts
        self._settings = settings
        self._at = at

    def lines(self) -> Iterator[Line]:
        facts, settings, at = self._facts, self._settings, self._at
        yield self._kafka()
        yield self._redis()
        yield from self._services("services", "services", self._of_services)
        yield from self._known("histories", "histories", facts.histories_missing, histories_line)
        yield from self._known("lag", "lag", facts.partitions, lambda found: lag_line(found, settings))
        yield from self._services("latency", "event to list", lambda found: [self._latency(found)])
        yield from self._known("model", "live model", facts.model, lambda model: model_line(model, settings, at))
        yield from self._known("rounds", "rounds", facts.rounds, self._rounds)
        yield from self._known(
            "dead-letters", "dead letters", facts.dead_letters, lambda found: dead_letters_line(found, settings)
        )
        yield from self._known("lists", "lists", facts.lists, lambda found: lists_line(found, settings))
        yield from self._known("memory", "Redis memory", facts.redis, lambda found: memory_line(found, settings))
        yield from self._known("eviction", "Redis eviction", facts.redis, eviction_line)
        yield from self._known("persistence", "Redis on disk", facts.redis, persistence_line)
        yield from self._known("archive", "archive", facts.archive, archive_line)
        yield from self._known("disk", "disk", facts.disk, lambda found: disk_line(found, settings))
        yield from self._known("verify", "recsys verify", facts.verified, verified_line)
        yield from self._services(
            "checks", "checks", lambda found: [checks_line([*_consumers(found), *_trainers(found)])]
        )

    def _known(self, code: str, name: str, fact: T | Unknown, tell: Callable[[T], Line]) -> Iterable[Line]:
        """Return what there is to tell of a fact, or that it is not known, and why."""
        return [self._unknown(code, name, fact) if isinstance(fact, Unknown) else tell(fact)]

    def _services(self, code: str, name: str, tell: Callable[[FoundServices], Iterable[Line]]) -> Iterable[Line]:
        found = self._facts.services
        return [self._unknown(code, name, found)] if isinstance(found, Unknown) else tell(found)

    def _unknown(self, code: str, name: str, fact: Unknown) -> Line:
        for away, server in ((self._facts.kafka, "Kafka"), (self._facts.redis, "Redis")):
            if away == fact:  # the line of the server has the cause, says how bad that is, and what to do
                return Line(code, name, Level.WARNING, f"not known: {server} cannot be asked")
        return Line(code, name, Level.WARNING, f"not known: {fact.cause}", "do what the line says, see Rights")

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

    def _of_services(self, found: FoundServices) -> Iterator[Line]:
        yield consumers_line(_consumers(found), found.endings, self._facts.model, self._at)
        yield trainer_line(_trainers(found), found.endings)
        yield api_line([entry for entry in found.entries if isinstance(entry, ApiEntry)])
        if found.damaged:
            yield registry_line(found.damaged)

    def _latency(self, found: FoundServices) -> Line:
        partitions = self._facts.partitions
        return latency_line(_consumers(found), [] if isinstance(partitions, Unknown) else partitions, self._settings)

    def _rounds(self, rounds: Sequence[RoundFacts]) -> Line:
        found = self._facts.services
        trainers = [] if isinstance(found, Unknown) else _trainers(found)
        due = [at for entry in trainers if (at := entry.facts.next_round_at) is not None]
        return rounds_line(rounds, due, self._at)


def _consumers(found: FoundServices) -> list[ConsumerEntry]:
    return [entry for entry in found.entries if isinstance(entry, ConsumerEntry)]


def _trainers(found: FoundServices) -> list[TrainerEntry]:
    return [entry for entry in found.entries if isinstance(entry, TrainerEntry)]
