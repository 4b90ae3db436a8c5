"""What a Redis user must be allowed to do, and what of it an ACL leaves out: docs/operations.md, section Rights."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import redis

from recsys.redis.keys import Keys

__all__ = ["Service", "acl_rules", "is_refusal", "may_ask", "missing_rights", "user_of"]
_KEY = "<key>"
_COMMANDS: dict[str, tuple[str, ...]] = {
    "PING": (), "TIME": (), "INFO": (), "SCAN": ("0",),
    "GET": (_KEY,), "GETRANGE": (_KEY, "0", "0"), "MGET": (_KEY,), "EXISTS": (_KEY,), "SMEMBERS": (_KEY,),
    "HGET": (_KEY, "f"), "HMGET": (_KEY, "f"), "HGETALL": (_KEY,), "HKEYS": (_KEY,), "HLEN": (_KEY,),
    "SCARD": (_KEY,), "RENAME": (_KEY, _KEY),
    "EVAL": ("return 0", "1", _KEY), "EVALSHA": ("0", "1", _KEY), "SCRIPT LOAD": ("return 0",),
    "SET": (_KEY, "v"), "DEL": (_KEY,), "EXPIRE": (_KEY, "1"), "PEXPIRE": (_KEY, "1"), "PERSIST": (_KEY,),
    "HSET": (_KEY, "f", "v"), "HSETNX": (_KEY, "f", "v"), "HDEL": (_KEY, "f"), "HINCRBY": (_KEY, "f", "1"),
    "UNLINK": (_KEY,), "SADD": (_KEY, "m"), "SREM": (_KEY, "m"),
}  # fmt: skip
"""Commands with arguments that Redis would take; they are never executed."""
_OF_READERS = frozenset(
    {
        "PING", "INFO", "GET", "GETRANGE", "HGET", "HMGET", "HGETALL", "SMEMBERS", "EXISTS", "MGET", "EVAL", "EVALSHA",
        "SCRIPT LOAD",
    }
)  # fmt: skip
_OF_OPERATORS_OVER_HTTP = frozenset({"SADD", "SREM", "HSET", "HDEL", "HINCRBY"})
_OF_ENTRIES = frozenset({"SET", "SADD", "DEL"})
"""With which a service says that it runs; the trainer alone tidies up after others."""
_OF_REBUILDS = frozenset({"HSETNX", "UNLINK"})
_OF_CONSUMERS = frozenset(_COMMANDS) - _OF_REBUILDS - {"SCAN", "SREM", "HINCRBY", "SCARD", "RENAME"}
_REFUSAL = re.compile(
    r"no permissions? to|can't (?:run this command|access at least)|ACL failure|NOPERM", re.IGNORECASE
)
_OF_COMMAND = re.compile(r"permissions to run the '([^']+)' command")


class Service(Enum):
    """Who uses Redis, with the commands that each needs; the names are those of ACLs."""

    CONSUMER = _OF_CONSUMERS
    TRAINER = frozenset(_COMMANDS) - _OF_REBUILDS
    API = _OF_READERS | _OF_OPERATORS_OVER_HTTP | _OF_ENTRIES
    COMMAND = frozenset(_COMMANDS)  # MGET reads nothing that GET does not, so an operator may run a consumer as well

    @property
    def commands(self) -> frozenset[str]:
        """The commands."""
        return self.value


def acl_rules(service: Service, prefix: str = "recsys") -> list[str]:
    """Return the rules of an ACL that grant a service what it needs and nothing else, but for user and password.

    MULTI and DISCARD are what it looks with at its own rights.
    """
    commands = sorted({*service.commands, "MULTI", "DISCARD"})
    granted = [f"+{name.lower().replace(' ', '|')}" for name in commands]
    return ["resetkeys", "resetchannels", f"~{prefix}:*", "-@all", *granted]


def user_of(url: str) -> str:
    """Return the name of the user that a Redis URL logs in; without a password beside it, it may be one itself."""
    parts = urlsplit(url)
    options = parse_qs(parts.query)
    if (parts.username or options.get("username")) and parts.password is None and "password" not in options:
        return "of RECSYS_REDIS__URL"
    return unquote(parts.username or "") or options.get("username", [""])[0] or "default"


def is_refusal(error: Exception) -> bool:
    """Say whether Redis refused something to this user: a command, or a key."""
    return isinstance(error, redis.ResponseError) and bool(
        isinstance(error, redis.exceptions.NoPermissionError) or _REFUSAL.search(str(error))
    )


def refused_command(error: Exception) -> str:
    """Return the right that an error names, such as ``+hset``; empty when it names none."""
    found = _OF_COMMAND.search(str(error))
    return f"+{found[1].lower()}" if found else ""


@dataclass(frozen=True, slots=True)
class _Asked:
    """A command as it is asked about, and the right that it needs."""

    right: str
    words: tuple[str, ...]


def missing_rights(connection: Any, keys: Keys, service: Service) -> list[str]:
    """Return the rights that the user of a connection lacks, as an ACL names them.

    The commands are queued in a transaction, which Redis checks them for, and none is executed. Whoever may use no
    transaction cannot be looked at: then nothing is known to be missing.
    """
    if isinstance(_said(connection, "MULTI"), Exception):
        return []
    missing = []
    for asked in _questions(keys, service):
        said = _said(connection, *asked.words)
        if isinstance(said, Exception) and is_refusal(said):
            right = refused_command(said) or asked.right
            if right not in missing:
                missing.append(right)
    _said(connection, "DISCARD")
    return missing


def may_ask(connection: Any) -> bool:
    """Whether the user of a connection may use a transaction, so that `missing_rights` can tell what is missing."""
    may = not isinstance(_said(connection, "MULTI"), Exception)
    return not isinstance(_said(connection, "DISCARD"), Exception) and may


def _questions(keys: Keys, service: Service) -> Iterator[_Asked]:
    """Yield what to ask: each command with one key, and for each kind of keys one command that reads or writes."""
    for name in sorted(service.commands):
        arguments = [keys.model if part == _KEY else part for part in _COMMANDS[name]]
        yield _Asked(f"~{keys.model}", (*name.split(), *arguments))
    writable = keys.of_the_api() if service is Service.API else keys.of_all_kinds()
    for key in keys.of_all_kinds():
        yield _Asked(f"~{key}", ("GET", key))
    for key in writable:
        yield _Asked(f"~{key}", ("DEL", key))


def _said(connection: Any, *words: str) -> Any:
    connection.send_command(*words)
    try:
        return connection.read_response()
    except redis.ResponseError as error:
        return error
