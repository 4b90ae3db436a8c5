"""What `recsys status` and `recsys doctor` say of a shop, as JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from tests.services import Shop

LENIENT = {"RECSYS_STATUS__DISK_FREE": "0.000001", "RECSYS_STATUS__MEMORY_HEADROOM": "0.000001"}
"""What the machine of the tests has left is no matter."""
LEVELS = ["ok", "warning", "broken"]


@dataclass(frozen=True)
class Said:
    """What the command said: the exit code, the object, and what it lists by code, each with its level."""

    code: int
    found: dict[str, Any]
    listed: dict[str, dict[str, Any]]

    def level(self, code: str) -> str:
        return str(self.listed[code]["level"])

    def text(self, code: str) -> str:
        return str(self.listed[code]["text"])

    def command(self, code: str) -> str:
        return str(self.listed[code]["command"])

    @property
    def wrong(self) -> set[str]:
        """The codes of all that is not well."""
        return {code for code in self.listed if self.level(code) != "ok"}


def said_by(shop: Shop, command: str, *arguments: str, lists: str, **settings: str) -> Said:
    """Ask for JSON: nothing but JSON comes, and level and exit code are those of the worst of what is listed."""
    done = shop.recsys(command, "--json", *arguments, expect=None, **{**LENIENT, **settings})
    assert "Traceback" not in done.stderr
    found = json.loads(done.stdout)
    said = Said(done.returncode, found, {one["code"]: one for one in found[lists]})
    print(*(said.listed[code] for code in said.wrong), sep="\n")  # for whoever sees it fail
    assert done.returncode == max(LEVELS.index(one["level"]) for one in found[lists])
    assert found["level"] == LEVELS[done.returncode]
    return said
