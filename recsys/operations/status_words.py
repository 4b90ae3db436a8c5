"""Numbers in words, for the lines of `recsys status`."""

from __future__ import annotations

from collections.abc import Sequence

_MOST_NAMED = 3


def named(names: Sequence[str]) -> str:
    """Name the first three different ones, and say how many there are besides."""
    shown = list(dict.fromkeys(names))
    more = f" and {len(shown) - _MOST_NAMED:,} more" if len(shown) > _MOST_NAMED else ""
    return f"{', '.join(shown[:_MOST_NAMED])}{more}"


def counted(count: int, what: str, many: str = "") -> str:
    """Return a number with what it counts: 1 record, 2,000 records."""
    return f"{count:,} {what if count == 1 else many or f'{what}s'}"


def size(n_bytes: int) -> str:
    """Return a number of bytes in the unit that fits."""
    for unit, name in ((2**30, "GiB"), (2**20, "MiB")):
        if n_bytes >= unit:
            return f"{n_bytes / unit:,.1f} {name}"
    return f"{n_bytes / 2**10:,.0f} KiB"


def duration(seconds: float) -> str:
    """Return a time in the unit that fits."""
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    for unit, name in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:,.0f} {name}"
    return f"{seconds:.0f} s"
