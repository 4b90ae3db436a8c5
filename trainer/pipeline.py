"""One round: archive, build the matrix, fit, write the model, move the pointer, refresh every list."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from recsys import als, fail_points
from recsys.archive import IMPORT_PREFIX, Archive
from recsys.errors import InvalidModel, LockLost, NotEnoughData
from recsys.interactions import Interactions
from recsys.item_lists import popular_items
from recsys.live_model import LoadedModel
from recsys.model import gram
from recsys.model_store import ModelStore, load_model
from recsys.progress import ProgressReporter
from recsys.settings import Settings
from recsys.storage import Storage
from recsys.store import HeldLock, Store
from recsys.sweep import write_every_list
from trainer.archiver import archive_new_purchases

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
    archive, models = Archive(storage), ModelStore(storage)
    pointer_before = store.shared.model_pointer_value()
    models.remove_temporaries()
    unpublished = _unpublished(store, models)
    archive_new_purchases(
        settings.kafka,
        archive,
        progress,
        at=clock(),
        check_user=store.users.ensure_can_hold,
        before_write=lock.ensure_held,
    )
    for source, partition, first, last in archive.gaps():
        remedy = "import the file again" if source.startswith(IMPORT_PREFIX) else "no model will know them"
        log.warning("archive: %s, partition %d: %d to %d are missing; %s", source, partition, first, last, remedy)
    with progress.stage("build the matrix"):
        interactions, events = archive.interactions()
    if not len(interactions.users):
        raise NotEnoughData("there are no purchases to train on yet; publish some, or use recsys import")
    lock.ensure_held()
    version, uri, manifest_sha256 = _fit_and_save(settings, archive, models, interactions, events, progress, clock)
    model = load_model(uri, manifest_sha256=manifest_sha256)  # as consumers will, before they are told
    lock.ensure_held()
    fail_points.reach("before-pointer")
    pointer = store.shared.move_model_pointer(version, uri, manifest_sha256, seen=pointer_before, at=clock())
    if pointer is None:
        raise LockLost("another process moved the model pointer during the round; its model stays live")
    log.info("model %s is live: %d users, %d items", version, len(interactions.users), len(interactions.items))
    # Not before: a trainer that lost its lock could have published one of them until the pointer had moved.
    for leftover in unpublished:
        log.info("model %s removed: it never was live", leftover)
    models.remove(unpublished)
    live = LoadedModel(pointer, model)
    written = write_every_list(
        settings,
        store,
        live,
        interactions.buyers(),
        users=len(interactions.users),
        progress=progress,
        clock=clock,
    )
    if store.shared.model_pointer() != pointer:
        raise LockLost(f"the pointer to model {version} was moved, or lost by Redis, during the round")
    for version in models.prune(keep=settings.trainer.keep_versions, live=live.stamp.version):
        log.info("model %s removed: %d newer ones are kept", version, settings.trainer.keep_versions)
    return Outcome(
        version=live.stamp.version,
        events=events,
        users=len(interactions.users),
        items=len(interactions.items),
        lists=written.lists,
        similar=written.similar,
        durations_s=progress.durations_s,
    )


def _unpublished(store: Store, models: ModelStore) -> list[str]:
    """Return the versions that rounds before this one wrote and did not publish."""
    try:
        pointer = store.shared.model_pointer()
    except InvalidModel:  # nobody knows which one is live: keep them all
        return []
    if pointer is None:
        return []
    return models.unpublished(live=pointer.version, published_at=datetime.fromisoformat(pointer.published_at))


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
