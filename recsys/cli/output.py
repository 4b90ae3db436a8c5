"""Where the command writes: results to standard output, everything else to standard error."""

from __future__ import annotations

import logging
import os
import sys

from rich.console import Console

from recsys.settings import Settings, load_settings

REJECTED = 3
"""Exit code when the gate has rejected a model."""
_WIDTH_ELSEWHERE = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 160
results = Console(highlight=False, markup=False, emoji=False, width=_WIDTH_ELSEWHERE)
errors = Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)


def settings_for_command() -> Settings:
    """Load the settings; a command logs only warnings, in one short line each."""
    settings = load_settings()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    logging.getLogger("librdkafka").setLevel(logging.CRITICAL)  # what matters comes back as an error
    logging.getLogger("recsys.runtime.progress").setLevel(logging.INFO)
    return settings


def counted(count: int, what: str, many: str = "") -> str:
    """Return a number with what it counts: 1 row, 2,000 rows."""
    return f"{count:,} {what if count == 1 else many or f'{what}s'}"
