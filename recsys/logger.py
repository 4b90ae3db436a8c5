"""Loggers of this project: each line has the name of an event, a sentence, and the values in it as fields.

>>> log = logger("example")
>>> log.warning("redis_away", "Redis at {address} does not answer", address="localhost:6379")

The name of an event never changes, so alerts and searches hold on to it; sentences may. Lines go through the standard
`logging`, with what else the process logs: whoever uses this project as a library sees the sentences as any other line.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from string import Formatter
from typing import Any, cast

import structlog
from structlog.typing import EventDict, WrappedLogger

TAKEN = frozenset({"time", "level", "logger", "event", "message", "exception"})
"""Names of a line's own parts; no field may have them."""


def logger(name: str) -> structlog.stdlib.BoundLogger:
    """Return the logger of a module.

    Its methods take the name of an event, a sentence with ``{fields}`` as `str.format` has them, and the fields. Fields
    that are not in the sentence are shown behind it. With ``exc_info=True``, or by its method ``exception``, the line
    has the traceback of the current error.
    """
    bound = structlog.wrap_logger(
        logging.getLogger(name),
        processors=[structlog.stdlib.filter_by_level, _as_record],
        wrapper_class=structlog.stdlib.BoundLogger,
        context_class=dict,
    )
    return cast(structlog.stdlib.BoundLogger, bound.bind())  # what stands for it until then would be asked at each line


def _as_record(_: WrappedLogger, __: str, line: EventDict) -> dict[str, Any]:
    """Make what `logging` takes of a line: the sentence is its message, the rest goes along."""
    event, (sentence,) = line.pop("event"), line.pop("positional_args")
    exc_info = line.pop("exc_info", None)
    extra = {"event": event, "fields": line, "beside": _not_in(sentence, line)}
    return {"msg": sentence.format_map(line), "extra": extra, "exc_info": exc_info}


def _not_in(sentence: str, fields: EventDict) -> list[str]:
    """Return the names of the fields that a sentence does not show."""
    shown = _shown_in(sentence)
    return [name for name in fields if name not in shown]


@lru_cache(maxsize=1_000)  # sentences are those of the code
def _shown_in(sentence: str) -> frozenset[str | None]:
    return frozenset(name for _, name, _, _ in Formatter().parse(sentence))
