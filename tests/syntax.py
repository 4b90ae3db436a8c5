"""The code of this project as syntax trees, for tests that look at it."""

from __future__ import annotations

import ast
import gc
from pathlib import Path


def nodes_in(path: Path) -> list[ast.AST]:
    """Return all nodes of a file's syntax tree.

    No garbage is collected while it is parsed: what reports an error from there, such as asyncio that of a task nobody
    waited for, parses code as well, and Python 3.11 cannot do that within itself (CPython issue 106905).
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        return list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    finally:
        if was_on:
            gc.enable()
