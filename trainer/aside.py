"""Users who are set aside are made again between two rounds."""

from __future__ import annotations

from recsys.errors import LockHeld, RebuildWouldLoseData, RecsysError
from recsys.logger import logger
from recsys.operations.make_again import make_again
from recsys.redis import Store
from recsys.runtime.logs import GrowingIntervals
from recsys.runtime.progress import ProgressReporter
from recsys.settings import Settings
from recsys.storage.data_dir import DataDir
from trainer.metrics import TrainerMetrics

log = logger(__name__)


class AsideUsers:
    """Makes users again of whom Redis has lost a part; what stands in the way is said, and tried again ever later."""

    def __init__(self, settings: Settings, store: Store, data_dir: DataDir, metrics: TrainerMetrics) -> None:
        self._settings = settings
        self._store = store
        self._data_dir = data_dir
        self._metrics = metrics
        self._tries = GrowingIntervals()

    def look(self) -> None:
        """Make users again if there are any, unless that has just failed.

        Raises
        ------
        RedisError
            When nobody can tell.
        """
        count = self._store.aside.count()
        self._metrics.aside.set(count)
        if count and self._tries.are_due():
            self._try()

    def _try(self) -> None:
        try:
            with self._store.trainer_lock.held(
                ttl_s=self._settings.trainer.lock_ttl_s, work="the trainer, which makes users again"
            ) as lock:
                make_again(
                    self._settings, self._store, self._data_dir, ProgressReporter(), before_write=lock.ensure_held
                )
        except LockHeld:
            self._tries.begin_anew()  # at the next look it may be free
        except RecsysError as error:
            self._tries.count_from_now()  # else a try that takes long would be followed by the next one at once
            remedy = "; recsys rebuild --accept-loss goes on" if isinstance(error, RebuildWouldLoseData) else ""
            log.error(
                "users_stay_aside",
                "users who are set aside stay so: {error}{remedy}; trying again, ever later",
                error=error,
                remedy=remedy,
                **self._tries.again,
            )
        else:
            self._tries.begin_anew()
