"""Writes docs/performance.md and its plots from what is kept."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from benchmarks.results import FILE, Measured

DOCS = Path(__file__).parent.parent / "docs"
DOCUMENT = DOCS / "performance.md"
PLOT = DOCS / "performance-top-n.png"
_BEGIN, _END = "<!-- results: written by make bench -->\n", "<!-- end of results -->"


def write(found: Sequence[Measured]) -> None:
    """Replace the tables between the markers, and draw how the top-N grows with the catalogue."""
    before, _, rest = DOCUMENT.read_text(encoding="utf-8").partition(_BEGIN)
    _, _, after = rest.partition(_END)
    DOCUMENT.write_text(f"{before}{_BEGIN}{_tables(found)}{_END}{after}", encoding="utf-8")
    _draw(found)


def _tables(found: Sequence[Measured]) -> str:
    runs = json.loads(FILE.read_text(encoding="utf-8"))
    lines: list[str] = []
    for benchmark in dict.fromkeys(one.benchmark for one in found):
        run = runs[benchmark]
        lines += [f"\n### {benchmark}\n", f"`make bench ARGS={benchmark}`, {run['at'][:10]}, {run['machine']}\n"]
        lines += ["| circumstances | what | measured | bar | |", "|---|---|---:|---|---|"]
        for one in (one for one in found if one.benchmark == benchmark):
            verdict = {True: "holds", False: "**missed**", None: ""}[one.holds]
            lines.append(f"| {one.case} | {one.what} | {one.shown} | {one.bar} | {verdict} |")
    return "\n".join(lines) + "\n"


def _draw(found: Sequence[Measured]) -> None:
    series: dict[str, list[tuple[int, float]]] = {}
    for one in found:
        match = re.match(r"([\d,]+) items.*batch \d{2,}", one.case)
        if one.benchmark == "top-n" and match and one.unit == "µs/user":
            series.setdefault(one.what, []).append((int(match[1].replace(",", "")), one.value))
    if not series:
        return
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for what, points in series.items():
        points.sort()
        ours = what == "recsys.ranking"
        axes.plot(*zip(*points, strict=True), marker="o", label=what, linewidth=2.5 if ours else 1.2)
    axes.set(xscale="log", yscale="log", xlabel="items", ylabel="µs per user, batch of 512", title="Exact top-50")
    axes.grid(visible=True, which="major", alpha=0.3)
    axes.legend()
    figure.savefig(PLOT, dpi=110, metadata={"Software": None})
