"""Which services run: each process has an entry in Redis, which expires soon after its last sign of life."""

from __future__ import annotations

import os
import re
import socket
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

import recsys
from recsys.data.event import NO_CONTROL_CHARACTERS
from recsys.errors import DamagedKey
from recsys.redis.connection import Connection
from recsys.redis.damage import damaged
from recsys.redis.keys import Keys
from recsys.runtime.escapes import escaped
from recsys.settings import secrets

TTL_S = 15.0
"""How long an entry outlives its service's last sign of life."""
_ENDING_TTL_S = 3600.0
_MOST_SERVICES = 1_000
_MOST_BYTES = 64 * 1024
_MOST_CHARACTERS = 1_000
_NAME = re.compile(r"(?:consumer|trainer|api):[0-9a-f]{12}")

_Text = Annotated[str, StringConstraints(max_length=256, pattern=NO_CONTROL_CHARACTERS)]
_Sentence = Annotated[str, StringConstraints(max_length=_MOST_CHARACTERS, pattern=NO_CONTROL_CHARACTERS)]
_Count = Annotated[int, Field(ge=0, lt=2**63)]
_Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Read(BaseModel):
    """What is read from Redis: nothing of it is believed unchecked; fields of later releases are passed over."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


def told(text: str) -> str:
    """Return a text as an entry may hold it: on one line, bounded, without secrets."""
    sentence = escaped(secrets.hidden_in(text))
    return sentence if len(sentence) <= _MOST_CHARACTERS else f"{sentence[: _MOST_CHARACTERS - 1]}…"


Checks = Annotated[dict[_Text, Literal["warning", "broken"]], Field(max_length=64)]
"""The codes of `recsys doctor` that a service finds wrong, with how bad each is."""


class ConsumerFacts(_Read):
    """What a consumer tells of itself."""

    partitions: Annotated[dict[_Count, _Amount], Field(max_length=4_096)] = {}
    """The partitions that it holds, with the records per second that were applied of each in the last minute."""
    records_per_s: _Amount = 0.0
    """Records read, in the last minute."""
    p50_ms: _Amount | None = None
    """Time from a record's timestamp to the lists, of the last 15 seconds; None where no list was written."""
    p99_ms: _Amount | None = None
    longest_ms: _Amount | None = None
    """The longest of such times that is told: one that is as long may be longer."""
    without_lists_s: _Amount = 0.0
    """For how long events have changed histories and led to no list; 0 while they lead to lists, or none come."""
    model: _Text = ""
    """Version of the model in use; empty if there is none."""
    paused: bool = False
    """Whether it waits for Redis, or for the dead-letter topic."""
    waiting_for: _Sentence = ""
    """Why it does not serve yet, or again, as its log says it; empty while it serves."""
    kafka_silent_s: _Amount = 0.0
    dead_letters: Annotated[dict[_Text, _Count], Field(max_length=32)] = {}
    """Malformed records since it was started, by the kind of reason."""
    checks: Checks = {}
    reading: _Text = ""
    """How its settings read records, see `recsys.kafka.readings`; empty of an earlier release."""


class TrainerFacts(_Read):
    """What a trainer tells of itself."""

    next_round_at: AwareDatetime | None = None
    """When the next scheduled round, or the next try of one that failed, is due."""
    waiting_for: _Sentence = ""
    """Why it does no rounds yet, as its log says it; empty once it does."""
    checks: Checks = {}
    reading: _Text = ""
    """How its settings read records, see `recsys.kafka.readings`; empty of an earlier release."""


class ApiFacts(_Read):
    """What a worker of the HTTP API tells of itself."""

    missing: Annotated[list[_Text], Field(max_length=16)] = []
    """What `/readyz` says is missing."""
    model: _Text = ""


class _Entry(_Read):
    host: _Text
    pid: Annotated[int, Field(ge=0, lt=2**31)]
    version: _Text
    since: AwareDatetime
    at: AwareDatetime
    """The last sign of life, by the clock of its host."""


class ConsumerEntry(_Entry):
    """A consumer that runs."""

    kind: Literal["consumer"]
    facts: ConsumerFacts


class TrainerEntry(_Entry):
    """A trainer that runs."""

    kind: Literal["trainer"]
    facts: TrainerFacts


class ApiEntry(_Entry):
    """A worker process of the HTTP API that runs."""

    kind: Literal["api"]
    facts: ApiFacts


class Ending(_Read):
    """How the last service of a kind ended that ended by an error."""

    kind: Literal["consumer", "trainer"]
    host: _Text
    at: AwareDatetime
    why: _Sentence


Facts = ConsumerFacts | TrainerFacts | ApiFacts
ServiceEntry = Annotated[ConsumerEntry | TrainerEntry | ApiEntry, Field(discriminator="kind")]
_ENTRY: TypeAdapter[ConsumerEntry | TrainerEntry | ApiEntry] = TypeAdapter(ServiceEntry)
_ENTRY_OF: dict[type[_Read], tuple[Literal["consumer", "trainer", "api"], type[_Entry]]] = {
    ConsumerFacts: ("consumer", ConsumerEntry),
    TrainerFacts: ("trainer", TrainerEntry),
    ApiFacts: ("api", ApiEntry),
}


_T = TypeVar("_T")
_ENDING = TypeAdapter(Ending)
_KINDS_THAT_END: tuple[Literal["consumer", "trainer"], ...] = ("consumer", "trainer")


@dataclass(frozen=True, slots=True)
class FoundServices:
    """What the registry holds.

    Attributes
    ----------
    entries : sequence
        Of the services that run: `ConsumerEntry`, `TrainerEntry`, `ApiEntry`; the oldest first.
    damaged : sequence of str
        What cannot be read, in words, and how to remove it.
    endings : sequence of Ending
        Why a consumer or trainer has ended by itself in the last hour; none of a kind that has run again since.
    """

    entries: Sequence[ConsumerEntry | TrainerEntry | ApiEntry]
    damaged: Sequence[str]
    endings: Sequence[Ending] = ()


class ServiceRegistry:
    """The entries, and a set of their names. Names whose entries have expired are removed by the trainer."""

    def __init__(self, connection: Connection, keys: Keys) -> None:
        self._connection = connection
        self._keys = keys

    def new_name(self, facts: Facts) -> str:
        """Return a name for this process, such as ``consumer:0123456789ab``."""
        kind, _ = _ENTRY_OF[type(facts)]
        return f"{kind}:{uuid.uuid4().hex[:12]}"

    def say_alive(self, name: str, facts: Facts, *, since: datetime, at: datetime) -> None:
        """Write the entry of this process, which expires after `TTL_S`."""
        kind, entry_type = _ENTRY_OF[type(facts)]
        entry = entry_type.model_validate(
            {
                "kind": kind, "host": socket.gethostname(), "pid": os.getpid(), "version": recsys.__version__,
                "since": since, "at": at, "facts": facts,
            }
        )  # fmt: skip
        key = self._keys.service(name)
        set_entry = ("SET", key, entry.model_dump_json(), "PX", int(1000 * TTL_S))
        self._connection.run([(key, set_entry), (self._keys.services, ("SADD", self._keys.services, name))])

    def say_gone(self, name: str) -> None:
        """Remove the entry of this process."""
        key = self._keys.service(name)
        self._connection.run([(key, ("DEL", key))])

    def say_why_ended(self, kind: Literal["consumer", "trainer"], why: str, *, at: datetime) -> None:
        """Leave for an hour why this process ends by itself."""
        key = self._keys.ending(kind)
        ending = Ending(kind=kind, host=socket.gethostname(), at=at, why=told(why))
        self._connection.run([(key, ("SET", key, ending.model_dump_json(), "PX", int(1000 * _ENDING_TTL_S)))])

    def forget_ending(self, name: str) -> None:
        """Remove why the last service of a kind has ended: the one of this name runs."""
        key = self._keys.ending(name.partition(":")[0])
        self._connection.run([(key, ("DEL", key))])

    def remove_expired(self) -> None:
        """Forget the names of services that run no more; one that comes just now names itself again."""
        names = self._names()
        there = self._connection.run(
            [(self._keys.service(name), ("EXISTS", self._keys.service(name))) for name in names]
        )
        gone = [name for name, is_there in zip(names, there, strict=True) if not is_there]
        if gone:
            self._connection.run([(self._keys.services, ("SREM", self._keys.services, *gone))])

    def read(self) -> FoundServices:
        """Return the services that run, and what in the registry is damaged."""
        try:
            names = self._names()
        except DamagedKey as error:
            return FoundServices((), (str(error),))
        keys = [self._keys.service(name) for name in names if _NAME.fullmatch(name)]
        problems = [
            f"{name[:40]!r} in {self._keys.services} names no service" for name in names if not _NAME.fullmatch(name)
        ]
        entries = self._read_each(keys, _ENTRY, problems)
        endings = self._read_each([self._keys.ending(kind) for kind in _KINDS_THAT_END], _ENDING, problems)
        by_age = sorted(entries, key=lambda entry: (entry.since, entry.host, entry.pid))
        return FoundServices(by_age, problems, endings)

    def _names(self) -> list[str]:
        key = self._keys.services
        count = self._connection.run([(key, ("SCARD", key))])[0]
        if count > _MOST_SERVICES:
            raise damaged(self._keys, key, f"it holds {count:,} names")
        members: set[bytes] | list[bytes] = self._connection.run([(key, ("SMEMBERS", key))])[0]
        return sorted(name.decode(errors="backslashreplace") for name in members)

    def _read_each(self, keys: Sequence[str], type_: TypeAdapter[_T], problems: list[str]) -> list[_T]:
        """Return what the keys hold; a damaged one adds to the problems, and keeps no other from being read."""
        found = []
        for key in keys:
            try:
                if (entry := self._entry(key, type_)) is not None:
                    found.append(entry)
            except DamagedKey as error:
                problems.append(str(error))
        return found

    def _entry(self, key: str, type_: TypeAdapter[_T]) -> _T | None:
        value = self._connection.run([(key, ("GETRANGE", key, 0, _MOST_BYTES))])[0]
        if not value:
            return None
        if len(value) > _MOST_BYTES:
            raise damaged(self._keys, key, f"it has more than {_MOST_BYTES:,} bytes")
        try:
            return type_.validate_json(value)
        except ValidationError as error:
            problem = error.errors(include_input=False, include_url=False)[0]
            said = ": ".join([*(str(part)[:80] for part in problem["loc"]), problem["msg"][:120]])
            raise damaged(self._keys, key, said) from None
