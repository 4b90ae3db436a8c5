"""docs/settings.md lists the settings that the code defines."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from recsys.settings import load_settings
from recsys.settings.report import describe_settings

DOCUMENT = Path(__file__).parents[2] / "docs" / "settings.md"
_START = "<!-- written by tests/unit/test_settings_document.py -->\n"


def settings_table() -> str:
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    for variable, value, _, meaning in describe_settings(load_settings()):
        rows.append(f"| `{variable}` | {f'`{value}`' if value else 'empty'} | {meaning} |")
    return "\n".join(rows) + "\n"


def test_the_document_lists_every_setting_with_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("RECSYS_")]:
        monkeypatch.delenv(name)
    before, found = DOCUMENT.read_text().split(_START)
    if os.environ.get("UPDATE_DOCUMENTS"):
        DOCUMENT.write_text(f"{before}{_START}{settings_table()}")
        return
    assert found == settings_table(), "run UPDATE_DOCUMENTS=1 make test ARGS=tests/unit/test_settings_document.py"
