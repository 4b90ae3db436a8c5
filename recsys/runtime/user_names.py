"""How log lines name users: by their ids, or by keyed hashes of these where logs shall hold no personal data."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

from recsys.settings import LogSettings

_DIGITS = 16


@dataclass(slots=True)
class _Names:
    key: bytes = b""


_names = _Names()
"""Of this process: there is one log."""


def name_users_by(settings: LogSettings) -> None:
    """Name users as the settings say from now on, in the log lines and errors of this process."""
    _names.key = settings.hash_key.get_secret_value().encode() if settings.hash_user_ids else b""


def are_hashed() -> bool:
    """Whether users are named by hashes."""
    return bool(_names.key)


def named(user_id: str) -> str:
    """Return the name of a user for a log line: the id, or 16 hexadecimal digits of its HMAC-SHA-256 (RFC 2104)."""
    if not _names.key:
        return user_id
    return (
        f"user-{hmac.new(_names.key, user_id.encode('utf-8', 'surrogatepass'), hashlib.sha256).hexdigest()[:_DIGITS]}"
    )
