"""What an OpenAPI document cannot say, for schemathesis: no time of an event is later than a day after the request."""

from __future__ import annotations

import time
from typing import Any

import schemathesis
from schemathesis import Case, HookContext

from recsys.data.epoch import NEWEST_MS

_PER_S = (1, 1000, 1_000_000)
_LEAP_YEAR = "2024"  # in which every day of the calendar exists


@schemathesis.hook
def before_call(context: HookContext, case: Case, kwargs: dict[str, Any]) -> None:
    """Move times of the future into the past; whatever else a request holds stays as it was made up."""
    for event in case.body if isinstance(case.body, list) else [case.body]:
        if isinstance(event, dict) and "timestamp" in event:
            event["timestamp"] = not_in_the_future(event["timestamp"])


def not_in_the_future(value: Any) -> Any:
    """Return a time that is allowed in place of one of the future, and any other value as it is."""
    now_s = int(time.time())
    if isinstance(value, str) and value[:4].isdecimal() and value[4:5] == "-":
        this_year = time.gmtime(now_s).tm_year
        return _LEAP_YEAR + value[4:] if int(value[:4]) >= this_year else value
    if isinstance(value, int | float) and not isinstance(value, bool):
        for per_s in _PER_S:
            if now_s * per_s < value < (NEWEST_MS // 1000 + 1) * per_s:
                return now_s * per_s
    return value
