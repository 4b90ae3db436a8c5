"""Users who are none: with their purchases `recsys doctor --probe` tries the whole way, and nothing is left of them."""

from __future__ import annotations

PROBE_PREFIX = "__recsys_probe__"
"""Begins the ids of all reserved users: no archive, model, full refresh, verification or count has them."""
PROBE_TTL_S = 600
"""How long anything of theirs stays in Redis at most, whatever becomes of who made them."""


def is_reserved(user_id: str) -> bool:
    """Whether a user is a probe."""
    return user_id.startswith(PROBE_PREFIX)
