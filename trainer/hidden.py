"""Hidden items: copied to data_dir, and followed by the lists that all users share."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from recsys.errors import RecsysError
from recsys.lists.item_lists import rows_of_changed_similar_lists, write_popular_lists, write_similar_lists
from recsys.lists.live_model import LoadedModel
from recsys.logger import logger
from recsys.operations.hidden_items import HiddenItems
from recsys.redis import ModelPointer, Store
from recsys.runtime.clock import now
from recsys.runtime.logs import LastingProblem
from recsys.settings import Settings
from recsys.storage.data_dir import DataDir

log = logger(__name__)
_LOOK_EVERY_S = 0.5


class HiddenFollower:
    """A thread that looks at the hidden items, also while a round is at work.

    Popular lists are written again at once. So are similar lists that hold a hidden item, or where an item belongs that
    is shown again. The lists of a new model are the round's: if items were hidden meanwhile, those that it wrote before
    are looked for once it is done.
    """

    def __init__(self, settings: Settings, store: Store, data_dir: DataDir) -> None:
        self._settings = settings
        self._store = store
        self._data_dir = data_dir
        self._items = HiddenItems(store, data_dir)
        self._stopped = threading.Event()
        self._loaded: tuple[LoadedModel, NDArray[np.float64]] | None = None
        self._in_popular: tuple[ModelPointer, frozenset[str]] | None = None
        self._in_similar: tuple[ModelPointer, frozenset[str]] | None = None
        self._seen: tuple[ModelPointer, frozenset[str]] | None = None
        """At the last look."""
        self._unchanged = False
        """Whether the hidden items are those of before the model was published."""
        self._problem = LastingProblem()

    @contextmanager
    def followed(self) -> Iterator[None]:
        """Follow until the block ends."""
        thread = threading.Thread(target=self._follow, name="hidden-items", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stopped.set()
            thread.join()

    def _follow(self) -> None:
        while not self._stopped.wait(_LOOK_EVERY_S):
            try:
                self.look()
            except RecsysError as error:
                if self._problem.is_due(error):
                    log.warning(
                        "hidden_items_not_followed",
                        "hidden items are not followed: {error}",
                        error=error,
                        **self._problem.again,
                    )
            except Exception:  # nothing may end the thread; the next look may do better
                log.exception("unexpected_error", "unexpected error while hidden items are followed")
            else:
                self._problem.end()

    def look(self) -> None:
        """Copy the hidden items, and write the lists again that must not hold them."""
        self._items.keep()
        pointer = self._store.pointer.read()
        if pointer is None:
            return
        hidden = self._store.catalogue.hidden()
        if self._seen is None or self._seen[1] != hidden:
            self._unchanged = False
        elif self._seen[0] != pointer:
            self._unchanged = True
        self._seen = pointer, hidden
        if not hidden and self._in_popular is None:  # nothing has been hidden since this process began
            return
        if self._in_popular != (pointer, hidden):
            self._write_popular(pointer, hidden)
        if self._in_similar != (pointer, hidden):
            self._write_similar(pointer, hidden)

    def _write_popular(self, pointer: ModelPointer, hidden: frozenset[str]) -> None:
        live, popularity = self._load(pointer)
        write_popular_lists(
            self._settings, self._store, self._data_dir, live, popularity, hidden=hidden, clock=now
        )  # fmt: skip
        self._in_popular = pointer, hidden

    def _write_similar(self, pointer: ModelPointer, hidden: frozenset[str]) -> None:
        before = self._in_similar
        gone, back = hidden, frozenset[str]()
        if before is not None and before[0] == pointer:
            gone, back = hidden - before[1], before[1] - hidden
        elif self._store.trainer_lock.is_held():
            return  # a round is writing them
        elif self._unchanged:
            self._in_similar = pointer, hidden
            return
        else:  # the round may have written the popular lists as they were before
            self._write_popular(pointer, hidden)
        live, _ = self._load(pointer)
        rows = rows_of_changed_similar_lists(self._settings, self._store, live, gone=gone, back=back)
        if self._store.pointer.read() == pointer:
            written = write_similar_lists(
                self._settings, self._store, live, hidden=hidden, clock=now, advance=lambda _: None, rows=rows
            )
            log.info(
                "similar_lists_written", "hidden items have changed: {lists} similar lists written again", lists=written
            )
            self._in_similar = pointer, hidden

    def _load(self, pointer: ModelPointer) -> tuple[LoadedModel, NDArray[np.float64]]:
        if self._loaded is None or self._loaded[0].pointer != pointer:
            models = self._data_dir.models
            model = models.load(pointer.version, manifest_sha256=pointer.manifest_sha256)
            popularity = models.popularity(pointer.version, manifest_sha256=pointer.manifest_sha256)
            self._loaded = LoadedModel(pointer, model), popularity
        return self._loaded
