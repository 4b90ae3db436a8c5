"""What operators hide lives on in data_dir."""

from __future__ import annotations

import uuid

from recsys.logger import logger
from recsys.redis import Store
from recsys.storage.data_dir import DataDir
from recsys.storage.hidden import HiddenCopy

log = logger(__name__)


class HiddenItems:
    """The hidden items in Redis, which operators change, and their copy in data_dir.

    Redis keeps the id of the copy beside the set. While it is there, the copy follows the set. A Redis without it was
    emptied: then the copy is not changed, and what is missing is hidden again.
    """

    def __init__(self, store: Store, data_dir: DataDir) -> None:
        self._catalogue = store.catalogue
        self._file = data_dir.hidden
        self._copy: HiddenCopy | None = None
        self._is_read = False

    def keep(self) -> None:
        """Copy the set if it has changed, or hide again what an emptied Redis has lost; the trainer alone calls it."""
        copy = self._read()
        items, known = self._catalogue.hidden_by_operators()
        if copy is None and not items:
            return
        if copy is not None and known != copy.id:
            self._hide_again(copy, items)
        elif copy is None or copy.items != items:
            self._copy = HiddenCopy(known if copy else uuid.uuid4().hex, items)
            self._file.write(self._copy)
            self._catalogue.note_hidden_copy(self._copy.id)

    def restore(self) -> None:
        """Hide again what Redis has lost, if it was emptied; nothing is written to data_dir."""
        if (copy := self._read()) is not None:
            items, known = self._catalogue.hidden_by_operators()
            if known != copy.id:
                self._hide_again(copy, items)

    def _read(self) -> HiddenCopy | None:
        if not self._is_read:
            self._copy, self._is_read = self._file.read(), True
        return self._copy

    def _hide_again(self, copy: HiddenCopy, items: frozenset[str]) -> None:
        if missing := copy.items - items:
            self._catalogue.hide_all(missing)
            log.warning(
                "hidden_items_restored",
                "{count} items are hidden again, which Redis had lost: {items}",
                count=len(missing),
                items=", ".join(sorted(missing)[:5]),
            )
        self._catalogue.note_hidden_copy(copy.id)
