"""What is known of a running shop: facts, and why those that could not be had are not known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from recsys.redis.service_registry import FoundServices
from recsys.storage.verified import VerifyRecord

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Unknown:
    """A fact that could not be had."""

    cause: str


@dataclass(frozen=True, slots=True)
class PartitionFacts:
    """How far one partition is applied.

    Attributes
    ----------
    applied : int or None
        The next offset to be applied, as Redis says; None = nothing is applied yet.
    first, end : int
        The oldest offset still in Kafka, and the next one to be written.
    oldest_s : float or None
        Age of the oldest record that is not applied; None = there is none.
    """

    partition: int
    applied: int | None
    first: int
    end: int
    oldest_s: float | None = None

    @property
    def lag(self) -> int:
        """Offsets still to be applied."""
        return max(0, self.end - max(self.first, self.applied or 0))

    @property
    def lost(self) -> int:
        """Offsets that expired before they were applied."""
        return 0 if self.applied is None else max(0, self.first - self.applied)


@dataclass(frozen=True, slots=True)
class DeadLetterFacts:
    """Dead letters of the last hour.

    Attributes
    ----------
    count : int
    records : int
        Records of the source in the same hour.
    looked_at : int
        The newest of them, whose reasons were read.
    reasons : mapping of str → int
        By kind, the commonest first.
    """

    count: int
    records: int
    looked_at: int
    reasons: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class RedisServerFacts:
    """One Redis server that takes writes; sizes in bytes."""

    address: str
    used: int
    limit: int
    """Its maxmemory, else the memory of its machine; 0 = not known."""
    has_maxmemory: bool
    policy: str
    evicted: int
    append_only: bool
    persistence_problem: str = ""


def redis_server_facts(address: str, info: Mapping[str, Any]) -> RedisServerFacts:
    """Return the facts of a server from what it tells of itself (INFO)."""
    maxmemory = int(info.get("maxmemory", 0))
    problems = {
        "rdb_last_bgsave_status": "the last snapshot failed",
        "aof_last_write_status": "the append-only file cannot be written",
    }
    return RedisServerFacts(
        address=address,
        used=int(info.get("used_memory", 0)),
        limit=maxmemory or int(info.get("total_system_memory", 0)),
        has_maxmemory=maxmemory > 0,
        policy=str(info.get("maxmemory_policy", "")),
        evicted=int(info.get("evicted_keys", 0)),
        append_only=bool(info.get("aof_enabled", 0)),
        persistence_problem="; ".join(said for name, said in problems.items() if info.get(name, "ok") != "ok"),
    )


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """The live model."""

    version: str
    published_at: datetime
    made_at: datetime
    """A rollback or a rebuild publishes a model that was made long before."""
    events: int | None
    decision: str
    """The gate's; empty where the manifest cannot be read."""


@dataclass(frozen=True, slots=True)
class RoundFacts:
    """How a round of the trainer ended; ``reason`` says why it failed or was rejected."""

    finished_at: str
    outcome: str
    reason: str


@dataclass(frozen=True, slots=True)
class ListFacts:
    """What users find, of as many as were looked at."""

    users: int
    is_all: bool
    personal: int
    expired: int

    @property
    def popular(self) -> int:
        """Users for whom no list of their own can be made."""
        return self.users - self.personal - self.expired


@dataclass(frozen=True, slots=True)
class ArchiveFacts:
    """The archive of purchases."""

    segments: int
    size_bytes: int
    newest_event: datetime | None


@dataclass(frozen=True, slots=True)
class DiskFacts:
    """The disk of ``data_dir``; sizes in bytes, both 0 where it is no local folder."""

    free: int
    total: int


@dataclass(frozen=True, slots=True)
class Facts:
    """All of it; each is `Unknown` where it could not be had.

    Attributes
    ----------
    kafka : int
        Number of partitions of the topic: Kafka answers.
    redis : sequence of RedisServerFacts
        Redis answers.
    model : ModelFacts or None
        None = there is none.
    verified : VerifyRecord or None
        What the newest `recsys verify` has found; None = there was none.
    """

    kafka: int | Unknown
    redis: Sequence[RedisServerFacts] | Unknown
    services: FoundServices | Unknown
    histories_missing: bool | Unknown
    partitions: Sequence[PartitionFacts] | Unknown
    dead_letters: DeadLetterFacts | Unknown
    model: ModelFacts | Unknown | None
    rounds: Sequence[RoundFacts] | Unknown
    lists: ListFacts | Unknown
    archive: ArchiveFacts | Unknown
    disk: DiskFacts | Unknown
    verified: VerifyRecord | Unknown | None
