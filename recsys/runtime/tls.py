"""What a server says to a TLS handshake, for errors that do not tell why it failed."""

from __future__ import annotations

import socket
import ssl

NO_TLS = "no TLS"
_PATIENCE_S = 1.0


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
