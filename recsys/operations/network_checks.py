"""Whether names resolve, somebody listens, and certificates are good: for all servers that the settings name."""

from __future__ import annotations

import ipaddress
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from recsys.kafka.causes import end_of_certificate, tls_context
from recsys.operations.finding import Finding, fine
from recsys.operations.status_line import Level
from recsys.operations.status_words import named
from recsys.redis.addresses import redis_addresses, redis_tls_context
from recsys.runtime.tls import NO_TLS, end_of_certificate_of, handshake_problem, takes_connections
from recsys.settings import KafkaSettings, RedisSettings

_KAFKA_PORT = 9092
ENDS_SOON_DAYS = 14
"""As long before its end as a key of the HTTP API is warned of."""


class Server(NamedTuple):
    """A server that the settings name, or a broker that the brokers name."""

    what: str
    host: str
    port: int

    @property
    def address(self) -> str:
        """Host and port."""
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Reached:
    """What is known of the way to a server.

    Attributes
    ----------
    name_problem : str
        Why its name does not resolve; empty if it does.
    listens : bool
    tls_problem : str or None
        What is wrong with its certificate; empty if nothing is, None without TLS.
    ends_at : datetime or None
        Until when its certificate is valid; None where that is not known.
    """

    server: Server
    name_problem: str = ""
    listens: bool = False
    tls_problem: str | None = None
    ends_at: datetime | None = None


def kafka_servers(settings: KafkaSettings) -> list[Server]:
    """Return the brokers that the settings name."""
    found = []
    for address in settings.bootstrap_servers.split(","):
        server = address.strip().rpartition("://")[2]
        host, colon, port = server.rpartition(":")
        known = bool(colon) and port.isdecimal()
        found.append(Server("Kafka", (host if known else server).strip("[]"), int(port) if known else _KAFKA_PORT))
    return found


def redis_servers(settings: RedisSettings) -> list[Server]:
    """Return the server, or the sentinels, that the settings name; none behind a Unix socket."""
    what = "Sentinel" if settings.sentinel else "Redis"
    return [Server(what, host, port) for host, port in redis_addresses(settings)]


def kafka_tls(settings: KafkaSettings) -> Callable[[], ssl.SSLContext] | None:
    """Return what makes the context in which brokers' certificates are trusted; None without TLS."""
    protocol = str(settings.librdkafka.get("security.protocol", "")).upper()
    return (lambda: tls_context(settings)) if protocol.endswith("SSL") else None


def redis_tls(settings: RedisSettings) -> Callable[[], ssl.SSLContext] | None:
    """Return what makes the context in which the certificate of Redis is trusted; None without TLS."""
    is_tls = settings.url.get_secret_value().startswith("rediss:")
    return (lambda: redis_tls_context(settings)) if is_tls else None


def reach(server: Server, tls: Callable[[], ssl.SSLContext] | None) -> Reached:
    """Go as far as one comes: name, port, certificate."""
    try:
        if not _is_address(server.host):
            socket.getaddrinfo(server.host, server.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        return Reached(server, name_problem=getattr(error, "strerror", None) or str(error))
    if not takes_connections(server.host, server.port):
        return Reached(server)
    if tls is None:
        return Reached(server, listens=True)
    try:
        problem = handshake_problem(server.host, server.port, tls())
        ends_at = None if problem else end_of_certificate_of(server.host, server.port, tls())
    except (OSError, ValueError) as error:
        return Reached(server, listens=True, tls_problem=f"the authority's certificate cannot be read: {error}")
    said = "it speaks no TLS at this port" if problem == NO_TLS else problem
    return Reached(server, listens=True, tls_problem=said, ends_at=ends_at)


def own_certificates(settings: KafkaSettings) -> dict[str, datetime]:
    """Return until when this client's own certificates are valid, as far as that can be read."""
    path, text = (str(settings.librdkafka.get(f"ssl.certificate.{kind}", "")) for kind in ("location", "pem"))
    ends_at = end_of_certificate(path, text) if path or text else None
    return {f"the client certificate {path}".rstrip(): ends_at} if ends_at is not None else {}


def network_findings(
    reached: Sequence[Reached], own: dict[str, datetime], *, at: datetime
) -> Iterator[Finding]:  # fmt: skip
    """Yield what is known of the ways to all servers."""
    yield _names(reached)
    yield _ports(reached)
    if any(one.tls_problem is not None for one in reached) or own:
        yield _chain(reached)
        yield _ends(reached, own, at)
    else:
        yield fine("tls", "no TLS is used")
        yield fine("tls-expiry", "no TLS is used")


def _names(reached: Sequence[Reached]) -> Finding:
    unknown = [f"{one.server.what}: {one.server.host} ({one.name_problem})" for one in reached if one.name_problem]
    if unknown:
        host = next(one.server.host for one in reached if one.name_problem)
        return Finding("names", Level.BROKEN, f"unknown: {named(unknown)}", f"getent hosts {host}", _SETTINGS)
    names = list(dict.fromkeys(one.server.host for one in reached if not _is_address(one.server.host)))
    if not names:
        return fine("names", "there is none to look up: servers are given by address")
    return fine("names", f"{named(names)} {'resolves' if len(names) == 1 else 'resolve'}")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


_SETTINGS = "correct RECSYS_KAFKA__BOOTSTRAP_SERVERS or RECSYS_REDIS__URL, or the names"


def _ports(reached: Sequence[Reached]) -> Finding:
    named_servers = [one for one in reached if not one.name_problem]
    silent = [one.server for one in named_servers if not one.listens]
    if not silent:
        return fine("ports", f"somebody listens at {named([one.server.address for one in named_servers]) or 'none'}")
    advice = "start it, open the way to it, or correct the setting; a broker's address is its advertised.listeners"
    text = f"nobody listens: {named([f'{server.what} at {server.address}' for server in silent])}"
    # As long as one of several brokers, or of several sentinels, answers, clients find the others.
    kinds = {server.what for server in silent}
    is_broken = any(all(not one.listens for one in named_servers if one.server.what == kind) for kind in kinds)
    command = f"nc -vz {silent[0].host} {silent[0].port}"
    return Finding("ports", Level.BROKEN if is_broken else Level.WARNING, text, command, advice)


def _chain(reached: Sequence[Reached]) -> Finding:
    wrong = [(one.server, one.tls_problem) for one in reached if one.tls_problem]
    if not wrong:
        return fine("tls", "the certificates are trusted")
    server = wrong[0][0]
    command = f"openssl s_client -connect {server.address} -servername {server.host} -showcerts < /dev/null"
    text = named([f"{one.what} at {one.address}: {problem}" for one, problem in wrong])
    advice = "renew the server's certificate, or trust its authority (ssl.ca.location, ssl_ca_certs)"
    return Finding("tls", Level.BROKEN, text, command, advice)


def _ends(reached: Sequence[Reached], own: dict[str, datetime], at: datetime) -> Finding:
    ends = {f"{one.server.what} at {one.server.address}": one.ends_at for one in reached if one.ends_at is not None}
    ends |= own
    if not ends:
        return Finding("tls-expiry", Level.WARNING, "not checked: no certificate could be read", is_checked=False)
    whose, first = min(ends.items(), key=lambda item: item[1])
    days = (first - at).total_seconds() / 86_400
    text = f"{whose}: valid until {first:%Y-%m-%d %H:%M} UTC"
    if days > ENDS_SOON_DAYS:
        return fine("tls-expiry", text)
    level = Level.BROKEN if days <= 0 else Level.WARNING
    return Finding("tls-expiry", level, text, advice="renew it, and restart or reload who shows it")
