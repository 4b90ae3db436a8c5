"""``make audit``: known vulnerabilities of locked packages, or which data about them could not be had.

Exit codes: 0 if there are data about every package and no vulnerability is known, 1 if one is, 2 if data are missing.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_SERVICES = {"pypi": "the Python Package Index", "osv": "OSV"}
_KNOWN, _NO_DATA = 1, 2
Package = Mapping[str, Any]
"""As pip-audit tells it: its name and, if there are data, version and vulnerabilities."""


def packages_of(locks: Sequence[str], service: str) -> list[Package]:
    """Return what a service tells about all packages of locks; nothing if it does not answer."""
    files = [word for lock in locks for word in ("--requirement", lock)]
    command = [sys.executable, "-m", "pip_audit", "--disable-pip", "--require-hashes", "--progress-spinner", "off"]
    done = subprocess.run(
        [*command, "--format", "json", "--vulnerability-service", service, *files],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    try:
        return list(json.loads(done.stdout)["dependencies"])
    except (ValueError, KeyError):
        problem = done.stderr.strip().splitlines() or ["no answer"]
        print(f"{_SERVICES[service]} cannot be asked: {problem[-1][:300]}", file=sys.stderr)
        return []


def merged(answers: Iterable[Sequence[Package]]) -> dict[str, Package]:
    """Return name → what is known, from the first answer that has data about the package."""
    found: dict[str, Package] = {}
    for answer in answers:
        for package in answer:
            if "skip_reason" in found.get(package["name"], {"skip_reason": ""}):
                found[package["name"]] = package
    return found


def report(found: Mapping[str, Package]) -> tuple[list[str], int]:
    """Return lines for people, and the exit code."""
    lines = [
        f"{name} {package['version']}: {known['id']}, mended in {', '.join(known['fix_versions']) or 'no version'}"
        for name, package in sorted(found.items())
        for known in package.get("vulns", [])
    ]
    missing = sorted(name for name, package in found.items() if "skip_reason" in package)
    checked = len(found) - len(missing)
    summary = f"{len(lines)} known vulnerabilities in {checked} packages"
    if not found or missing:
        names = ", ".join(missing) or "all packages"
        lines.append(f"{summary}; NO DATA could be had about {len(missing) or 'any'}, so nothing is known of {names}")
        return lines, _KNOWN if len(lines) > 1 else _NO_DATA
    return [*lines, summary], _KNOWN if lines else 0


def main() -> int:
    """Audit the locks that are named; print what is known."""
    locks = sys.argv[1:]
    answers = [packages_of(locks, "pypi")]
    if not answers[0] or any("skip_reason" in package for package in answers[0]):
        answers.append(packages_of(locks, "osv"))
    lines, code = report(merged(answers))
    print("\n".join(lines))
    return code


if __name__ == "__main__":
    sys.exit(main())
