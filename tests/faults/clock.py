"""A wall clock that a test can set."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path


class Clock:
    """The wall clock of all processes that are started with its environment, also while they run."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "clock"
        self.environment = {
            "PYTHONPATH": str(Path(__file__).parent / "settable_clock"),
            "RECSYS_TEST_CLOCK": str(self._file),
        }
        self.set(timedelta(0))

    def set(self, shift: timedelta) -> None:
        """Set it to so far from the true time; the monotonic clock is as it is."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text(str(shift.total_seconds()))
        fresh.replace(self._file)
