"""What a model may be called: the name of its folder, which Redis and people say."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated

from pydantic import StringConstraints

PATTERN = r"^[0-9A-Za-z]+(?:[._-][0-9A-Za-z]+)*$"
"""Never a path, and never two dots in a row."""
MOST_CHARACTERS = 64
ModelVersion = Annotated[str, StringConstraints(strict=True, max_length=MOST_CHARACTERS, pattern=PATTERN)]
_VERSION = re.compile(PATTERN)


STAMP = "%Y%m%dT%H%M%SZ"
"""When a model was made, with which our versions begin."""


def made_at(version: str) -> datetime | None:
    """Return when a model was made, as its version says; None where a version does not say it."""
    try:
        return datetime.strptime(version.partition("-")[0], STAMP).replace(tzinfo=UTC)
    except ValueError:
        return None


def is_model_version(name: str) -> bool:
    """Whether a model may have this name."""
    return len(name) <= MOST_CHARACTERS and _VERSION.fullmatch(name) is not None
