"""Progress of long work: bars on a terminal, log lines elsewhere, and a listener for those who wait elsewhere."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from recsys.runtime.escapes import escaped

log = logging.getLogger(__name__)
_LOG_EVERY_S = 10.0

Advance = Callable[[int], None]
Listener = Callable[[str, int, int | None], None]


class ProgressReporter:
    """Shows stages on a terminal, or logs them.

    Parameters
    ----------
    listener : callable or None
        Also told about every stage: name, steps done, total or None; at most about once a second.
    console : rich.console.Console or None
        Where bars go; standard error by default. Bars are shown only if it is a terminal.
    """

    def __init__(self, listener: Listener | None = None, console: Console | None = None) -> None:
        self._listener = listener
        self._console = console or Console(stderr=True)
        self.durations_s: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[Advance]:
        """Open a stage; the block gets a function to call with the number of steps done since."""
        started = time.monotonic()
        done = 0
        told = logged = started
        bar = _bar() if self._console.is_terminal else None
        if bar is None:
            log.info("%s: started", name)
        if self._listener:
            self._listener(name, 0, total)
        with Progress(*bar, console=self._console, transient=False) if bar else nullcontext() as progress:
            task = progress.add_task(escaped(name), total=total) if progress else None

            def advance(steps: int) -> None:
                nonlocal done, told, logged
                done += steps
                now = time.monotonic()
                if progress is not None and task is not None:
                    progress.update(task, completed=done)
                elif now - logged >= _LOG_EVERY_S:
                    logged = now
                    log.info("%s: %s", name, f"{done:,} of {total:,}" if total else f"{done:,}")
                if self._listener and now - told >= 1:
                    told = now
                    self._listener(name, done, total)

            yield advance
            if progress is not None and task is not None:
                progress.update(task, completed=done, total=done if total is None else total)
        took = time.monotonic() - started
        self.durations_s[name] = round(took, 3)
        if bar is None:
            log.info("%s: done%s in %.1f s", name, f", {done:,}" if done else "", took)


def _bar() -> tuple[SpinnerColumn, TextColumn, BarColumn, MofNCompleteColumn, TimeElapsedColumn]:
    return (
        SpinnerColumn(),
        TextColumn("{task.description:<28}", markup=False),
        BarColumn(bar_width=32),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
