"""`make audit` never takes missing data for safety, and `make sbom` names every locked package."""

from __future__ import annotations

import re
import runpy
import subprocess
from pathlib import Path
from typing import Any

from tests.services import PROJECT

AUDIT: dict[str, Any] = runpy.run_path(str(PROJECT / "deploy" / "audit" / "audit.py"))
SAFE = {"name": "numpy", "version": "2.0", "vulns": []}
BROKEN = {"name": "jinja2", "version": "2.4", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2.5", "3.0"]}]}
ABANDONED = {"name": "old", "version": "1.0", "vulns": [{"id": "PYSEC-2", "fix_versions": []}]}
UNKNOWN = {"name": "numba", "skip_reason": "not found"}


def said(*answers: list[dict[str, Any]]) -> tuple[list[str], int]:
    found: tuple[list[str], int] = AUDIT["report"](AUDIT["merged"](answers))
    return found


def test_nothing_known_of_packages_with_data_is_good() -> None:
    assert said([SAFE]) == (["0 known vulnerabilities in 1 packages"], 0)


def test_a_known_vulnerability_is_named_with_what_mends_it() -> None:
    lines, code = said([SAFE, BROKEN, ABANDONED])
    assert lines == [
        "jinja2 2.4: PYSEC-1, mended in 2.5, 3.0",
        "old 1.0: PYSEC-2, mended in no version",
        "2 known vulnerabilities in 3 packages",
    ]
    assert code == 1


def test_missing_data_are_not_taken_for_safety() -> None:
    lines, code = said([SAFE, UNKNOWN])
    assert lines == [
        "0 known vulnerabilities in 1 packages; NO DATA could be had about 1, so nothing is known of numba"
    ]
    assert code == 2
    assert said([])[1] == said([], [])[1] == 2
    assert said([UNKNOWN, BROKEN])[1] == 1


def test_another_service_fills_in_what_the_first_does_not_know() -> None:
    known = {"name": "numba", "version": "0.61", "vulns": []}
    assert said([SAFE, UNKNOWN], [known])[1] == 0
    assert said([SAFE, BROKEN], [{**BROKEN, "vulns": []}])[1] == 1, "the first one has data"


def test_tools_of_the_audit_are_locked_and_installed_apart(tmp_path: Path) -> None:
    wanted = re.findall(r"^[a-z-]+$", (PROJECT / "deploy/audit/requirements.in").read_text(), flags=re.MULTILINE)
    lock = (PROJECT / "deploy/audit/requirements.lock").read_text()
    assert wanted == ["cyclonedx-bom", "pip-audit"]
    assert all(f"\n{name}==" in lock for name in wanted)
    assert "://" not in lock
    dry = subprocess.run(
        ["make", "--dry-run", "--always-make", "audit", "sbom"], cwd=PROJECT, capture_output=True, text=True, check=True
    ).stdout
    for line in dry.splitlines():
        if "pip install" in line or "audit.py" in line or "cyclonedx-py" in line:
            assert line.lstrip().startswith(".venv-audit/bin/"), line
    assert "requirements/services.lock" in dry
