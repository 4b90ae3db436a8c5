"""Log lines: one a line, UTC, for people or for programs, and few that repeat."""

from __future__ import annotations

import json
import logging
import math
import re
import sys
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from structlog.stdlib import ProcessorFormatter
from structlog.typing import EventDict, ProcessorReturnValue, WrappedLogger

from recsys.runtime.escapes import escaped
from recsys.runtime.user_names import name_users_by
from recsys.settings import LogSettings, secrets

_SHORTEST_INTERVAL_S = 10.0
_LONGEST_INTERVAL_S = 600.0
_MOST_KINDS = 1000


def configure_logging(settings: LogSettings) -> None:
    """Write log lines to standard error, UTC, one line each: as text on a terminal, otherwise as JSON."""
    handler = logging.StreamHandler(sys.stderr)
    is_text = settings.format == "text" or (settings.format == "auto" and sys.stderr.isatty())
    handler.setFormatter(LineFormatter(in_words if is_text else in_json))
    logging.basicConfig(level=settings.level, handlers=[handler], force=True)
    for library in ("implicit", "httpx", "httpx2"):  # the last two say every request of the schema registry's client
        logging.getLogger(library).setLevel(logging.WARNING)
    name_users_by(settings)


class LineFormatter(ProcessorFormatter):
    """Brings lines of this project and of libraries into one form, without the secrets of the settings.

    Parameters
    ----------
    form : callable
        One of `in_words`, `in_json` and `in_short`.
    """

    def __init__(self, form: Callable[[WrappedLogger, str, EventDict], ProcessorReturnValue]) -> None:
        # Lines of this project come as those of libraries do: as records of `logging`.
        super().__init__(processors=[ProcessorFormatter.remove_processors_meta, form], foreign_pre_chain=[_parts_of])


def _parts_of(_: WrappedLogger, __: str, line: EventDict) -> EventDict:
    """Return the parts of a line in their order, none with a secret."""
    record: logging.LogRecord = line["_record"]
    fields: dict[str, Any] = getattr(record, "fields", {})
    parts: EventDict = {
        "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": record.levelname.lower(),
        "logger": record.name,
        "event": getattr(record, "event", record.name.partition(".")[0]),
        "message": secrets.hidden_in(line["event"]),
        **{name: _shown(value) for name, value in fields.items()},
        "_beside": getattr(record, "beside", []),
        "_record": record,
        "_from_structlog": False,
    }
    if again := getattr(record, "again", None):
        parts |= again
        parts["_beside"] = [*parts["_beside"], *again]
    if (error := line.get("exc_info")) and error[0] is not None:
        parts["exception"] = secrets.hidden_in("".join(traceback.format_exception(*error)).rstrip("\n"))
    return parts


def _shown(value: Any) -> Any:
    """Return a field as JSON has it, without secrets."""
    if value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    return secrets.hidden_in(str(value))


def in_json(_: WrappedLogger, __: str, parts: EventDict) -> str:
    """Return a line for programs: JSON in ASCII, so no character of it moves a cursor."""
    return json.dumps({name: value for name, value in parts.items() if name != "_beside"})


def in_words(_: WrappedLogger, __: str, parts: EventDict) -> str:
    """Return a line for people: time, level, logger, sentence, and the fields that the sentence does not name.

    Only a traceback has more lines.
    """
    return f"{parts['time']} {parts['level'].upper():<7} {parts['logger']}: {_told(parts)}"


def in_short(_: WrappedLogger, __: str, parts: EventDict) -> str:
    """Return a line as commands print it: level and sentence."""
    return f"{parts['level'].upper()}: {_told(parts)}"


def _told(parts: EventDict) -> str:
    # Secrets are out already: what is escaped is no longer found.
    beside = "".join(f" {name}={parts[name]}" for name in parts["_beside"])
    exception = f"\n{escaped(parts['exception'], lines=True)}" if "exception" in parts else ""
    return escaped(f"{parts['message']}{beside}") + exception


class RepeatsLeftOut(logging.Filter):
    """Lets a message that differs from an earlier one in digits alone pass at growing intervals, up to ten minutes.

    One with a traceback differs also if the error is of another class, or comes from another place. What passes again
    says how many times it was logged since it passed last, and for how long that has lasted. What was quiet for twice
    its interval begins anew.

    Parameters
    ----------
    every_s : float
        The first interval.
    """

    def __init__(self, *, every_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._every_s = every_s
        self._clock = clock
        self._said: dict[str, _Repeated] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether the message may pass."""
        words = re.sub(r"\d+", "", record.getMessage()) + _place_of(record)
        if words not in self._said:
            if len(self._said) >= _MOST_KINDS:
                self._said.clear()
            self._said[words] = _Repeated(self._every_s, self._clock)
        again = self._said[words].again()
        if again:
            record.again = again
        return again is not None


class _Repeated:
    """A message that was logged, and when to let it pass again."""

    def __init__(self, every_s: float, clock: Callable[[], float]) -> None:
        self._intervals = GrowingIntervals(shortest_s=every_s, clock=clock)
        self._clock = clock
        self._last_at = clock()
        self._times = 0

    def again(self) -> dict[str, int] | None:
        """Note that it is logged; return what to say of its repetitions, None where it shall not pass."""
        now = self._clock()
        if now - self._last_at >= 2 * self._intervals.interval_s:
            self._intervals.begin_anew()
            self._times = 0
        self._last_at = now
        self._times += 1
        if not self._intervals.are_due():
            return None
        lasting = self._intervals.again
        told = {"repeated": self._times, **lasting} if lasting else {}
        self._times = 0
        return told


def _place_of(record: logging.LogRecord) -> str:
    """Return of which class the error of a record is, and which line raised it."""
    if record.exc_info is None or record.exc_info[0] is None:
        return ""
    frames = [f"{frame.f_code.co_filename}:{line}" for frame, line in traceback.walk_tb(record.exc_info[2])]
    return f"{record.exc_info[0].__name__} {frames[-1] if frames else ''}"


class GrowingIntervals:
    """Says when to tell again what still holds: at once, then after 10 s, 20 s, 40 s and so on, up to ten minutes.

    Parameters
    ----------
    delay_s : float
        How long it must hold before it is told at all.
    shortest_s : float
        The first interval; one of over ten minutes stays.

    Attributes
    ----------
    interval_s : float
        The one that runs; 0 until it is told.
    """

    def __init__(
        self,
        *,
        delay_s: float = 0.0,
        shortest_s: float = _SHORTEST_INTERVAL_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._delay_s = delay_s
        self._shortest_s = shortest_s
        self._clock = clock
        self.begin_anew()

    def begin_anew(self) -> None:
        """Note that it holds no longer."""
        self._began_at: float | None = None
        self._due_at = self._clock() + self._delay_s
        self.interval_s = 0.0

    def are_due(self) -> bool:
        """Whether to tell now; then it is told."""
        now = self._clock()
        if self._began_at is None:
            self._began_at = now
        if now < self._due_at:
            return False
        self.interval_s = max(self._shortest_s, min(2 * self.interval_s, _LONGEST_INTERVAL_S))
        self.count_from_now()
        return True

    @property
    def again(self) -> dict[str, int]:
        """What a line that tells it again has beside: for how many seconds it has held. Nothing for the first one."""
        lasting_s = 0 if self._began_at is None else round(self._clock() - self._began_at)
        return {"lasting_s": lasting_s} if lasting_s else {}

    def count_from_now(self) -> None:
        """Let the interval begin now: what was due took its time, and has just ended."""
        self._due_at = self._clock() + self.interval_s


class LastingProblem:
    """Says when to tell a problem: at once if it was not told yet, and again at growing intervals, until it ends.

    Two that come in turn are both told, each at its own intervals.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lines = GrowingIntervals(clock=clock)
        self._told: dict[str, GrowingIntervals] = {}

    def is_due(self, problem: object) -> bool:
        """Whether to tell it now; then it is told."""
        words = str(problem)
        if words not in self._told:
            if len(self._told) >= _MOST_KINDS:
                self._told.clear()
            self._told[words] = GrowingIntervals(clock=self._clock)
        self._lines = self._told[words]
        return self._lines.are_due()

    @property
    def again(self) -> dict[str, int]:
        """As of `GrowingIntervals`."""
        return self._lines.again

    def end(self) -> None:
        """Note that it is over: should it come again, it is news."""
        self._told.clear()
