"""What a worker holds of what all requests share: model, hidden items, catalogue, the last popular list."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from recsys.errors import DataDirError, RedisError
from recsys.lists.live_model import LiveModel, LoadedModel
from recsys.logger import logger
from recsys.operations.histories import HistoriesLook
from recsys.redis import Store
from recsys.runtime.logs import LastingProblem
from recsys.settings import Settings
from recsys.storage.catalogue import Item
from recsys.storage.data_dir import DataDir

log = logger(__name__)


class Live:
    """Follows Redis in threads; requests only look at what is here.

    Attributes
    ----------
    catalogue : mapping
        Item id → what is known of it; empty before the first import.
    categories : frozenset of str
    popular : dict or None
        The popular list as it was a moment ago, for when Redis is away.
    """

    def __init__(self, settings: Settings, store: Store, data_dir: DataDir) -> None:
        self._store = store
        self._data_dir = data_dir
        self._poll_s = settings.consumer.model_poll_s
        self._histories = HistoriesLook(settings, store, data_dir)
        self._model = LiveModel(store, data_dir.models, poll_s=self._poll_s)
        self._stopped = threading.Event()
        self._stamp: bytes | None = None
        self._problem = LastingProblem()
        self.catalogue: Mapping[str, Item] = {}
        self.categories: frozenset[str] = frozenset()
        self.popular: dict[str, Any] | None = None

    @property
    def model(self) -> LoadedModel | None:
        """The newest model that could be loaded."""
        self._model.take_newest()
        return self._model.current

    @property
    def hidden(self) -> frozenset[str]:
        """The items that are not to be shown."""
        return self._model.hidden

    @property
    def histories_missing(self) -> bool:
        """Whether Redis lacks histories, so that users may lack a list for no reason of theirs."""
        return self._histories.missing

    def look_now(self) -> None:
        """See at once what this worker itself has changed."""
        self._model.look_and_wait(1.0)

    @contextmanager
    def followed(self) -> Iterator[Live]:
        """Look once, then follow until the block ends."""
        self._look()
        # By itself: it may have to ask Kafka, which may be away.
        histories = threading.Thread(target=self._follow_histories, name="live-histories", daemon=True)
        thread = threading.Thread(target=self._follow, name="live-catalogue", daemon=True)
        histories.start()
        thread.start()
        try:
            with self._model.followed():
                yield self
        finally:
            self._stopped.set()
            thread.join()

    def _follow(self) -> None:
        while not self._stopped.wait(self._poll_s):
            self._look()

    def _follow_histories(self) -> None:
        while True:
            try:
                self._histories.look()
            except RedisError as error:
                log.debug("histories_unknown", "cannot tell whether histories are missing: {error}", error=error)
            except Exception:  # nothing may end the thread; the next look may do better
                log.exception("unexpected_error", "unexpected error while looking whether histories are missing")
            if self._stopped.wait(self._poll_s):
                return

    def _look(self) -> None:
        try:
            popular = self._store.item_lists.popular()
            stamp = self._store.catalogue.stamp()
            if stamp != self._stamp:
                items = self._data_dir.catalogue.read().items
                self.categories = frozenset(item.category for item in items.values() if item.category)
                self.catalogue, self._stamp = items, stamp
                gc.freeze()  # so many objects that stay: to look for cycles among them would hold up requests
                log.info("catalogue_read", "catalogue: {items} items", items=len(items))
        except (RedisError, DataDirError) as error:
            if self._problem.is_due(error):
                log.warning(
                    "shared_lists_unreadable",
                    "cannot read popular list, hidden items and catalogue: {error}",
                    error=error,
                    **self._problem.again,
                )
            return
        except Exception:  # nothing may end the thread; the next look may do better
            log.exception("unexpected_error", "unexpected error while reading popular list, hidden items and catalogue")
            return
        self._problem.end()
        if popular is not None:
            self.popular = popular
