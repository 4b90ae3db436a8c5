"""What a shop says of its items, into the catalogue and Redis."""

from __future__ import annotations

from recsys.redis import Store
from recsys.storage.catalogue import Catalogue
from recsys.storage.data_dir import DataDir


def import_items(found: Catalogue, data_dir: DataDir, store: Store) -> Catalogue:
    """Take over what was found of items into ``data_dir`` and Redis; return the whole catalogue.

    The caller holds the trainer's lock, unless no trainer is running.
    """
    data_dir.storage.check_writable()
    before = data_dir.catalogue.read()
    catalogue = before.updated(found)
    data_dir.catalogue.write(catalogue)
    store.catalogue.write(catalogue.titles(), catalogue.unavailable())
    store.item_lists.remove_popular(set(before.categories().values()) - set(catalogue.categories().values()))
    return catalogue
