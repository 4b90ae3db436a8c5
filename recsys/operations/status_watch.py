"""Looks at the shop again and again, as `recsys status` does, for whoever shows what is found to others."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime

from recsys.operations.service_state import decide
from recsys.operations.status_facts import Facts
from recsys.operations.status_line import State
from recsys.operations.status_look import look
from recsys.redis import Store
from recsys.runtime.clock import now
from recsys.runtime.repeating import repeated
from recsys.settings import Settings
from recsys.storage.data_dir import DataDir

_EVERY_S = 15.0


def shop_watched(
    settings: Settings, store: Store, data_dir: DataDir, note: Callable[[Facts, State, datetime], None]
) -> AbstractContextManager[None]:
    """Look every 15 seconds, in a thread, until the block ends; what a look finds is given to ``note``."""

    def look_once() -> None:
        facts, at = look(settings, store, data_dir), now()
        note(facts, decide(facts, settings.status, at=at), at)

    return repeated(look_once, name="looks at the shop", every_s=_EVERY_S)
