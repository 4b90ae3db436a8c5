"""The command as Typer sees it: a command's module is imported when it is run, or asked for its help."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import recsys
from recsys.cli import COMMANDS, CommandPlace
from recsys.runtime.escapes import escaped

_PLAIN: dict[str, Any] = {"add_completion": False, "pretty_exceptions_enable": False, "rich_markup_mode": None}


@contextmanager
def _arguments_escaped() -> Iterator[None]:
    """Escape what an error about arguments quotes of them: names of files may hold anything."""
    try:
        yield
    except Exception as error:
        if isinstance(message := getattr(error, "message", None), str):
            error.message = escaped(message, lines=True)  # type: ignore[attr-defined]
        raise


class _ImportedWhenRun(TyperGroup):
    """A group whose own help takes the registered names and short helps only."""

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        """Read the arguments of the group."""
        with _arguments_escaped():
            return super().make_context(*arguments, **options)

    def invoke(self, ctx: Any) -> Any:
        """Read the arguments of a command, and run it."""
        with _arguments_escaped():
            return super().invoke(ctx)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return name, command and the arguments left, as Typer's groups do; the command is the real one."""
        name, _, rest = super().resolve_command(ctx, args)
        return name, name and _command_of(COMMANDS[name]), rest


def _command_of(place: CommandPlace) -> Any:
    target = getattr(import_module(f"recsys.cli.{place.module}"), place.attribute)
    if not isinstance(target, typer.Typer):
        function, target = target, typer.Typer(**_PLAIN)
        target.command(short_help=place.short_help)(function)
    return typer.main.get_command(target)


def _registered() -> None:
    """Stand for a command that is not imported yet."""


app = typer.Typer(
    name="recsys",
    cls=_ImportedWhenRun,
    no_args_is_help=True,
    **_PLAIN,
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"recsys {recsys.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Operate the recommender. Settings are RECSYS_* variables, or in the TOML file that RECSYS_CONFIG names."""


for _name, _place in COMMANDS.items():
    app.command(_name, short_help=_place.short_help)(_registered)
