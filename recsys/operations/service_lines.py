"""The lines of `recsys status` about services, as these tell of themselves in Redis."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from recsys.operations.data_lines import REBUILD
from recsys.operations.histories import MISSING
from recsys.operations.status_facts import ModelFacts, PartitionFacts, Unknown
from recsys.operations.status_line import Level, Line, rising
from recsys.operations.status_words import counted, duration, named
from recsys.redis.service_registry import ApiEntry, ConsumerEntry, Ending, TrainerEntry
from recsys.settings.status import StatusSettings

_SILENT_S = 10.0
_DECIDED_HERE = {
    "kafka", "redis", "redis-memory", "redis-eviction", "redis-persistence", "data-dir-space", "registry",
}  # fmt: skip
"""Codes of `recsys doctor` of which another line tells, sooner."""
_TO_LOAD_S = 120.0
"""How long a consumer may take to load a model that has been published."""


def consumers_line(
    entries: Sequence[ConsumerEntry], endings: Sequence[Ending], model: ModelFacts | Unknown | None, at: datetime
) -> Line:
    """Say whether consumers count what comes."""
    said = "consumers", "consumers"
    if not entries:
        if ended := _ended("consumer", endings):
            remedy = "do what the line names, then start python -m consumer, see Supervision"
            return Line(*said, Level.BROKEN, f"none runs; {ended}", remedy)
        text = "none runs: new purchases are not counted"
        return Line(*said, Level.BROKEN, text, "start python -m consumer, see Supervision")
    if waiting := _waiting(entries):
        text = f"{waiting}: new purchases are not counted"
        return Line(*said, Level.BROKEN, text, "bring back what the line names, see Messages and what to do")
    paused = [entry.host for entry in entries if entry.facts.paused]
    if paused:
        text = f"paused: {named(paused)}: waits for Redis or the dead-letter topic; nothing is dropped"
        return Line(*said, Level.BROKEN, text, "its log says what it waits for, see Messages and what to do")
    silent = [entry for entry in entries if entry.facts.kafka_silent_s > _SILENT_S]
    if silent:
        longest = max(entry.facts.kafka_silent_s for entry in silent)
        text = f"{named([entry.host for entry in silent])}: Kafka is silent for {duration(longest)}"
        return Line(*said, Level.BROKEN, text, "bring Kafka back, see Messages and what to do")
    behind = _on_another_model(entries, model, at)
    if behind:
        text = f"not on the live model: {named(behind)}"
        return Line(*said, Level.WARNING, text, "look for model refused in its log, see Messages and what to do")
    rate = sum(entry.facts.records_per_s for entry in entries)
    return Line(*said, Level.OK, f"{counted(len(entries), 'consumer')}, {rate:,.1f} records/s in the last minute")


def _waiting(entries: Sequence[ConsumerEntry] | Sequence[TrainerEntry]) -> str:
    """Say for what services wait before they serve; empty where none does."""
    waiting = [f"{entry.host} waits: {entry.facts.waiting_for}" for entry in entries if entry.facts.waiting_for]
    return named(waiting)


def _ended(kind: str, endings: Sequence[Ending]) -> str:
    """Say why the last service of a kind ended by itself; empty where that is not known."""
    of_kind = [ending for ending in endings if ending.kind == kind]
    return f"the last one ended at {of_kind[0].at.astimezone(UTC):%H:%M} UTC: {of_kind[0].why}" if of_kind else ""


def _on_another_model(entries: Sequence[ConsumerEntry], model: ModelFacts | Unknown | None, at: datetime) -> list[str]:
    if not isinstance(model, ModelFacts) or (at - model.published_at).total_seconds() < _TO_LOAD_S:
        return []
    others = [entry for entry in entries if entry.facts.model != model.version]
    return [f"{entry.host} ({entry.facts.model or 'none'})" for entry in others]


def trainer_line(entries: Sequence[TrainerEntry], endings: Sequence[Ending]) -> Line:
    """Say whether a trainer runs."""
    if not entries:
        if ended := _ended("trainer", endings):
            remedy = "do what the line names, then start python -m trainer, see Supervision"
            return Line("trainer", "trainer", Level.WARNING, f"none runs; {ended}", remedy)
        text = "none runs: no new model, and users who are set aside stay so"
        return Line("trainer", "trainer", Level.WARNING, text, "start python -m trainer, see Models")
    if waiting := _waiting(entries):
        return Line("trainer", "trainer", Level.WARNING, waiting, "bring back what the line names, see Models")
    return Line("trainer", "trainer", Level.OK, f"runs on {named([entry.host for entry in entries])}")


def api_line(entries: Sequence[ApiEntry]) -> Line:
    """Say whether all worker processes of the HTTP API are ready."""
    if not entries:
        return Line("api", "HTTP API", Level.OK, "none runs; apps that read Redis need none")
    missing = sorted({name for entry in entries for name in entry.facts.missing})
    text = counted(len(entries), "worker process", "worker processes")
    if missing:
        names = ["histories" if name == MISSING else name for name in missing]
        remedy = REBUILD if MISSING in missing else "bring back what is missing, see Messages and what to do"
        return Line("api", "HTTP API", Level.BROKEN, f"{text}; not ready, missing: {', '.join(names)}", remedy)
    return Line("api", "HTTP API", Level.OK, f"{text}, ready")


def latency_line(
    entries: Sequence[ConsumerEntry], partitions: Sequence[PartitionFacts], settings: StatusSettings
) -> Line:
    """Say how long after a purchase the lists come, or that none come."""
    said, threshold = ("latency", "event to list"), settings.event_to_list_ms
    facts = [entry.facts for entry in entries]
    if without_s := max((one.without_lists_s for one in facts), default=0.0):
        text = f"no list is written for {duration(without_s)}, although purchases are read"
        remedy = "look at the live model, and for model refused in the consumers' logs, see Messages and what to do"
        return rising(*said, text, 1000 * without_s, threshold, remedy)
    p50 = max((one.p50_ms for one in facts if one.p50_ms is not None), default=None)
    p99 = max((one.p99_ms for one in facts if one.p99_ms is not None), default=None)
    if p50 is not None and p99 is not None:
        longest = max((one.longest_ms for one in facts if one.longest_ms is not None), default=float("inf"))
        text = f"p50 {_told_ms(p50, longest)}, p99 {_told_ms(p99, longest)} in the last 15 s"
        remedy = "look at the lag, then whether Redis or this machine is busy, see Is the shop being served?"
        return rising(*said, text, p99, threshold, remedy)
    waiting = sum(partition.lag for partition in partitions)
    oldest_s = max((partition.oldest_s or 0.0 for partition in partitions), default=0.0)
    if waiting and oldest_s:  # their lists will have taken at least as long
        which = f"the oldest of {counted(waiting, 'record')} to apply is {duration(oldest_s)} old"
        text = f"no list in the last 15 s, although {which}"
        remedy = "look at the consumers and their logs, see Is the shop being served?"
        return rising(*said, text, 1000 * oldest_s, threshold, remedy)
    return Line(*said, Level.OK, "no purchases in the last 15 s")


def _told_ms(value: float, longest: float) -> str:
    return f"over {duration(longest / 1000)}" if value >= longest else duration(value / 1000)


def registry_line(damaged: Sequence[str]) -> Line:
    """Say what in the registry no service has written."""
    remedy = "do what the line says, see Is the shop being served?"
    return Line("registry", "service registry", Level.WARNING, named(damaged), remedy)


def checks_line(entries: Sequence[ConsumerEntry | TrainerEntry]) -> Line:
    """Say what services find wrong by the checks of `recsys doctor`, but for what another line decides at once."""
    said = "checks", "checks"
    if not entries:
        return Line(*said, Level.OK, "no consumer or trainer runs that makes them")
    found: dict[str, Level] = {}
    for entry in entries:
        for code, level in entry.facts.checks.items():
            if code not in _DECIDED_HERE:
                found[code] = max(found.get(code, Level.OK), Level[level.upper()])
    if not found:
        return Line(*said, Level.OK, "services found nothing wrong")
    worst_first = sorted(found, key=lambda code: (-found[code], code))
    text = named([f"{code} ({found[code].name.lower()})" for code in worst_first])
    return Line(*said, max(found.values()), text, "recsys doctor, see What is wrong, or will be")
