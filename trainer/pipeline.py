"""One round: archive, build the matrix, fit, write the model, move the pointer, refresh every list."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from recsys import als
from recsys.archive import IMPORT_PREFIX, Archive
from recsys.errors import LockLost, NotEnoughData
from recsys.interactions import Interactions
from recsys.live_model import LoadedModel
from recsys.model import gram
from recsys.model_store import ModelStore, load_model
from recsys.progress import ProgressReporter
from recsys.settings import Settings
from recsys.storage import Storage
from recsys.store import HeldLock, Store
from trainer.archiver import archive_new_purchases
from trainer.item_lists import popular_items, similar_items
from trainer.sweep import sweep

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a round did."""

    version: str
    events: int
    users: int
    items: int
    lists: int
    similar: int
    durations_s: dict[str, float]

    def as_status(self) -> dict[str, Any]:
        """Return a JSON-ready form."""
        return asdict(self)


def run_round(
    settings: Settings, store: Store, lock: HeldLock, progress: ProgressReporter, *, clock: Callable[[], datetime]
) -> Outcome:
    """Do one round while holding the trainer's lock.

    A crash at any point leaves a state from which the next round goes on: segments and models are written whole or
    not at all, the pointer moves after the model is on disk, and each list is written by compare-and-set.

    Raises
    ------
    NotEnoughData
        When nobody owns anything yet.
    LockLost
        When the lock expired; nothing is published then.
    """
    storage = Storage(settings.data_dir)
    archive = Archive(storage)
    pointer_before = store.shared.model_pointer_value()
    archive_new_purchases(settings.kafka, archive, progress, at=clock(), before_write=lock.ensure_held)
    for source, partition, first, last in archive.gaps():
        remedy = "import the file again" if source.startswith(IMPORT_PREFIX) else "no model will know them"
        log.warning("archive: %s, partition %d: %d to %d are missing; %s", source, partition, first, last, remedy)
    with progress.stage("build the matrix"):
        interactions, events = archive.interactions()
    if not len(interactions.users):
        raise NotEnoughData("there are no purchases to train on yet; publish some, or use recsys import")
    lock.ensure_held()
    models = ModelStore(storage)
    version, uri, manifest_sha256 = _fit_and_save(settings, archive, models, interactions, events, progress, clock)
    model = load_model(uri, manifest_sha256=manifest_sha256)  # as consumers will, before they are told
    lock.ensure_held()
    pointer = store.shared.move_model_pointer(version, uri, manifest_sha256, seen=pointer_before, at=clock())
    if pointer is None:
        raise LockLost("another process moved the model pointer during the round; its model stays live")
    log.info("model %s is live: %d users, %d items", version, len(interactions.users), len(interactions.items))
    live = LoadedModel(pointer.stamp, model)
    with progress.stage("refresh every list", len(interactions.users)) as advance:
        lists = sweep(settings, store, live, advance)
    similar = _publish_item_lists(settings, store, live, interactions, progress, clock)
    with progress.stage("refresh latecomers") as advance:
        lists += sweep(settings, store, live, advance)
    for version in models.prune(keep=settings.trainer.keep_versions, live=live.stamp.version):
        log.info("model %s removed: %d newer ones are kept", version, settings.trainer.keep_versions)
    return Outcome(
        version=live.stamp.version,
        events=events,
        users=len(interactions.users),
        items=len(interactions.items),
        lists=lists,
        similar=similar,
        durations_s=progress.durations_s,
    )


def _fit_and_save(
    settings: Settings,
    archive: Archive,
    models: ModelStore,
    interactions: Interactions,
    events: int,
    progress: ProgressReporter,
    clock: Callable[[], datetime],
) -> tuple[str, str, str]:
    """Fit and write the artifact; return its version, uri and the sha256 of its manifest."""
    model = settings.model
    with progress.stage("fit", model.iterations) as advance:
        item_factors = als.fit(
            interactions.confidences(alpha=model.alpha),
            factors=model.factors,
            regularization=model.regularization,
            iterations=model.iterations,
            seed=model.seed,
            on_iteration=lambda: advance(1),
        )
    with progress.stage("write the model"):
        return models.save(
            interactions.items,
            item_factors,
            gram(item_factors),
            buyers=interactions.buyers(),
            popular=popular_items(interactions.items, interactions.buyers(), n=settings.ranking.n),
            parameters={**model.model_dump(), "factors": item_factors.shape[1]},
            counts={
                "users": len(interactions.users),
                "items": len(interactions.items),
                "pairs": int(interactions.quantities.nnz),
                "events": events,
            },
            archive=archive.positions(),
            at=clock(),
        )


def _publish_item_lists(
    settings: Settings,
    store: Store,
    live: LoadedModel,
    interactions: Interactions,
    progress: ProgressReporter,
    clock: Callable[[], datetime],
) -> int:
    """Write the popular list and every item's similar items; return the number of the latter."""
    hidden = store.shared.hidden()
    popular = popular_items(interactions.items, interactions.buyers(), n=settings.ranking.n, hidden=hidden)
    store.shared.write_popular(popular, live.stamp, at=clock())
    ttl_s = int(settings.ranking.list_ttl_days * 24 * 3600)
    count = 0
    with progress.stage("similar items", len(live.model.items)) as advance:
        for lists in similar_items(
            live.model, n=settings.ranking.similar_n, batch=settings.trainer.sweep_batch, hidden=hidden
        ):
            store.shared.write_similar(lists, live.stamp, at=clock(), ttl_s=ttl_s)
            count += len(lists)
            advance(len(lists))
    return count
