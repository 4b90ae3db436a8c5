"""Who may do what: keys with roles, limits per key, and the audit log."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import logging
import re
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson
from fastapi import Request, Response
from fastapi.routing import APIRoute

from api.problems import Kind, ProblemError, status_of
from recsys.errors import SettingsError
from recsys.settings import ApiSettings

log = logging.getLogger(__name__)
audit_log = logging.getLogger("api.audit")
_SHORTEST_KEY = 20
_LONGEST_ACTION = 600
_STRANGERS_A_SECOND = 5
_HASHED = re.compile(r"sha256:([0-9a-fA-F]{64})")
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HOW = "an entry is name:role:key with a role of read, write or operate; recsys key NAME ROLE makes one"
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


@dataclass(frozen=True, slots=True)
class _Key:
    digest: bytes
    caller: Caller


class Keyring:
    """The keys that are valid; a name may have several, for as long as a key is being replaced.

    Raises
    ------
    SettingsError
        When an entry cannot be read; it names the entry, never the key.
    """

    def __init__(self, entries: Sequence[str]) -> None:
        self._keys = [_parsed(place, entry) for place, entry in enumerate(entries, start=1)]
        self._nobody = Caller("", Role.READ)

    @classmethod
    def of(cls, settings: ApiSettings) -> Keyring:
        """Read the keys that are set, from the environment or a file."""
        lines = [settings.keys.get_secret_value()]
        if settings.keys_file:
            try:
                text = Path(settings.keys_file).read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise SettingsError(f"RECSYS_API__KEYS_FILE: cannot read {settings.keys_file}: {error}") from None
            lines = [line.partition(" #")[0] for line in text.splitlines() if not line.startswith("#")]
            if not "".join(lines).strip():
                raise SettingsError(f"RECSYS_API__KEYS_FILE: {settings.keys_file} holds no key; {_HOW}")
        return cls([entry for line in lines for entry in line.replace(",", " ").split()])

    def __len__(self) -> int:
        return len(self._keys)

    def caller(self, request: Request) -> Caller:
        """Return who sent a request.

        Raises
        ------
        ProblemError
            401 without a valid key; 403 where there are no keys and it does not come from this machine.
        """
        if not self._keys:
            if not _is_from_here(request):
                raise ProblemError(
                    Kind.FORBIDDEN,
                    "without keys only programs on the machine of the API can call it; set RECSYS_API__KEYS",
                )
            return self._nobody
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        found = None
        if scheme.lower() == "bearer":
            digest = hashlib.sha256(key.strip().encode()).digest()
            for known in self._keys:  # to the end: how long it takes tells nothing
                if hmac.compare_digest(known.digest, digest):
                    found = known.caller
        if found is None:
            raise ProblemError(
                Kind.MISSING_KEY,
                "send a valid key in the header Authorization: Bearer <key>",
                headers={"WWW-Authenticate": 'Bearer realm="recsys"'},
            )
        return found

    def authorize(self, request: Request, role: Role) -> Caller:
        """Return who sent a request that needs a role, and note it in the request; raise 401 or 403 otherwise."""
        caller = request.state.caller = self.caller(request)
        if caller.role < role:
            whose = f"key {caller.name} has the role {caller.role.name.lower()}" if caller.name else "there are no keys"
            raise ProblemError(Kind.FORBIDDEN, f"this needs the role {role.name.lower()}; {whose}")
        return caller


def _parsed(place: int, entry: str) -> _Key:
    name, _, rest = entry.partition(":")
    word, _, key = rest.partition(":")
    where = f"RECSYS_API__KEYS: entry {place}"
    if not _NAME.fullmatch(name) or not key:
        raise SettingsError(f"{where} cannot be read; {_HOW}")
    try:
        role = Role[word.upper()]
    except KeyError:
        raise SettingsError(f"{where} ({name}): there is no such role; {_HOW}") from None
    hashed = _HASHED.fullmatch(key)
    if not hashed and len(key) < _SHORTEST_KEY:
        raise SettingsError(f"{where} ({name}): the key has fewer than {_SHORTEST_KEY} characters; {_HOW}")
    digest = bytes.fromhex(hashed[1]) if hashed else hashlib.sha256(key.encode()).digest()
    return _Key(digest, Caller(name, role))


_FORWARDED = re.compile(
    r"""
      forwarded | \bvia\b | prox(y|ied) | original | rewrite | override      # Forwarded, X-Forwarded-*, X-Original-*
    | \bip\b | (client|real|remote)ip\b                                    # CF-Connecting-IP, True-Client-IP
    | (client|remote|peer|source|user)-(addr|address|host|port|user|cert)\b # X-Remote-Addr
    | cdn | ^(cf|fly|fastly|akamai|incap|ssl|front-end|max-forwards)\b      # CDN-Loop, CF-Ray, Front-End-Https
    | ^x-(host|scheme|proto|url-scheme|ssl|varnish|haproxy|cache|served-by)\b
    | ^x-(amz|amzn|amazon|arr|azure|cloud|envoy|vercel|nf|akamai|appengine|google|ms)\b
    """,
    re.VERBOSE,
)
"""In the name of a header: what proxies, load balancers and networks say of whom they speak for, standard or not."""


def _is_from_here(request: Request) -> bool:
    """Whether a request comes from this machine, not through a proxy, nor from a page that a browser shows."""
    try:
        own = request.client is not None and ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        own = False
    if not own or any(_FORWARDED.search(name.replace("_", "-")) for name in request.headers):
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


class RateLimiter:
    """A bucket of tokens for each key: a second's worth, filled at the rate.

    Parameters
    ----------
    rate : float
        Requests a second; 0 = no limit.
    """

    def __init__(self, rate: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._most = max(1.0, rate)
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}

    def has(self, name: str) -> bool:
        """Take a token of a key, if there is one; return whether there was."""
        try:
            self.spend(name)
        except ProblemError:
            return False
        return True

    def spend(self, name: str) -> None:
        """Take a token of a key; raise 429 if there is none."""
        if not self._rate:
            return
        now = self._clock()
        tokens, at = self._buckets.get(name, (self._most, now))
        tokens = min(self._most, tokens + (now - at) * self._rate)
        if tokens < 1:
            self._buckets[name] = (tokens, now)
            wait_s = int((1 - tokens) / self._rate) + 1
            raise ProblemError(
                Kind.TOO_MANY_REQUESTS,
                f"{self._rate:g} requests per second are allowed; wait {wait_s} s",
                headers={"Retry-After": str(wait_s)},
            )
        self._buckets[name] = (tokens - 1, now)


class Audit:
    """What operators do, a JSON object a line, in the log and in a file if there is one.

    Raises
    ------
    SettingsError
        When the file cannot be written.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._strangers = RateLimiter(_STRANGERS_A_SECOND)
        if path:
            try:
                self._append(b"")
            except OSError as error:
                raise SettingsError(f"RECSYS_API__AUDIT_FILE: cannot write {path}: {error.strerror}") from None

    def note(self, request: Request, caller: Caller, status: int, what: str = "") -> None:
        """Write what was asked for, by whom, and how it was answered; of strangers only so much, for it is unasked."""
        if status == Kind.MISSING_KEY.status and not self._strangers.has(""):
            return
        entry: Mapping[str, Any] = {
            "at": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "key": caller.name,
            "from": request.client.host if request.client else "",
            "action": what or f"{request.method} {request.scope['path']}"[:_LONGEST_ACTION],
            "status": status,
        }
        line = orjson.dumps(entry)
        audit_log.info("%s", line.decode())
        if self._path:
            try:
                self._append(line + b"\n")
            except OSError as error:
                log.error("the audit file %s cannot be written: %s", self._path, error.strerror)

    def _append(self, line: bytes) -> None:
        with Path(self._path).open("ab", buffering=0) as file:
            file.write(line)


def guarded(role: Role) -> type[APIRoute]:
    """Return a class of routes that need a role: keys and rates are looked at before anything else of a request."""

    class GuardedRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            answer = super().get_route_handler()

            async def handler(request: Request) -> Response:
                services = request.app.state.services
                caller = services.keyring.authorize(request, role)
                services.rates.spend(caller.name)
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
