"""Where the command writes: results to standard output, everything else to standard error."""

from __future__ import annotations

import logging
import os
import sys

from rich import box
from rich.table import Table
from rich.text import Text

from recsys.runtime.escapes import escaped
from recsys.runtime.logs import LineFormatter, in_short
from recsys.runtime.terminal import SafeConsole
from recsys.settings import Settings, load_settings

BEHIND = 2
"""Exit code when nothing differs, but consumers have yet to apply records."""
REJECTED = 3
"""Exit code when the gate has rejected a model."""
_WIDTH_ELSEWHERE = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 160
results = SafeConsole(width=_WIDTH_ELSEWHERE)
errors = SafeConsole(stderr=True, soft_wrap=True, without_secrets=True)
_NARROW = 150


def is_narrow() -> bool:
    """Whether a table must do with the width of a usual terminal, 80 characters: with fewer columns and no lines."""
    return results.width < _NARROW


def new_table(title: str = "", *, caption: str = "", show_header: bool = True) -> Table:
    """Return a table as all commands print them; the caption may have several lines."""
    form = box.SIMPLE_HEAD if is_narrow() else box.HEAVY_HEAD
    below = Text(escaped(caption, lines=True), style="table.caption") if caption else None
    return Table(
        title=title or None, title_justify="left", caption=below, caption_justify="left", box=form,
        show_header=show_header, pad_edge=not is_narrow(), padding=(0, 1), show_edge=not is_narrow(),
    )  # fmt: skip


def settings_for_command() -> Settings:
    """Load the settings; a command logs only warnings, in one short line each."""
    settings = load_settings()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter(in_short))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("librdkafka").setLevel(logging.CRITICAL)  # what matters comes back as an error
    logging.getLogger("recsys.runtime.progress").setLevel(logging.INFO)
    return settings


def print_json(text: str) -> None:
    """Write JSON to standard output, the same but for characters that a terminal obeys: these are escaped in it."""
    print(escaped(text, lines=True))


def prices_left_out(count: int) -> str:
    """Return the sentence about prices that are none."""
    return f"{counted(count, 'price')} left out that cannot be read; no model uses prices"


def counted(count: int, what: str, many: str = "") -> str:
    """Return a number with what it counts: 1 row, 2,000 rows."""
    return f"{count:,} {what if count == 1 else many or f'{what}s'}"
