"""What is said where a disk is full: which folder's, and that room must be made."""

from __future__ import annotations

import errno
from pathlib import Path

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


def is_full(error: OSError) -> bool:
    """Whether a disk, or what this user may have of it, has no room for more."""
    return error.errno in _NO_ROOM


def problem_of(error: OSError, folder: str | Path) -> str:
    """Return why something in a folder could not be written; where the disk is full, with what to do."""
    said = str(error.strerror or error)
    return f"the disk of {folder} is full ({said}); make room on it" if is_full(error) else said
