"""`recsys key`."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated

import typer

from recsys.cli.output import errors, results
from recsys.settings.key_entries import entry_of, is_name

_LONGEST_DAYS = 36_500


class RoleName(StrEnum):
    """What a key may do; each role may do what those before it may."""

    READ = "read"
    WRITE = "write"
    OPERATE = "operate"


def key_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the client; the audit log shows it.")],
    role: Annotated[RoleName, typer.Argument(metavar="ROLE", help="read, write (also posts purchases) or operate.")],
    days: Annotated[
        int | None,
        typer.Option(min=1, max=_LONGEST_DAYS, help="The key ends so many days from now; without it, it never ends."),
    ] = None,
) -> None:
    """Make a key for the HTTP API. The client gets the key; the API gets an entry that holds only its digest.

    To replace a key, add the new entry beside the old one, hand out the new key, then remove the old entry.
    """
    if not is_name(name):
        errors.print(
            f"error: {name!r} is not a valid name: use 1 to 64 letters, digits, dots, dashes or underscores",
            style="red",
        )
        raise typer.Exit(2)
    key = secrets.token_urlsafe(32)
    last_day = None if days is None else (datetime.now(UTC) + timedelta(days=days)).date()
    entry = entry_of(key, name, role.value, last_day)
    results.print(f"key, for {name} (shown only now): {key}", soft_wrap=True)
    results.print(f"entry, for RECSYS_API__KEYS or its file: {entry}", soft_wrap=True)
