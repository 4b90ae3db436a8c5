"""What people are shown of ids, titles and names of files: no character in them moves a cursor, hides or reorders text.

Log lines, tables, errors, progress and JSON all go through `escaped`.
"""

from __future__ import annotations

import json
import unicodedata

_CONTROLS = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Categories of Unicode: C0 and C1 controls, marks that turn the direction, surrogates, unknown ones, line ends."""
_PART_OF_WORDS = "\u200c\u200d"
"""Joiners, which Persian and composed emoji are written with."""


def escaped(text: str, *, lines: bool = False) -> str:
    """Return a text with every character that a terminal or an editor obeys, or does not show, as JSON writes it.

    Parameters
    ----------
    text : str
    lines : bool
        Whether the text may have several lines: their ends stay then. A JSON text stays the same JSON.
    """
    if text.isprintable():
        return text
    return "".join(character if _is_harmless(character, lines) else _in_json(character) for character in text)


def _is_harmless(character: str, lines: bool) -> bool:
    if character in _PART_OF_WORDS or (lines and character == "\n"):
        return True
    return unicodedata.category(character) not in _CONTROLS


def _in_json(character: str) -> str:
    return json.dumps(character)[1:-1] if character != "\x7f" else "\\u007f"  # which JSON leaves as it is
