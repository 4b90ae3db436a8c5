"""The operator's command: `recsys`."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import NamedTuple, NoReturn

from recsys.errors import RecsysError, SettingsError
from recsys.runtime.extras import extra_named
from recsys.runtime.hardening import keep_to_itself

__all__ = ["COMMANDS", "CommandPlace", "main"]
_ASKS = "ask"
"""Begins the names of threads that wait for the answer of a server."""


class CommandPlace(NamedTuple):
    """Where a command is, so that only the one that is run gets imported, with what it needs."""

    module: str
    attribute: str
    """A function, or a `typer.Typer` with commands of its own."""
    extra: str
    """The extra of pyproject.toml that brings what it needs."""
    short_help: str


COMMANDS = {
    "import": CommandPlace(
        "data", "import_command", "consumer", "Import purchases from a file into archive and Redis."
    ),
    "imports": CommandPlace("imports", "imports_app", "consumer", "List imports, and take one back."),
    "publish": CommandPlace("data", "publish_command", "consumer", "Publish the purchases of a file to Kafka."),
    "events": CommandPlace("events", "events_app", "consumer", "See what records become, before anything counts."),
    "dead-letters": CommandPlace(
        "dead_letters", "dead_letters_app", "consumer", "List malformed records, mend them, or purge them."
    ),
    "status": CommandPlace("status", "status_command", "consumer", "Say whether the shop is being served."),
    "doctor": CommandPlace("doctor", "doctor_command", "consumer", "Look for what is wrong, or will be."),
    "show": CommandPlace("show", "show_command", "consumer", "Show a user's history and list."),
    "explain": CommandPlace("explain", "explain_command", "consumer", "Say why an item has its score for a user."),
    "retrain": CommandPlace("operate", "retrain_command", "consumer", "Ask the running trainer for a new model."),
    "evaluate": CommandPlace(
        "evaluate", "evaluate_command", "trainer", "Measure a model by what users bought afterwards."
    ),
    "tune": CommandPlace("tune", "tune_command", "tune", "Search for better hyper-parameters."),
    "models": CommandPlace("models", "models_app", "consumer", "List, show and roll back models."),
    "items": CommandPlace("items", "items_app", "consumer", "Import titles, categories and availability of items."),
    "verify": CommandPlace("operate", "verify_command", "consumer", "Compare Redis with archive and model."),
    "rebuild": CommandPlace("operate", "rebuild_command", "consumer", "Restore Redis from archive and model."),
    "export": CommandPlace("export", "export_command", "consumer", "Write the lists of users into a file."),
    "key": CommandPlace("key", "key_command", "consumer", "Make a key for the HTTP API."),
    "config": CommandPlace("operate", "config_command", "consumer", "Print all settings."),
    "demo": CommandPlace("demo", "demo_command", "demo", "Play a grocer's year on this machine."),
}


def main() -> None:
    """Run the command; an expected error is one line on standard error and exit code 1 (2 for a wrong setting)."""
    keep_to_itself()
    try:
        " ".join(sys.argv).encode()
    except UnicodeEncodeError:
        print("error: an argument is not UTF-8; write it in UTF-8", file=sys.stderr)
        sys.exit(2)
    name = next((argument for argument in sys.argv[1:] if argument in COMMANDS), None)
    program, extra = (f"recsys {name}", COMMANDS[name].extra) if name else ("recsys", "consumer")
    with extra_named(program, extra):
        from recsys.cli.app import app

        try:
            _run(app)
        except BrokenPipeError:  # the reader of our output, such as head, has seen enough
            sys.stderr.close()
            sys.exit(0)


def _run(app: Callable[[], None]) -> None:
    try:
        app()
    except RecsysError as error:
        from recsys.cli.output import errors  # --help does without what it imports

        errors.print(f"error: {error}", style="red", soft_wrap=True)
        _end(2 if isinstance(error, SettingsError) else 1)
    except SystemExit as ended:
        _end(ended.code)


def _end(code: str | int | None) -> NoReturn:
    """End this process, as it is where threads still wait for a server, as those of `recsys status` after Ctrl-C.

    An interpreter that is being taken apart would end them in the middle of a library, and crash or wait for ever.
    """
    if any(thread.name.startswith(_ASKS) for thread in threading.enumerate()) and not isinstance(code, str):
        from recsys.runtime.service import end

        end(code or 0)
    sys.exit(code)
