"""Who may do what: keys with roles, and the audit log."""

from __future__ import annotations

import errno
import hashlib
import hmac
import ipaddress
import os
import re
import stat
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import IntEnum
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import orjson
from fastapi import Request, Response
from fastapi.routing import APIRoute

from api.key_watch import KeyWatch, say_end, today_utc
from api.parameters import read_at_once
from api.problems import Kind, ProblemError, status_of
from api.rates import RateLimiter
from recsys.errors import SettingsError
from recsys.logger import logger
from recsys.runtime.escapes import escaped
from recsys.runtime.user_names import named
from recsys.settings import ApiSettings, secrets
from recsys.settings.key_entries import HOW, KeyEntry, parse_entry, secrets_in_entry, split_entries
from recsys.settings.secret_files import ensure_trustworthy, read_secret_file

log = logger(__name__)
audit_log = logger("api.audit")
_LONGEST_ACTION = 600
_DAY_S = 86_400.0
_REFUSALS_A_SECOND = 0.1
_REFUSALS_AT_ONCE = 10
_OWNER_ONLY = 0o600
_OF_OTHERS = stat.S_IWGRP | stat.S_IRWXO
"""Rights that nobody but the owner may have to the audit file; the group may read it, such as to ship it elsewhere."""
_ASKS_FOR_KEY = {"WWW-Authenticate": 'Bearer realm="recsys"'}
_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")


class Role(IntEnum):
    """What a key may do; each role may do what those before it may."""

    READ = 1
    """Lists, histories, explanations."""
    WRITE = 2
    """Post purchases."""
    OPERATE = 3
    """Models, retrains, rollbacks, hidden items, erasing users."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request: the name of a key, empty for whoever needs none."""

    name: str
    role: Role


class Keyring:
    """The keys that are taken; a name may have several, for as long as a key is being replaced.

    Parameters
    ----------
    entries : sequence of str
        One for each key.
    watch : KeyWatch or None
        Told of every key that is sent.

    Raises
    ------
    SettingsError
        When an entry cannot be read; it says which one, and never shows a part of it.
    """

    def __init__(self, entries: Sequence[str], *, watch: KeyWatch | None = None) -> None:
        self._keys = [parse_entry(place, entry) for place, entry in enumerate(entries, start=1)]
        self._callers = {key.place: Caller(key.name, Role[key.role.upper()]) for key in self._keys}
        self._watch = watch or KeyWatch()
        self._nobody = Caller("", Role.READ)

    @classmethod
    def of(cls, settings: ApiSettings, *, watch: KeyWatch | None = None) -> Keyring:
        """Read the keys that are set, from the environment or a file."""
        if not settings.keys_file:
            return cls(split_entries(settings.keys.get_secret_value()), watch=watch)
        entries = _entries_in(settings.keys_file)
        held = [secret for entry in entries for secret in secrets_in_entry(entry)]
        secrets.remember(held)
        if held:  # not digests alone, which everybody may read
            ensure_trustworthy(settings.keys_file, os.stat(settings.keys_file), "RECSYS_API__KEYS_FILE")
        return cls(entries, watch=watch)

    def __len__(self) -> int:
        return len(self._keys)

    def say_what_to_mend(self) -> None:
        """Log what a person should look at: keys that end."""
        for key in self._keys:
            say_end(key, today_utc())

    def ends(self) -> Iterator[tuple[KeyEntry, float]]:
        """Yield the keys that end, and when, in epoch seconds."""
        for key in self._keys:
            if key.last_day is not None:
                yield key, datetime.combine(key.last_day, datetime.min.time(), UTC).timestamp() + _DAY_S

    def caller(self, request: Request) -> Caller:
        """Return who sent a request.

        Raises
        ------
        ProblemError
            401 without a valid key; 403 where there are no keys and it does not come from this machine; 429 after too
            many wrong keys from its address.
        """
        if not self._keys:
            if not _is_from_here(request):
                raise ProblemError(Kind.FORBIDDEN, _ONLY_FROM_HERE)
            if (foreign := _foreign_header(request)) is not None:
                raise ProblemError(Kind.FORBIDDEN, f"{_ONLY_FROM_HERE}. The header {foreign} may be that of a proxy")
            return self._nobody
        scheme, _, sent = request.headers.get("authorization", "").partition(" ")
        key = sent.strip() if scheme.lower() == "bearer" else ""
        host = request.client.host if request.client else ""
        if not key:
            self._watch.note_missing()
            raise _no_key()
        self._watch.ensure_may_try(host)
        today = today_utc()
        found = self._found(key, today)
        if found is None:
            self._watch.note_wrong(host)
            raise _no_key()
        if found.has_ended(today):
            self._watch.note_expired(found, host)
            raise ProblemError(
                Kind.EXPIRED_KEY,
                f"key {found.name} ended with {found.last_day}; ask for a new one",
                headers=_ASKS_FOR_KEY,
            )
        self._watch.note_use(found, host, today)
        return self._callers[found.place]

    def _found(self, key: str, today: date) -> KeyEntry | None:
        """Return the entry of a key, of several one that has not ended."""
        digest = hashlib.sha256(key.encode()).digest()
        found = None
        for known in self._keys:  # to the end: how long it takes tells nothing
            if hmac.compare_digest(known.digest, digest) and (found is None or found.has_ended(today)):
                found = known
        return found


def ensure_may(caller: Caller, role: Role) -> None:
    """Raise 403 unless a caller has a role."""
    if caller.role < role:
        whose = f"key {caller.name} has the role {caller.role.name.lower()}" if caller.name else "there are no keys"
        raise ProblemError(Kind.FORBIDDEN, f"this needs the role {role.name.lower()}; {whose}")


def _no_key() -> ProblemError:
    return ProblemError(
        Kind.MISSING_KEY, "send a valid key in the header Authorization: Bearer <key>", headers=_ASKS_FOR_KEY
    )


def _entries_in(path: str) -> list[str]:
    """Return the entries of a file.

    Raises
    ------
    SettingsError
        When it cannot be read, holds none, or others than its owner can write to it: they could add keys.
    """
    text = read_secret_file(path, "RECSYS_API__KEYS_FILE", warns=False)
    lines = [line.partition(" #")[0] for line in text.splitlines() if not line.startswith("#")]
    entries = [entry for line in lines for entry in split_entries(line)]
    if not entries:
        raise SettingsError(f"RECSYS_API__KEYS_FILE: {path} holds no key; {HOW}")
    return entries


_ONLY_FROM_HERE = "without keys only programs on the machine of the API can call it; set RECSYS_API__KEYS"
_OF_PROGRAMS = frozenset(
    (
        "accept accept-charset accept-encoding accept-language access-control-request-headers "
        "access-control-request-method authorization baggage cache-control connection content-encoding "
        "content-language content-length content-type cookie date dnt expect host http2-settings idempotency-key "
        "if-match if-modified-since if-none-match if-range if-unmodified-since keep-alive origin pragma priority range "
        "referer save-data te traceparent tracestate trailer transfer-encoding upgrade upgrade-insecure-requests "
        "user-agent x-correlation-id x-csrf-token x-request-id x-requested-with"
    ).split()
)
"""Headers that programs send for themselves; browsers also send some that begin with sec-."""
_OF_BROWSERS = "sec-"
_LONGEST_SHOWN = 80


def _foreign_header(request: Request) -> str | None:
    """Return a header that no program sends for itself: that of a proxy, load balancer or network, whoever makes it.

    There are more names for that than a list can have, so it is the others that are listed.
    """
    for name in map(str, request.headers):
        if name not in _OF_PROGRAMS and not name.startswith(_OF_BROWSERS):
            return name[:_LONGEST_SHOWN]
    return None


def _is_from_here(request: Request) -> bool:
    """Whether a request comes from this machine, and not from a page of elsewhere that a browser shows."""
    try:
        own = request.client is not None and ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        own = False
    if not own:
        return False
    hosts = {re.sub(r":[0-9]+$", "", host).lower() for host in request.headers.getlist("host")}
    origins = request.headers.getlist("origin")
    sites = request.headers.getlist("sec-fetch-site")
    return (
        len(hosts) == 1
        and hosts.issubset(_LOOPBACK_NAMES)
        and all(site in ("none", "same-origin") for site in sites)
        and all(_is_origin_from_here(origin) for origin in origins)
    )


def _is_origin_from_here(origin: str) -> bool:
    try:
        host = urlsplit(origin).hostname
    except ValueError:  # such as http://[zz]
        return False
    return host in ("localhost", "127.0.0.1", "::1")  # not null either: that is a page without an address


class Audit:
    """What operators do, a JSON object a line, in the log and in a file if there is one.

    Of what is refused each name gets only so many lines: whoever may do nothing must not fill the disk. How many were
    left out stands in the next one, as ``left_out``.

    Raises
    ------
    SettingsError
        When the file cannot be written.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._refusals = RateLimiter(_REFUSALS_A_SECOND, at_once=_REFUSALS_AT_ONCE)
        self._left_out: dict[str, int] = {}
        if path:
            try:
                with self._opened() as file:
                    if (mode := os.fstat(file).st_mode) & _OF_OTHERS:
                        os.fchmod(file, stat.S_IMODE(mode) & ~_OF_OTHERS)
            except OSError as error:
                why = "it is a symbolic link" if error.errno == errno.ELOOP else error.strerror
                raise SettingsError(f"RECSYS_API__AUDIT_FILE: cannot write {path}: {why}") from None

    def note(self, request: Request, caller: Caller, status: int, *, forgotten: Sequence[str] = ()) -> None:
        """Write what was asked for, by whom, and how it was answered; also which users shall be forgotten.

        The log has the same as the file, but names users as the settings say.
        """
        if status >= HTTPStatus.BAD_REQUEST and not self._refusals.has(caller.name):
            self._left_out[caller.name] = self._left_out.get(caller.name, 0) + 1
            return
        address = request.client.host if request.client else ""
        action = _forgetting(forgotten) if forgotten else f"{request.method} {request.scope['path']}"
        in_log = _forgetting([named(user) for user in forgotten]) if forgotten else action
        left_out = self._left_out.pop(caller.name, 0)
        more = {"left_out": left_out} if left_out else {}
        entry: Mapping[str, Any] = {
            "at": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "key": caller.name,
            "from": address,
            "action": action[:_LONGEST_ACTION],
            "status": status,
            **more,
        }
        audit_log.info(
            "audit",
            "{key} from {address}: {action}: {status}",
            key=caller.name,
            address=address,
            action=in_log[:_LONGEST_ACTION],
            status=status,
            **more,
        )
        line = escaped(orjson.dumps(entry).decode())
        if self._path:
            try:
                with self._opened() as file:
                    os.write(file, line.encode() + b"\n")
            except OSError as error:
                log.error(
                    "audit_not_written",
                    "the audit file {path} cannot be written: {error}",
                    path=self._path,
                    error=error.strerror,
                )

    @contextmanager
    def _opened(self) -> Iterator[int]:
        """Open the file to add to it; it may be no link and nothing but a file."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(self._path, flags, _OWNER_ONLY)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(errno.EINVAL, "it is no file")
            yield descriptor
        finally:
            os.close(descriptor)


def guarded(role: Role) -> type[APIRoute]:
    """Return a class of routes that need a role: keys and rates are looked at before anything else of a request."""

    class GuardedRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            answer = read_at_once(self, super().get_route_handler())

            async def handler(request: Request) -> Response:
                services = request.app.state.services
                caller = request.state.caller = services.keyring.caller(request)
                services.rates.spend(caller.name)  # also what the role does not allow
                ensure_may(caller, role)
                return await answer(request)

            async def audited(request: Request) -> Response:
                audit = request.app.state.services.audit
                request.state.caller = Caller("", Role.READ)
                try:
                    response = await handler(request)
                except Exception as error:
                    audit.note(request, request.state.caller, status_of(error))
                    raise
                audit.note(request, request.state.caller, response.status_code)
                return response

            changes = self.methods != {"GET"}
            return audited if role is Role.OPERATE and changes else handler

    GuardedRoute.role = role  # type: ignore[attr-defined]
    return GuardedRoute


def _forgetting(users: Sequence[str]) -> str:
    """Return what an audit line says of users who shall be forgotten."""
    count = f"{len(users):,} users: " if len(users) > 1 else ""
    return f"forget {count}{', '.join(users)}"
