"""Sends a purchase of a reserved user through everything, measures it, and has the user forgotten again.

Whoever is killed on the way leaves nothing for ever: what a consumer writes of a reserved user expires by itself.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from recsys.data.event import Event, EventType
from recsys.data.reserved import PROBE_PREFIX, PROBE_TTL_S
from recsys.errors import KafkaError, RecsysError, RedisError
from recsys.kafka.producer import Publisher
from recsys.operations.finding import KINDS, Area, Finding, fine, not_checked
from recsys.operations.status_line import Level
from recsys.operations.status_words import counted, duration
from recsys.redis import Store
from recsys.redis.service_registry import ConsumerEntry
from recsys.runtime import fail_points
from recsys.runtime.clock import now
from recsys.settings import Settings, secrets

LIMIT_S = 30.0
"""How long each step may take, unless the operator says otherwise."""
CODES = [code for code, kind in KINDS.items() if kind.area is Area.PROBE]
_LOOK_EVERY_S = 0.01
_NO_ITEM = "no-item"
"""Bought where no model is live; no model ever has it, for nothing of a probe is archived."""


def probe(settings: Settings, store: Store, *, within_s: float = LIMIT_S) -> list[Finding]:
    """Try the whole way with one purchase; return what became of it, with the times that it took.

    Parameters
    ----------
    settings : Settings
    store : Store
    within_s : float
        How long Kafka, the history and the list, and the end of it may each take, in seconds.
    """
    found: list[Finding] = []
    try:
        found.extend(_Probe(settings, store, within_s).findings())
    except KafkaError as error:
        found.append(Finding(CODES[len(found)], Level.BROKEN, _said(error), advice="do what the line says"))
    except RedisError as error:
        found.append(Finding(CODES[len(found)], Level.BROKEN, _said(error), advice="bring Redis back"))
    return [*found, *(not_checked(code, "the step before it failed") for code in CODES[len(found) :])]


def _said(error: RecsysError) -> str:
    return secrets.hidden_in(str(error))


@dataclass(frozen=True, slots=True)
class _Bought:
    """An item, and whether a model knows it, so that a list must follow."""

    item_id: str
    is_known: bool


class _Probe:
    def __init__(self, settings: Settings, store: Store, within_s: float) -> None:
        self._settings = settings
        self._store = store
        self._within_s = within_s
        self._user = f"{PROBE_PREFIX}{uuid.uuid4().hex[:12]}"

    def findings(self) -> Iterator[Finding]:
        bought = self._choose()
        with Publisher(self._settings.kafka) as publisher:
            started = time.monotonic()
            self._publish(publisher, EventType.PURCHASE, bought.item_id)
            acknowledged = time.monotonic()
            yield fine("probe-kafka", f"by Kafka after {duration(acknowledged - started)}, connecting included")
            fail_points.reach("probe-published")
            try:
                is_applied = self._wait(lambda: self._revision() > 0)
                yield self._history(acknowledged, is_applied)
                yield self._list(acknowledged, bought, is_applied)
            finally:  # also of an operator who has seen enough
                self._publish(publisher, EventType.FORGET)
        yield self._gone(is_applied)

    def _choose(self) -> _Bought:
        popular = self._store.item_lists.popular()
        if popular and popular["items"]:
            return _Bought(popular["items"][0]["item_id"], is_known=True)
        return _Bought(_NO_ITEM, is_known=False)

    def _publish(self, publisher: Publisher, type_: EventType, item_id: str | None = None) -> None:
        at_ms = int(1000 * now().timestamp())
        publisher.publish(Event(user_id=self._user, item_id=item_id, type=type_, timestamp=at_ms))
        publisher.flush()

    def _revision(self) -> int:
        return self._store.users.revision(self._user)

    def _wait(self, holds: Callable[[], bool]) -> bool:
        """Say whether something comes to hold in time."""
        until = time.monotonic() + self._within_s
        while not holds():
            if time.monotonic() > until:
                return False
            time.sleep(_LOOK_EVERY_S)
        return True

    def _history(self, acknowledged: float, is_applied: bool) -> Finding:
        if is_applied:
            return fine("probe-history", f"{duration(time.monotonic() - acknowledged)} after that")
        running = [entry for entry in self._store.services.read().entries if isinstance(entry, ConsumerEntry)]
        if not running:
            text = f"not within {duration(self._within_s)}: no consumer runs"
            return Finding("probe-history", Level.BROKEN, text, advice="start python -m consumer, see Supervision")
        text = f"not within {duration(self._within_s)}, although {counted(len(running), 'consumer')} of this shop run"
        return Finding("probe-history", Level.BROKEN, text, "recsys status", "look at the lag and the consumers")

    def _list(self, acknowledged: float, bought: _Bought, is_applied: bool) -> Finding:
        if not is_applied:
            return not_checked("probe-list", "the purchase is not in the history")
        if not bought.is_known:
            return fine("probe-list", "none is to be written: there is no live model yet")
        if self._wait(lambda: self._store.users.lists([self._user])[0] is not None):
            return fine("probe-list", f"{duration(time.monotonic() - acknowledged)} after that")
        text = f"not within {duration(self._within_s)}, although the purchase is in the history"
        return Finding("probe-list", Level.BROKEN, text, "recsys status", "look at the consumers: on the live model?")

    def _gone(self, is_applied: bool) -> Finding:
        """Wait until the consumer has erased the user, remove what it remembers of the erasure, and look."""
        expiry = f"what a consumer writes of it expires after {duration(PROBE_TTL_S)}"
        if not is_applied:
            return not_checked("probe-gone", f"purchase and forget wait in Kafka for a consumer; {expiry}")
        users = self._store.users
        if not self._wait(lambda: self._revision() != 1):
            text = f"the forget was not applied within {duration(self._within_s)}; {expiry}"
            return Finding("probe-gone", Level.BROKEN, text, "recsys status", "look at the lag and the consumers")
        users.remove([self._user])
        if left := users.keys_left([self._user]):
            return Finding("probe-gone", Level.WARNING, f"left: {', '.join(left)}; {expiry}", advice="look again then")
        return fine("probe-gone", "no history, no list, no bookkeeping of it in Redis")
