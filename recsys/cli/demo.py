"""`recsys demo`."""

from __future__ import annotations

from typing import Annotated

import typer

from recsys.demo import run_demo


def demo_command(
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave everything running afterwards, until Ctrl-C, and print the addresses.")
    ] = False,
    households: Annotated[
        int | None,
        typer.Option("--households", min=100, metavar="N", help="Play a sample of so many households: quicker."),
    ] = None,
) -> None:
    """Play a grocer's year on this machine alone: eleven months as history, then the last month live."""
    run_demo(keep=keep, households=households)
