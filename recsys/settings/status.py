"""From when on something is worth a warning: for `recsys status`, and for whoever else says how the shop is served."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from recsys.settings.fields import Seconds
from recsys.settings.section import Section

_Share = Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)]
_Amount = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class StatusSettings(Section):
    """From when on `recsys status` warns; ten times as much, or a tenth of what is left, is broken."""

    lag_s: Seconds = 60.0
    """Warn when the oldest purchase in Kafka that is not applied is older."""
    event_to_list_ms: _Amount = 1_000.0
    """Warn when the slowest consumer's p99 of the last 15 seconds, from a record to the lists, is longer, or no list is
    written for so long although records come."""
    model_age_h: _Amount = 48.0
    """Warn when the live model was made longer ago."""
    expired_share: _Share = 0.05
    """Warn when so large a share of the users has no list because theirs has expired."""
    dead_letter_share: _Share = 0.01
    """Warn when so large a share of the last hour's records is malformed."""
    memory_headroom: _Share = 0.2
    """Warn when less of the memory of Redis is left, of its maxmemory or else of its machine."""
    disk_free: _Share = 0.1
    """Warn when less of the disk of RECSYS_DATA_DIR is free."""
