"""Kinds of reasons: why records are malformed, without what differs from record to record."""

from __future__ import annotations

import re
from collections import Counter

_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
_NUMBER = re.compile(r"\d[\d,.]*")
_LONGEST = 120
_MOST_KINDS = 20
OTHERS = "others"


def kind_of(reason: str) -> str:
    """Return a reason without the numbers and texts that it quotes of the record."""
    kind = _NUMBER.sub("0", _QUOTED.sub("'…'", reason))
    return kind if len(kind) <= _LONGEST else f"{kind[: _LONGEST - 1]}…"


def count_kind(counts: Counter[str], reason: str) -> str:
    """Count a reason by its kind, and return that; once there are 20 kinds, new ones count as others."""
    kind = kind_of(reason)
    if kind not in counts and len(counts) >= _MOST_KINDS:
        kind = OTHERS
    counts[kind] += 1
    return kind
