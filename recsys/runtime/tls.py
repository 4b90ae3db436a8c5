"""What a server says to a TLS handshake, for errors that do not tell why it failed."""

from __future__ import annotations

import re
import socket
import ssl
from datetime import UTC, datetime

NO_TLS = "no TLS"
_PATIENCE_S = 1.0
_VALIDITY = re.compile(rb"\x30.(?:\x17\x0d\d{12}Z|\x18\x0f\d{14}Z)(?:\x17\x0d(\d{12})Z|\x18\x0f(\d{14})Z)", re.DOTALL)


def end_of_validity(certificate: bytes) -> datetime | None:
    """Return until when a certificate in DER form is valid; None where that cannot be read."""
    found = _VALIDITY.search(certificate)
    if found is None:
        return None
    digits, form = (found[1], "%y%m%d%H%M%S") if found[1] else (found[2], "%Y%m%d%H%M%S")
    return datetime.strptime(digits.decode(), form).replace(tzinfo=UTC)


def end_of_certificate_of(host: str, port: int, context: ssl.SSLContext) -> datetime | None:
    """Return until when a server's certificate is valid; None where the handshake fails, or that cannot be read."""
    try:
        with (
            socket.create_connection((host, port), timeout=_PATIENCE_S) as plain,
            context.wrap_socket(plain, server_hostname=host) as server,
        ):
            return end_of_validity(server.getpeercert(binary_form=True) or b"")
    except (OSError, ValueError):
        return None


def handshake_problem(host: str, port: int, context: ssl.SSLContext) -> str:
    """Return what is wrong with a server's certificate; `NO_TLS` where none is spoken or nobody answers, else empty."""
    try:
        with (
            socket.create_connection((host, port), timeout=_PATIENCE_S) as plain,
            context.wrap_socket(plain, server_hostname=host),
        ):
            return ""
    except ssl.SSLCertVerificationError as error:
        return f"{error.verify_message}".rstrip(".")
    except ssl.SSLError as error:
        return NO_TLS if error.reason in ("WRONG_VERSION_NUMBER", "UNEXPECTED_EOF_WHILE_READING") else ""
    except (OSError, ValueError):
        return NO_TLS


def takes_connections(host: str, port: int) -> bool:
    """Say whether somebody listens."""
    try:
        socket.create_connection((host, port), timeout=_PATIENCE_S).close()
    except OSError:
        return False
    return True


def answers_in_plain_text(host: str, port: int, question: bytes, answers: tuple[bytes, ...]) -> bool:
    """Say whether a server answers a question that is not encrypted, with one of these beginnings."""
    try:
        with socket.create_connection((host, port), timeout=_PATIENCE_S) as plain:
            plain.sendall(question)
            return plain.recv(100).startswith(answers)
    except OSError:
        return False
