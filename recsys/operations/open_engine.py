"""Opening what makes models, on the archive as it is now."""

from __future__ import annotations

from datetime import datetime

from recsys.storage.archive import Archive
from recsys.training.engine import Engine, InMemoryEngine

_DAY_S = 24 * 3600


def open_engine(archive: Archive) -> Engine:
    """Read the archive into an engine."""
    return InMemoryEngine(archive.events())


def holdout_begins(engine: Engine, at: datetime, *, holdout_days: float) -> int:
    """Return where the hold-out begins that the gate judges by, in epoch seconds."""
    return engine.newest_s(int(at.timestamp())) - round(holdout_days * _DAY_S)
