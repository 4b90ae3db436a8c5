"""What a program says that lacks a library: which extra of pyproject.toml brings it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

OWN_PACKAGES = ("api", "consumer", "recsys", "trainer")
_OF_REGISTRY = ("attr", "attrs", "authlib", "cachetools", "fastavro", "google", "httpx2", "jsonschema", "referencing")
_BROUGHT_BY = {"matplotlib": "report", "optuna": "tune", **dict.fromkeys(_OF_REGISTRY, "registry")}
"""Libraries that a program needs only for some of its work, with the extra that adds them."""


@contextmanager
def extra_named(program: str, extra: str) -> Iterator[None]:
    """End the program with one line if a library cannot be imported within the block.

    Parameters
    ----------
    program : str
        As the user typed it.
    extra : str
        The extra that brings all that the program needs, but for the work that `_BROUGHT_BY` knows.

    Raises
    ------
    SystemExit
        With exit code 1, when a module of somebody else's is not installed. A missing module of our own or of Python's
        is a fault of ours, not an installation that is too small: it goes on as it is.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library in ("", *OWN_PACKAGES) or library in sys.stdlib_module_names:
            raise
        install = f'pip install "recsys[{_BROUGHT_BY.get(library, extra)}]"'
        print(f"error: {program} needs {library}; install it with: {install}", file=sys.stderr)
        sys.exit(1)
