"""What `recsys doctor` finds: codes that never change, with what each endangers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from recsys.operations.status_facts import Unknown
from recsys.operations.status_line import Level, Line, State


class Area(StrEnum):
    """What a finding is about, in the order in which findings are shown."""

    NETWORK = "Names and TLS"
    KAFKA = "Kafka"
    TOPICS = "Topics"
    GROUP = "Consumer group"
    REDIS = "Redis"
    CLOCKS = "Clocks"
    DATA_DIR = "data_dir"
    SERVICES = "Services"
    PROBE = "Probe"


class Kind(NamedTuple):
    """What a code stands for: the area, a name, and what is endangered where it is not well."""

    area: Area
    name: str
    endangers: str


KINDS: dict[str, Kind] = {
    "names": Kind(Area.NETWORK, "host names", "nothing that needs this server works from here"),
    "ports": Kind(Area.NETWORK, "ports", "nothing that needs this server works from here"),
    "tls": Kind(Area.NETWORK, "certificates", "connections are refused, or lead to whoever claims to be the server"),
    "tls-expiry": Kind(Area.NETWORK, "their end", "from then on no new connection is made: everything stands still"),
    "kafka": Kind(Area.KAFKA, "login, topic", "no purchase comes in; lists stay as they are"),
    "kafka-rights": Kind(Area.KAFKA, "rights", "the service waits, or a command ends, where the right is needed"),
    "topic-compacted": Kind(Area.TOPICS, "compaction", "purchases vanish from Kafka before they are archived"),
    "topic-retention": Kind(
        Area.TOPICS, "retention", "purchases expire before a round archives them: no model and no rebuild has them"
    ),
    "topic-record-size": Kind(Area.TOPICS, "record size", "Kafka refuses purchases that are within the contract"),
    "topic-partitions": Kind(Area.TOPICS, "partitions", "consumers stand idle, so a backlog lasts longer"),
    "topic-durability": Kind(Area.TOPICS, "replicas", "purchases that Kafka has acknowledged die with one broker"),
    "dead-letter-topic": Kind(Area.TOPICS, "dead letters", "of malformed records a part is lost, or all"),
    "group-members": Kind(
        Area.GROUP, "members", "purchases of the partitions that a stranger holds reach neither histories nor lists"
    ),
    "redis": Kind(Area.REDIS, "login", "apps get no lists, and purchases wait in Kafka"),
    "redis-version": Kind(Area.REDIS, "version", "no service starts"),
    "redis-mode": Kind(Area.REDIS, "cluster or not", "no service starts"),
    "redis-role": Kind(Area.REDIS, "role", "nothing can be written: no history and no list"),
    "redis-rights": Kind(Area.REDIS, "rights", "the service waits, or a command ends, where the right is needed"),
    "redis-memory": Kind(Area.REDIS, "memory", "a full Redis refuses writes, or evicts keys"),
    "redis-eviction": Kind(Area.REDIS, "eviction", "users whose histories are gone look as if they bought nothing"),
    "redis-persistence": Kind(Area.REDIS, "its disk", "a restart loses what was not written; writes may be refused"),
    "redis-append-only": Kind(
        Area.REDIS, "append-only file", "a restart loses the newest writes, or all: apps then wait for recsys rebuild"
    ),
    "clock-redis": Kind(Area.CLOCKS, "Redis", "ages in status and alerts are wrong, and certificates may seem invalid"),
    "clock-kafka": Kind(Area.CLOCKS, "records", "purchases seem to come from the future, by a day: malformed"),
    "data-dir": Kind(Area.DATA_DIR, "read, write, fsync", "no purchase is archived, and no model is made"),
    "data-dir-space": Kind(Area.DATA_DIR, "space", "on a full disk no purchase is archived, and no model is made"),
    "versions": Kind(Area.SERVICES, "versions", "what one service writes another may not understand"),
    "readings": Kind(
        Area.SERVICES, "mappings", "the same record is read in two ways: purchases are lost, or counted as others"
    ),
    "registry": Kind(Area.SERVICES, "registry", "a service that runs is not seen"),
    "status": Kind(Area.SERVICES, "status", "what recsys status names: new purchases, lists, or models"),
    "probe-kafka": Kind(Area.PROBE, "acknowledged", "apps and shops cannot publish purchases"),
    "probe-history": Kind(Area.PROBE, "in the history", "purchases do not reach Redis"),
    "probe-list": Kind(Area.PROBE, "list written", "purchases do not change lists"),
    "probe-gone": Kind(Area.PROBE, "nothing left", "what is left of the probe expires by itself within ten minutes"),
}  # fmt: skip
"""All codes, in the order in which they are shown."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes
    ----------
    code : str
        One of `KINDS`; it never changes.
    level : Level
    text : str
        What is so.
    command : str
        What mends it, for a shell; empty where all is well, or no command does.
    advice : str
        What mends it, in words, where a command alone does not.
    is_checked : bool
        False = it could not be looked at; the text says why.
    """

    code: str
    level: Level
    text: str
    command: str = ""
    advice: str = ""
    is_checked: bool = True

    @property
    def kind(self) -> Kind:
        """Area, name, and what is endangered."""
        return KINDS[self.code]


def fine(code: str, text: str) -> Finding:
    """Return that all is well."""
    return Finding(code, Level.OK, text)


def not_checked(code: str, why: str | Unknown, advice: str = "") -> Finding:
    """Return that something could not be looked at."""
    text = why.cause if isinstance(why, Unknown) else why
    return Finding(code, Level.WARNING, f"not checked: {text}", advice=advice, is_checked=False)


def of_line(code: str, line: Line) -> Finding:
    """Return what `recsys status` says of the same thing, which is decided there."""
    return Finding(code, line.level, line.text, advice=line.remedy)


def of_state(state: State | Unknown) -> Finding:
    """Return what `recsys status` says of the shop as a whole, so that whoever asks here alone is not sent home."""
    if isinstance(state, Unknown):
        return not_checked("status", state, "ask recsys status itself")
    text = f"recsys status: {state.sentence}"
    return Finding("status", state.level, text, "recsys status") if state.level else fine("status", text)


def worst(findings: Sequence[Finding]) -> Level:
    """Return the worst level."""
    return max((finding.level for finding in findings), default=Level.OK)


def sentence(findings: Sequence[Finding]) -> str:
    """Return what an operator wants to know first."""
    broken, warned = ([f.code for f in findings if f.level is level] for level in (Level.BROKEN, Level.WARNING))
    if broken:
        return f"Something is broken: {', '.join(broken)}."
    if warned:
        return f"Nothing is broken. Look at: {', '.join(warned)}."
    return "Nothing is wrong."
