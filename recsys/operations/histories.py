"""Whether Redis lacks the histories that it should hold, as after a FLUSHALL: then nothing may be made from it."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from recsys.errors import DataDirError, HistoriesMissing, KafkaError, WritesLost
from recsys.kafka.clients import open_consumer
from recsys.kafka.start_offsets import start_offsets
from recsys.kafka.topics import describe_topic
from recsys.logger import logger
from recsys.redis import Store
from recsys.settings import KafkaSettings, Settings
from recsys.storage.data_dir import DataDir
from recsys.storage.segments import IMPORT_PREFIX

log = logger(__name__)
MISSING = "histories missing: recsys rebuild"
"""What people are told."""
_ASK_EVERY_S = 10.0
_SHARDS_AT_ONCE_S = 1.0
"""The applied offsets are written to all parts of Redis at about the same time."""


def ensure_histories(settings: Settings, store: Store, data_dir: DataDir) -> None:
    """Raise `HistoriesMissing` if Redis lacks histories."""
    if histories_missing(settings, store, data_dir):
        raise HistoriesMissing(f"{MISSING} brings them back from the archive; no model and no list is made before")


def histories_missing(settings: Settings, store: Store, data_dir: DataDir) -> bool:
    """Tell whether Redis lacks histories that archive and stream say it once held.

    Usually one round trip to Redis tells. Only a Redis without applied offsets leads to more questions: it may have
    been emptied, belong to a shop that is new, or to one that has imported files and never started a consumer.

    Raises
    ------
    RedisError, DataDirError
        When Redis or the archive cannot be asked.
    """
    return decide(store, data_dir, consumers_have_written=partial(_consumers_have_written, settings.kafka))


def decide(store: Store, data_dir: DataDir, *, consumers_have_written: Callable[[], bool]) -> bool:
    """Tell as `histories_missing` does, given how to find out whether the group has committed what it wrote."""
    marks = store.applied_offsets.counts()
    if not all(marks) and any(marks):
        time.sleep(_SHARDS_AT_ONCE_S)
        marks = store.applied_offsets.counts()
    if all(marks):
        return False
    if any(marks):  # a part of a cluster was emptied
        return True
    if consumers_have_written():  # all of Redis was, unless the first consumer has begun just now: marks come first
        return not all(store.applied_offsets.counts())
    segments = data_dir.archive.segments()
    if not segments or next(store.users.user_ids(), None) is not None:
        return False
    # A trainer may have archived purchases that no consumer has read yet; it also leaves a pointer to its model.
    has_imports = any(segment.source.startswith(IMPORT_PREFIX) for segment in segments)
    return has_imports or (store.pointer.value() == b"" and bool(data_dir.models.versions()))


def _consumers_have_written(settings: KafkaSettings) -> bool:
    """Tell whether the consumers have committed offsets; False where Kafka cannot be asked."""
    try:
        topic = describe_topic(settings, settings.topic)
        consumer = open_consumer(settings, settings.group_id)
        try:
            start_offsets(
                consumer, settings, topic, topic.partitions, marks=dict.fromkeys(topic.sources(topic.partitions))
            )
        finally:
            consumer.close()
    except WritesLost:  # it is what a consumer would say that started now
        return True
    except KafkaError as error:
        log.debug("committed_unknown", "cannot tell what the consumers have committed: {error}", error=error)
    return False


class HistoriesLook:
    """Looks, for a service that goes on without histories, and says it when they are missing and when they are back.

    Parameters
    ----------
    settings : Settings
    store : Store
    data_dir : DataDir
    ask_every_s : float
        How often more than Redis is asked, where there are no applied offsets.

    Attributes
    ----------
    missing : bool
        What the last look has found.
    """

    def __init__(
        self, settings: Settings, store: Store, data_dir: DataDir, *, ask_every_s: float = _ASK_EVERY_S
    ) -> None:
        self._ask = partial(histories_missing, settings, store, data_dir)
        self._ask_every_s = ask_every_s
        self._asked_at = float("-inf")
        self._store = store
        self.missing = False

    def look(self) -> None:
        """Look once.

        Raises
        ------
        RedisError
            When Redis is away.
        """
        try:
            found = False
            if not all(self._store.applied_offsets.counts()):
                if time.monotonic() < self._asked_at + self._ask_every_s:
                    return
                found = self._ask()
                self._asked_at = time.monotonic()
            # An import writes to the archive first: while somebody is at work, nothing is said to be missing.
            if found and not self.missing and self._store.trainer_lock.is_held():
                return
        except DataDirError as error:
            log.warning("histories_unknown", "cannot tell whether histories are missing: {error}", error=error)
            return
        if found and not self.missing:
            log.error(
                "histories_missing",
                "{problem}; until then users without a list get the popular one, marked as stale",
                problem=MISSING,
            )
        if self.missing and not found:
            log.info("histories_back", "the histories are there again")
        self.missing = found
