"""What a benchmark found: one number each, perhaps with a bar it must clear; kept in results.json."""

from __future__ import annotations

import json
import os
import platform
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

FILE = Path(__file__).parent / "results.json"
_SCATTER = 0.2
TIMES = "x"
"""The unit of ratios: they alone are compared between machines, so they alone are guarded."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One number.

    Attributes
    ----------
    benchmark, case, what : str
        Which benchmark, under what circumstances, of what.
    value : float
    unit : str
    at_least, at_most : float or None
        The bar.
    """

    benchmark: str
    case: str
    what: str
    value: float
    unit: str
    at_least: float | None = None
    at_most: float | None = None

    @property
    def bar(self) -> str:
        """The bar in words."""
        if self.at_least is not None:
            return f"≥ {self.at_least:g}"
        return "" if self.at_most is None else f"≤ {self.at_most:g}"

    @property
    def holds(self) -> bool | None:
        """Whether the bar is cleared, None without one."""
        if self.at_least is not None:
            return self.value >= self.at_least
        return None if self.at_most is None else self.value <= self.at_most

    @property
    def is_clearly_missed(self) -> bool:
        """Whether the value is past its bar by more than a fifth."""
        if self.at_least is not None:
            return self.value < self.at_least * (1 - _SCATTER)
        return self.at_most is not None and self.value * (1 - _SCATTER) > self.at_most

    @property
    def shown(self) -> str:
        """The number with its unit, to three digits or four decimals."""
        digits = max(0, 3 - len(str(int(abs(self.value))))) if abs(self.value) >= 1 or not self.value else 4
        return f"{self.value:,.{digits}f} {self.unit}"


def print_table(found: Sequence[Measured]) -> None:
    """Print one line per number."""
    for case in dict.fromkeys((one.benchmark, one.case) for one in found):
        print(f"\n{case[0]}: {case[1]}")
        for one in (one for one in found if (one.benchmark, one.case) == case):
            verdict = {True: "holds", False: "MISSED", None: ""}[one.holds]
            print(f"  {one.what:<52} {one.shown:>16}  {one.bar:<8} {verdict}".rstrip(), flush=True)


def report(missed: Sequence[Measured]) -> int:
    """Print the bars that were missed, and return the exit code."""
    for one in missed:
        print(f"error: {one.benchmark}, {one.case}: {one.what} is {one.shown}, the bar is {one.bar}", file=sys.stderr)
    return 1 if missed else 0


def load() -> list[Measured]:
    """Return what is kept."""
    if not FILE.exists():
        return []
    return [Measured(**one) for run in json.loads(FILE.read_text(encoding="utf-8")).values() for one in run["found"]]


def keep(benchmark: str, found: Iterable[Measured]) -> None:
    """Replace what is kept of a benchmark."""
    kept: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
    kept[benchmark] = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "found": [asdict(one) for one in found],
    }
    FILE.write_text(json.dumps(kept, indent=1, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def machine() -> str:
    """Return what the numbers were measured on."""
    info = Path("/proc/cpuinfo")
    name = re.search(r"model name\s*: (.*)", info.read_text(encoding="utf-8")) if info.exists() else None
    return f"{name[1] if name else platform.processor()}, {os.cpu_count()} cores, Python {platform.python_version()}"
