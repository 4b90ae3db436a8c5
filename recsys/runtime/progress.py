"""Progress of long work: bars on a terminal, log lines elsewhere, and a listener for those who wait elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from recsys.logger import logger
from recsys.runtime.escapes import escaped

log = logger(__name__)
_LOG_EVERY_S = 10.0
_BYTES = "bytes"

Advance = Callable[[int], None]
Listener = Callable[[str, int, int | None], None]
Share = Callable[[], float]
"""Returns how much of some work is done, of 1."""


class Stage(Protocol):
    """Opens a stage of work, as `ProgressReporter.stage` does."""

    def __call__(self, name: str, *, unit: str = "", share: Share | None = None) -> AbstractContextManager[Advance]:
        """Open it; the block gets a function to call with the number of steps done since."""
        ...


def no_stage(name: str, *, unit: str = "", share: Share | None = None) -> AbstractContextManager[Advance]:
    """Open a stage that shows nothing."""
    return nullcontext(lambda steps: None)


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
    def stage(
        self, name: str, total: int | None = None, *, unit: str = "", share: Share | None = None
    ) -> Iterator[Advance]:
        """Open a stage; the block gets a function to call with the number of steps done since.

        Parameters
        ----------
        name : str
        total : int or None
            Steps in all, if that is known.
        unit : str
            What steps are, such as rows; if it is given, steps per second and the time that is left are shown.
        share : callable or None
            Says how much is done, of 1, where the total is not known.
        """
        started = time.monotonic()
        done = 0
        told = logged = started
        bar = _bar(unit) if self._console.is_terminal else None
        if bar is None:
            log.info("stage_started", "{stage}: started", stage=name)
        if self._listener:
            self._listener(name, 0, total)
        with Progress(*bar, console=self._console, transient=False) if bar else nullcontext() as progress:
            of_bar = 1.0 if share else total
            task = progress.add_task(escaped(name), total=of_bar, told="") if progress else None

            def advance(steps: int) -> None:
                nonlocal done, told, logged
                done += steps
                now = time.monotonic()
                part = share() if share else done / total if total else None
                if progress is not None and task is not None:
                    progress.update(
                        task, completed=part if share else done, told=_told(done, total, unit, now - started, part)
                    )
                elif now - logged >= _LOG_EVERY_S:
                    logged = now
                    log.info(
                        "stage_progress",
                        "{stage}: {progress}",
                        stage=name,
                        progress=_told(done, total, unit, now - started, part),
                    )
                if self._listener and now - told >= 1:
                    told = now
                    self._listener(name, done, total)

            yield advance
            if progress is not None and task is not None:
                progress.update(task, completed=of_bar or done, total=of_bar or done)
        took = time.monotonic() - started
        self.durations_s[name] = round(took, 3)
        if bar is None:
            log.info(
                "stage_done",
                "{stage}: done{done} in {took_s:.1f} s",
                stage=name,
                done=f", {done:,}" if done else "",
                took_s=took,
            )


def _told(done: int, total: int | None, unit: str, elapsed_s: float, share: float | None) -> str:
    """Return how far a stage is: 1,200,000 of 9,000,000 rows, 45,123 rows/s, 0:02:53 left."""
    count = _counted(done, unit) + (f" of {_counted(total, unit)}" if total else "")
    if not unit or elapsed_s <= 0:
        return count
    what = "" if unit == _BYTES else f" {unit}"
    parts = [f"{count}{what}", f"{_counted(int(done / elapsed_s), unit)}{what}/s"]
    if share:
        parts.append(f"{timedelta(seconds=round(elapsed_s / share - elapsed_s))} left")
    return ", ".join(parts)


def _counted(count: int, unit: str) -> str:
    return f"{count / 1e6:,.1f} MB" if unit == _BYTES else f"{count:,}"


def _bar(unit: str) -> tuple[ProgressColumn, ...]:
    if unit:
        told = TextColumn("{task.fields[told]}", markup=False)
        return (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(bar_width=10), told)
    return (
        SpinnerColumn(),
        TextColumn("{task.description:<28}", markup=False),
        BarColumn(bar_width=32),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
