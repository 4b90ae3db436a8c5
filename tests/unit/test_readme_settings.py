"""The README's table of settings is the one that the code defines."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from recsys.settings import load_settings
from recsys.settings_report import describe_settings

README = Path(__file__).parents[2] / "README.md"
_START = "<!-- settings: written by tests/unit/test_readme_settings.py -->\n"
_END = "<!-- end of settings -->"


def settings_table() -> str:
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    for variable, value, _, meaning in describe_settings(load_settings()):
        rows.append(f"| `{variable}` | {f'`{value}`' if value else 'empty'} | {meaning} |")
    return "\n".join(rows) + "\n"


def test_readme_lists_every_setting_with_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("RECSYS_")]:
        monkeypatch.delenv(name)
    text = README.read_text()
    before, rest = text.split(_START)
    found, after = rest.split(_END)
    if os.environ.get("UPDATE_README"):
        README.write_text(f"{before}{_START}{settings_table()}{_END}{after}")
        return
    assert found == settings_table(), "run UPDATE_README=1 make test ARGS=tests/unit/test_readme_settings.py"
