"""Why Kafka cannot be used: the calls of librdkafka only time out; the cause stands in its events and log lines."""

from __future__ import annotations

import re
import ssl
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from recsys.runtime.tls import NO_TLS, end_of_validity, handshake_problem, takes_connections
from recsys.settings import KafkaSettings
from recsys.settings.masking import is_secret
from recsys.settings.regular_files import open_regular

__all__ = [
    "Causes",
    "causes_of",
    "end_of_certificate",
    "no_broker_there",
    "tls_context",
    "user_of",
    "without_secrets",
]
_NEWEST_S = 60.0
_AGO = re.compile(r" \(after \d+ms in state (\w+)[^)]*\)")
_CERTIFICATE_REFUSED = r"alert (?:certificate|bad certificate|unsupported certificate|unknown ca|handshake failure)"


def user_of(settings: KafkaSettings) -> str:
    """Return who logs in, as Kafka's ACLs name it: ``User:name``; "this user" where only the broker knows the name."""
    name = settings.librdkafka.get("sasl.username")
    return f"User:{name}" if name else "this user"


def without_secrets(settings: KafkaSettings, text: str) -> str:
    """Return a text of librdkafka's without the passwords and keys among the operator's properties."""
    for name, value in settings.librdkafka.items():
        if is_secret(name) and isinstance(value, str) and value:
            text = text.replace(value, "***")
    return text


class Causes:
    """What the clients of one Kafka were told when a connection failed: the newest specific cause, put into words.

    Threads of several clients may note what they hear.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._heard: tuple[float, Callable[[], str]] | None = None

    def note(self, text: str) -> None:
        """Note what librdkafka says; what names no cause is passed over."""
        for pattern, explain in _CAUSES:
            if match := re.search(pattern, text):
                with self._lock:
                    self._heard = (time.monotonic(), partial(explain, self._settings, match))
                return

    def without_secrets(self, text: str) -> str:
        """Return a text without the operator's passwords and keys."""
        return without_secrets(self._settings, text)

    def forget(self) -> None:
        """Forget what was noted: a broker has answered."""
        with self._lock:
            self._heard = None

    def newest(self) -> str:
        """Return the newest cause in words for an operator; empty when none has been told in the last minute."""
        with self._lock:
            heard = self._heard
        if heard is None or time.monotonic() - heard[0] > _NEWEST_S:
            return ""
        return without_secrets(self._settings, heard[1]())


_known: dict[str, Causes] = {}


def causes_of(settings: KafkaSettings) -> Causes:
    """Return what is known of the Kafka that these settings lead to, for all clients of this process."""
    return _known.setdefault(settings.model_dump_json(), Causes(settings))


def no_broker_there(settings: KafkaSettings) -> str:
    """Name a bootstrap server that takes connections; one that ends them without a word is perhaps no Kafka broker."""
    for address in settings.bootstrap_servers.split(","):
        server = address.strip().rpartition("://")[2]
        host, _, port = server.rpartition(":")
        if port.isdecimal() and takes_connections(host.strip("[]"), int(port)):
            return (
                f"what listens at {server} does not answer as a Kafka broker does; is that the broker's address and "
                f"port (RECSYS_KAFKA__BOOTSTRAP_SERVERS)?"
            )
    return ""


def _refused_login(settings: KafkaSettings, match: re.Match[str]) -> str:
    mechanism = settings.librdkafka.get("sasl.mechanism") or settings.librdkafka.get("sasl.mechanisms") or "GSSAPI"
    return f"{user_of(settings)} is refused: wrong user name or password for {mechanism} ({_short(match[1])})"


def _other_mechanism(_: KafkaSettings, match: re.Match[str]) -> str:
    return f"the broker does not take sasl.mechanism {match[1]}, but {match[2]}"


def _unknown_host(_: KafkaSettings, match: re.Match[str]) -> str:
    return f"the host of {match[1]} is unknown ({_short(match[2])}); look at RECSYS_KAFKA__BOOTSTRAP_SERVERS"


def _no_tls_there(_: KafkaSettings, match: re.Match[str]) -> str:
    return (
        f"{match[1]} speaks no TLS; in RECSYS_KAFKA__LIBRDKAFKA set security.protocol to PLAINTEXT or "
        f"SASL_PLAINTEXT, or use the broker's port for TLS"
    )


def _closed(settings: KafkaSettings, match: re.Match[str]) -> str:
    address = match[1]
    protocol = str(settings.librdkafka.get("security.protocol", "PLAINTEXT")).upper()
    if "SSL" not in protocol and _handshake(settings, address) != NO_TLS:
        return (
            f"{address} expects TLS and closes plain connections; in RECSYS_KAFKA__LIBRDKAFKA set security.protocol "
            f"to {'SASL_SSL' if protocol.startswith('SASL') else 'SSL or SASL_SSL'}"
        )
    login = "" if protocol.startswith("SASL") else "it expects a login (set security.protocol to SASL_…), or "
    return f"{address} closes every connection at once; perhaps {login}it is no Kafka broker"


def _unverified(settings: KafkaSettings, match: re.Match[str]) -> str:
    found = _handshake(settings, match[1])
    why = found if found not in ("", NO_TLS) else "look at ssl.ca.location"
    return f"the certificate of {match[1]} cannot be verified: {why}"


def _refused_certificate(settings: KafkaSettings, match: re.Match[str]) -> str:
    given = settings.librdkafka.get("ssl.certificate.location")
    inline = settings.librdkafka.get("ssl.certificate.pem")
    if not (given or inline or settings.librdkafka.get("ssl.keystore.location")):
        return f"{match[1]} demands a client certificate; set ssl.certificate.location and ssl.key.location"
    named = f"the client certificate {given or ''}".rstrip()
    ended = end_of_certificate(str(given or ""), str(inline or ""))
    if ended is not None and ended < datetime.now(UTC):
        return f"{named} has expired, on {ended:%Y-%m-%d at %H:%M:%S} UTC; {match[1]} refuses it"
    return f"{match[1]} refuses {named}: not by an authority that it trusts, or expired ({match[2].strip()})"


def _not_there(_: KafkaSettings, match: re.Match[str]) -> str:
    return f"{match[1]} cannot be reached: {_short(match[2])}"


def _said(_: KafkaSettings, match: re.Match[str]) -> str:
    return _short(match[0])


_AT = r"(?:\w+://)?([^\s/]+)/\w+: "
_CAUSES: list[tuple[str, Callable[[KafkaSettings, re.Match[str]], str]]] = [
    (r"SASL (\S+) mechanism handshake failed:.*supported mechanisms: ([\w,-]+)", _other_mechanism),
    (r"SASL authentication error: (.*)", _refused_login),
    (r"Failed to resolve '([^']+)': (.*)", _unknown_host),
    (_AT + r".*PLAINTEXT broker listener", _no_tls_there),
    (_AT + r".*wrong version number", _no_tls_there),
    (_AT + r".*certificate verify failed", _unverified),
    (_AT + rf".*({_CERTIFICATE_REFUSED}[a-z ]*)", _refused_certificate),
    (_AT + r"Disconnected: connection closed by peer.*after \d{1,3}ms in state (?:APIVERSION_QUERY|UP)", _closed),
    (_AT + r"Connect to \S+ failed: (.*)", _not_there),
    (r"SASL .*|Failed to acquire .*", _said),
]
"""What librdkafka says, and how it is explained; the first that matches counts."""


def _short(text: str) -> str:
    """Return what librdkafka says without the time that it took."""
    return _AGO.sub("", text).strip().rstrip(".")


def tls_context(settings: KafkaSettings) -> ssl.SSLContext:
    """Return what decides whether a broker's certificate is trusted, by the operator's properties.

    Raises
    ------
    OSError, ValueError
        When a file among them cannot be read.
    """
    authority = str(settings.librdkafka.get("ssl.ca.location", ""))
    context = ssl.create_default_context(
        cafile=authority if Path(authority).is_file() else None,
        capath=authority if Path(authority).is_dir() else None,
        cadata=str(settings.librdkafka.get("ssl.ca.pem", "")) or None,
    )
    if str(settings.librdkafka.get("ssl.endpoint.identification.algorithm", "https")) == "none":
        context.check_hostname = False
    return context


def _handshake(settings: KafkaSettings, address: str) -> str:
    """Say what is wrong with a server's certificate, which librdkafka does not; `NO_TLS` where none is spoken."""
    host, _, port = address.rpartition(":")
    try:
        return handshake_problem(host.strip("[]"), int(port), tls_context(settings))
    except (OSError, ValueError):
        return NO_TLS


def _ascii_of(path: str) -> str:
    with open_regular(path) as file:
        return file.read().decode("ascii")


def end_of_certificate(path: str, text: str) -> datetime | None:
    """Return until when a certificate in PEM form, in a file or as text, is valid; None where that cannot be read."""
    try:
        pem = text or _ascii_of(path)
        begin, end = pem.index(ssl.PEM_HEADER), pem.index(ssl.PEM_FOOTER) + len(ssl.PEM_FOOTER)
        return end_of_validity(ssl.PEM_cert_to_DER_cert(pem[begin:end]))
    except (OSError, ValueError):
        return None
