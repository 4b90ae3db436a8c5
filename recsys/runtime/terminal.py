"""The console of the commands: what it prints is escaped."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from recsys.runtime.escapes import escaped
from recsys.settings import secrets


class SafeConsole(Console):
    """A console for texts that hold what somebody else has chosen.

    Strings are escaped before they are laid out, wherever they stand: printed, in tables, titles of tables. Markup in
    them is never looked at. Whoever makes a `Text` escapes it.

    Parameters
    ----------
    lines : bool
        Whether strings may have several lines.
    without_secrets : bool
        Whether the secrets of the settings are taken out, as in errors: texts of libraries and servers may quote them.
    options : Any
        Those of a console.
    """

    def __init__(self, *, lines: bool = False, without_secrets: bool = False, **options: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **options)
        self._lines = lines
        self._without_secrets = without_secrets

    def render_str(self, text: str, **options: Any) -> Text:
        """Return a string as the console lays it out."""
        shown = secrets.hidden_in(text) if self._without_secrets else text
        return super().render_str(escaped(shown, lines=self._lines), **options)
