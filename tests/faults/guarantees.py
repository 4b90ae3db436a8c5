"""Writes the table of docs/guarantees.md: `python -m tests.faults.guarantees RESULTS`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "guarantees.md"
_BEGIN, _END = "<!-- outcomes: written by make faults -->\n", "<!-- end of outcomes -->"
_HEAD = (
    "| scenario | what happens | purchases | faults | lost | doubled | wrong lists | seconds to recover |\n"
    "|---|---|---|---|---|---|---|---|\n"
)


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as a Markdown table; of rows with the same title the newest counts."""
    newest = {(row["scenario"], row["title"]): row for row in rows}
    lines = [
        f"| {scenario} | {title} | {row['events']:,} | {row['faults']:,} | {row['lost']} | {row['doubled']} "
        f"| {row['wrong_lists']} | {_seconds(row['recovery_s'])} |\n"
        for (scenario, title), row in sorted(newest.items())
    ]
    return _HEAD + "".join(lines)


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def rows_of(text: str) -> list[dict[str, Any]]:
    """Return the rows of such a table: the inverse of `table`."""
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.removeprefix(_HEAD).splitlines()]
    return [
        {
            "scenario": int(scenario),
            "title": title,
            "events": int(events.replace(",", "")),
            "faults": int(faults.replace(",", "")),
            "lost": int(lost),
            "doubled": int(doubled),
            "wrong_lists": int(wrong),
            "recovery_s": float(recovery) if recovery else None,
        }
        for scenario, title, events, faults, lost, doubled, wrong, recovery in cells
    ]


def main() -> None:
    """Write the new rows between the markers; those of scenarios that were not run stay."""
    rows = [json.loads(line) for line in Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()]
    before, _, rest = DOCUMENT.read_text(encoding="utf-8").partition(_BEGIN)
    known, _, after = rest.partition(_END)
    DOCUMENT.write_text(f"{before}{_BEGIN}{table([*rows_of(known), *rows])}{_END}{after}", encoding="utf-8")
    print(f"{DOCUMENT.name}: {len(rows)} outcomes")


if __name__ == "__main__":
    main()
