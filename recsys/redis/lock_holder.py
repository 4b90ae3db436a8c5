"""Who holds the lock: what is written into it, and whether that process is known to have ended."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import orjson
from pydantic import Field, StringConstraints, TypeAdapter, ValidationError

from recsys.data.event import NO_CONTROL_CHARACTERS
from recsys.runtime.clock import json_time, now

_PROC = Path("/proc")
_STATE, _STARTED = 0, 19
"""Places in /proc/<pid>/stat behind the name of the program."""
_ENDED = (b"Z", b"X")
_MOST_CHARACTERS = 256
_Text = Annotated[str, StringConstraints(max_length=_MOST_CHARACTERS, pattern=NO_CONTROL_CHARACTERS)]


@dataclass(frozen=True, slots=True)
class LockHolder:
    """A process that holds the lock.

    Attributes
    ----------
    token : str
        Makes each holding differ from all others.
    work : str
        What the process does, such as ``recsys rebuild``; empty in what earlier releases wrote.
    host : str
    pid : int
    since : str
        When it took the lock, RFC 3339.
    system : str
        The running system that counts its process ids: a boot of a kernel, and a namespace in it. Empty where that
        cannot be told.
    started : str
        When it started, as its system counts: process ids are given out again.
    """

    token: str
    work: _Text = ""
    host: _Text = ""
    pid: Annotated[int, Field(ge=0, lt=2**31)] = 0
    since: _Text = ""
    system: _Text = ""
    started: _Text = ""

    @classmethod
    def this_process(cls, work: str, token: str) -> LockHolder:
        """Return this process, with what it is about to do."""
        pid = os.getpid()
        stat = _stat(pid)
        started = stat[_STARTED].decode() if stat else ""
        return cls(token, work, socket.gethostname(), pid, json_time(now()), _system(), started)

    @classmethod
    def parse(cls, value: bytes) -> LockHolder:
        """Read the lock's value; earlier releases wrote a token only."""
        try:
            return _HOLDER.validate_json(value, strict=True)
        except ValidationError:
            return cls(value[:_MOST_CHARACTERS].decode(errors="replace"))

    def packed(self) -> str:
        """Return it as the lock's value."""
        return orjson.dumps(self).decode()

    @property
    def has_ended(self) -> bool:
        """Whether the process has certainly ended: it ran on this system, which has it no more."""
        if not self.pid or not self.system or self.system != _system():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:  # it is there, and somebody else's
            pass
        stat = _stat(self.pid)
        return bool(stat) and (stat[_STATE] in _ENDED or stat[_STARTED].decode() != self.started)

    def __str__(self) -> str:
        if not self.work:
            return "a trainer or command of another release"
        return f"{self.work} (process {self.pid} on {self.host}, since {self.since})"


_HOLDER = TypeAdapter(LockHolder)


def _system() -> str:
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {(_PROC / 'self/ns/pid').readlink()}"
    except OSError:  # not Linux
        return ""


def _stat(pid: int) -> list[bytes]:
    try:
        return (_PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return []
