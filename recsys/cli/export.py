"""`recsys export`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from pydantic import TypeAdapter, ValidationError

from recsys.cli.output import counted, errors, results, settings_for_command
from recsys.data.event import Identifier
from recsys.errors import InputFileError
from recsys.operations.export_lists import export_lists, format_of
from recsys.operations.histories import ensure_histories
from recsys.redis import open_store
from recsys.runtime.progress import ProgressReporter
from recsys.storage.data_dir import open_data_dir

_NAME = "user_id"


def export_command(
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Ends with .csv, .jsonl or .parquet.")],
    users: Annotated[
        str | None,
        typer.Option("--users", metavar="FILE", help="Whose lists: a user id a line, - for standard input; else all."),
    ] = None,
    n: Annotated[int, typer.Option("-n", "--n", min=1, max=1000, metavar="N", help="Items of each list.")] = 10,
) -> None:
    """Write the lists of users into a file, whole or not at all; who has none gets the popular list.

    After an interruption run it again: it goes on where it was.
    """
    settings = settings_for_command()
    format_of(out)
    chosen = None if users is None else _read_users(users)
    with open_store(settings) as store:
        ensure_histories(settings, store, open_data_dir(settings))
        for user in chosen or ():
            store.users.ensure_can_hold(user)
        try:
            outcome = export_lists(store, out, chosen, n, ProgressReporter(console=errors))
        except KeyboardInterrupt:
            errors.print("interrupted; run it again to go on")
            raise typer.Exit(130) from None
    popular = outcome.users - outcome.personal
    results.print(
        f"{counted(outcome.users, 'user')} exported to {out}: {outcome.personal:,} with their own list, "
        f"{popular:,} with the popular one"
    )


def _read_users(name: str) -> list[str]:
    """Return the ids in a file, a line each; a first line that is the name of the column is passed over.

    Raises
    ------
    InputFileError
        When it cannot be read, or a line is no user id.
    """
    if not name:
        raise InputFileError("--users: name a file, or - for standard input")
    try:
        text = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        lines = [line.removesuffix("\r") for line in text.decode("utf-8-sig").split("\n")]
    except OSError as error:
        raise InputFileError(f"{name}: {error.strerror or error}") from error
    except UnicodeDecodeError:
        raise InputFileError(f"{name}: is not UTF-8") from None
    ids = TypeAdapter(Identifier)
    users = []
    for number, line in enumerate(lines, start=1):
        if not line or (number == 1 and line == _NAME):
            continue
        try:
            users.append(ids.validate_python(line))
        except ValidationError:
            raise InputFileError(
                f"{name}, line {number}: {line[:40]!r} is no user id: use 1 to 256 characters, no control characters"
            ) from None
    if not users:
        raise InputFileError(f"{name}: holds no user ids")
    return users
