"""Writes the tables of docs/quality.md from what is kept."""

from __future__ import annotations

import json
from collections.abc import Sequence

from benchmarks.document import DOCS, replace
from benchmarks.results import FILE, Measured

DOCUMENT = DOCS / "quality.md"
_BEGIN, _END = "<!-- results: written by make quality -->\n", "<!-- end of results -->"


def write_document(found: Sequence[Measured]) -> None:
    """Replace the tables between the markers."""
    run = json.loads(FILE.read_text(encoding="utf-8"))["quality"]
    lines = [f"`make quality DATA=purchases.parquet`, {run['at'][:10]}, {run['machine']}"]
    for case in dict.fromkeys(one.case for one in found):
        lines += [f"\n**{case}**\n", "| what | measured | bar | |", "|---|---:|---|---|"]
        for one in (one for one in found if one.case == case):
            verdict = {True: "holds", False: "**missed**", None: ""}[one.holds]
            digits = 0 if one.unit else 4
            bar = one.bar if one.at_least is None else f"≥ {one.at_least:.{digits}f}"
            lines.append(f"| {one.what} | {one.value:.{digits}f} {one.unit} | {bar} | {verdict} |")
    replace(DOCUMENT, _BEGIN, _END, "\n".join(lines) + "\n")
