"""The console of the commands: what it prints is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.segment import Segment
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


class Unpadded:
    """What is printed without the blanks that rich puts behind a line: whoever copies it would copy them too.

    Parameters
    ----------
    shown : RenderableType
    """

    def __init__(self, shown: RenderableType) -> None:
        self._shown = shown

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield what is shown, line by line."""
        for line in Segment.split_lines(console.render(self._shown, options)):
            yield from _without_blanks_behind(line)
            yield Segment.line()


def _without_blanks_behind(line: Iterable[Segment]) -> Iterator[Segment]:
    segments = list(line)
    while segments and not segments[-1].text.rstrip(" "):
        segments.pop()
    if segments:
        *before, last = segments
        yield from before
        yield Segment(last.text.rstrip(" "), last.style, last.control)
