"""Which libraries are there: programs run as if only some of them were installed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Collection, Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from recsys.runtime.extras import OWN_PACKAGES

PROJECT = Path(__file__).parents[1]
PYPROJECT: dict[str, Any] = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS: dict[str, list[str]] = PYPROJECT["project"]["optional-dependencies"]
_BLOCKER = """
import os, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in sys.stdlib_module_names or top.startswith("_") or top in OWN:
            return None
        if top in BLOCKED or (ALLOWED is not None and top not in ALLOWED):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None

sys.meta_path.insert(0, Blocker())
"""


def run_without(library: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python as if one library were not installed."""
    return _run({library}, None, arguments, environment)


def run_with_only(modules: Collection[str] | None, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python as if no other modules than these were installed; None means all that are."""
    return _run((), modules, arguments, {})


def _run(
    blocked: Collection[str], allowed: Collection[str] | None, arguments: Iterable[str], environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RECSYS_")}
    with tempfile.TemporaryDirectory() as folder:
        names = (
            f"OWN = {set(OWN_PACKAGES)}\nBLOCKED = {set(blocked)}\n"
            f"ALLOWED = {None if allowed is None else set(allowed)}\n"
        )
        Path(folder, "sitecustomize.py").write_text(names + _BLOCKER, encoding="utf-8")
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=PROJECT,
            env={**inherited, "PYTHONPATH": f"{folder}{os.pathsep}{PROJECT}", **environment},
            capture_output=True,
            text=True,
            check=False,
        )


def requirements_of(extra: str) -> list[str]:
    """Return what an extra asks for beside the base dependencies, those of the extras that it is made of included."""
    found = []
    for text in EXTRAS[extra]:
        requirement = Requirement(text)
        if requirement.name == "recsys":
            found += [inner for name in sorted(requirement.extras) for inner in requirements_of(name)]
        else:
            found.append(text)
    return found


def distribution_name(name: str) -> str:
    """Return a distribution's name as it is compared."""
    return re.sub(r"[-_.]+", "-", name).lower()


@cache
def _modules() -> dict[str, set[str]]:
    modules: dict[str, set[str]] = {}
    for module, distributions in packages_distributions().items():
        for name in distributions:
            modules.setdefault(distribution_name(name), set()).add(module)
    return modules


def modules_of(requirements: Iterable[str]) -> set[str]:
    """Return the modules at the top level that pip would install for requirements, with all that those need."""
    wanted = [Requirement(text) for text in requirements]
    seen: set[tuple[str, str]] = set()
    modules: set[str] = set()
    while wanted:
        requirement = wanted.pop()
        name = distribution_name(requirement.name)
        for extra in ("", *requirement.extras):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            modules |= _modules().get(name, set())
            try:
                needed = [Requirement(text) for text in requires(name) or []]
            except PackageNotFoundError:  # of another system or Python
                continue
            wanted += [need for need in needed if need.marker is None or need.marker.evaluate({"extra": extra})]
    return modules
