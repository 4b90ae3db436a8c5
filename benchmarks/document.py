"""Writes docs/performance.md and its plots from what is kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from benchmarks.plots import draw_growth, draw_top_n
from benchmarks.results import FILE, Measured

DOCS = Path(__file__).parent.parent / "docs"
DOCUMENT = DOCS / "performance.md"
_ELSEWHERE = ("quality", "poisoning")
"""They are in quality.md."""
_BEGIN, _END = "<!-- results: written by make bench -->\n", "<!-- end of results -->"


def write(found: Sequence[Measured]) -> None:
    """Replace the tables between the markers, and draw how cost grows."""
    replace(DOCUMENT, _BEGIN, _END, _tables(found))
    draw_top_n(found, DOCS / "performance-top-n.png")
    draw_growth(found, DOCS / "performance-growth.png")


def replace(document: Path, begin: str, end: str, text: str) -> None:
    """Put text between two markers."""
    before, _, rest = document.read_text(encoding="utf-8").partition(begin)
    _, _, after = rest.partition(end)
    document.write_text(f"{before}{begin}{text}{end}{after}", encoding="utf-8")


def _tables(found: Sequence[Measured]) -> str:
    runs = json.loads(FILE.read_text(encoding="utf-8"))
    lines: list[str] = []
    for benchmark in dict.fromkeys(one.benchmark for one in found if one.benchmark not in _ELSEWHERE):
        run = runs[benchmark]
        command = "make api-check" if benchmark == "api" else f"make bench ARGS={benchmark}"
        lines += [f"\n### {benchmark}\n", f"`{command}`, {run['at'][:10]}, {run['machine']}\n"]
        lines += ["| circumstances | what | measured | bar | |", "|---|---|---:|---|---|"]
        for one in (one for one in found if one.benchmark == benchmark):
            verdict = {True: "holds", False: "**missed**", None: ""}[one.holds]
            lines.append(f"| {one.case} | {one.what} | {one.shown} | {one.bar} | {verdict} |")
    return "\n".join(lines) + "\n"
