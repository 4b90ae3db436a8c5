"""Where the command writes: results to standard output, everything else to standard error."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from recsys.runtime.logs import WithoutSecrets
from recsys.settings import Settings, load_settings, secrets

BEHIND = 2
"""Exit code when nothing differs, but consumers have yet to apply records."""
REJECTED = 3
"""Exit code when the gate has rejected a model."""
_WIDTH_ELSEWHERE = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 160
results = Console(highlight=False, markup=False, emoji=False, width=_WIDTH_ELSEWHERE)


class _WithoutSecrets(Console):
    """Takes the secrets of the settings out of every text: those of libraries and servers may quote them."""

    def print(self, *objects: Any, **options: Any) -> None:
        """Print, as a console does."""
        super().print(*(secrets.hidden_in(text) if isinstance(text, str) else text for text in objects), **options)


errors = _WithoutSecrets(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)


_NARROW = 150


def is_narrow() -> bool:
    """Whether a table must do with the width of a usual terminal, 80 characters: with fewer columns and no lines."""
    return results.width < _NARROW


def new_table(title: str = "", *, caption: str = "", show_header: bool = True) -> Table:
    """Return a table as all commands print them."""
    form = box.SIMPLE_HEAD if is_narrow() else box.HEAVY_HEAD
    return Table(
        title=title or None, title_justify="left", caption=caption or None, caption_justify="left", box=form,
        show_header=show_header, pad_edge=not is_narrow(), padding=(0, 1), show_edge=not is_narrow(),
    )  # fmt: skip


def settings_for_command() -> Settings:
    """Load the settings; a command logs only warnings, in one short line each."""
    settings = load_settings()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(WithoutSecrets("%(levelname)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("librdkafka").setLevel(logging.CRITICAL)  # what matters comes back as an error
    logging.getLogger("recsys.runtime.progress").setLevel(logging.INFO)
    return settings


def counted(count: int, what: str, many: str = "") -> str:
    """Return a number with what it counts: 1 row, 2,000 rows."""
    return f"{count:,} {what if count == 1 else many or f'{what}s'}"
