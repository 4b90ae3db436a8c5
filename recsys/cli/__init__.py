"""The operator's command: `recsys`."""

from __future__ import annotations

import sys

import typer

from recsys.cli.data import import_command, publish_command
from recsys.cli.demo import demo_command
from recsys.cli.evaluate import evaluate_command
from recsys.cli.items import items_app
from recsys.cli.key import key_command
from recsys.cli.models import models_app
from recsys.cli.operate import config_command, rebuild_command, retrain_command, verify_command
from recsys.cli.output import errors
from recsys.cli.show import show_command
from recsys.cli.tune import tune_command
from recsys.errors import RecsysError, SettingsError

__all__ = ["app", "main"]

app = typer.Typer(
    name="recsys",
    help="Operate the recommender. Settings come from RECSYS_* variables or the TOML file in RECSYS_CONFIG.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("import", short_help="Load a history from a file into archive and Redis.")(import_command)
app.command("publish", short_help="Publish a file's purchases to Kafka.")(publish_command)
app.command("show", short_help="Show a user's history and list.")(show_command)
app.command("retrain", short_help="Ask the running trainer for a new model.")(retrain_command)
app.command("evaluate", short_help="Judge a model by what users bought afterwards.")(evaluate_command)
app.command("tune", short_help="Search for better hyper-parameters.")(tune_command)
app.add_typer(models_app, name="models", short_help="List, show and roll back models.")
app.add_typer(items_app, name="items", short_help="Import what the shop says of its items.")
app.command("verify", short_help="Check Redis against archive and model.")(verify_command)
app.command("rebuild", short_help="Bring Redis back from the archive.")(rebuild_command)
app.command("key", short_help="Make a key for the HTTP API.")(key_command)
app.command("config", short_help="Print all settings.")(config_command)
app.command("demo", short_help="Play a grocer's year on this machine.")(demo_command)


def main() -> None:
    """Run the command; an expected error is one line on standard error and exit code 1 (2 for a wrong setting)."""
    try:
        " ".join(sys.argv).encode()
    except UnicodeEncodeError:
        errors.print("error: an argument is not UTF-8", style="red")
        sys.exit(2)
    try:
        app()
    except RecsysError as error:
        errors.print(f"error: {error}", style="red", soft_wrap=True)
        sys.exit(2 if isinstance(error, SettingsError) else 1)
    except BrokenPipeError:  # the reader of our output, such as head, has seen enough
        sys.stderr.close()
        sys.exit(0)
