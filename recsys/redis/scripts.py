"""The Lua scripts of this project, as Redis is given them."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import resources
from typing import NamedTuple


class Script(NamedTuple):
    """A script, and the digest by which EVALSHA names it."""

    text: str
    digest: str


@cache
def script(name: str) -> Script:
    """Return ``lua/<name>.lua``, behind what all of them begin with."""
    folder = resources.files("recsys.redis").joinpath("lua")
    text = "".join(folder.joinpath(f"{part}.lua").read_text(encoding="utf-8") for part in ("common", name))
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())
