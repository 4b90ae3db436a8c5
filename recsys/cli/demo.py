"""`recsys demo`."""

from __future__ import annotations

from typing import Annotated

import typer

from recsys.demo import run_demo


def demo_command(
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave everything running afterwards, until Ctrl-C, and print the addresses.")
    ] = False,
) -> None:
    """Play eleven months of a real grocer's purchases as history and December live, on this machine alone."""
    run_demo(keep=keep)
