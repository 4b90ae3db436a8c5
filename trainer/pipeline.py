"""One round: archive, fit, judge, write the model, move the pointer, refresh every list."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from recsys.data.event_log import EventLog
from recsys.errors import DataDirError, InvalidModel, LockLost, NotEnoughNewEvents, RecsysError
from recsys.evaluation.gate_record import Decision, GateRecord
from recsys.evaluation.split import split_by_time
from recsys.kafka.decoder import make_decoder
from recsys.lists.live_model import LoadedModel
from recsys.lists.refresh_all import refresh_all_lists
from recsys.model.boosts import BoostWeights
from recsys.recommend.item_lists import popular_items
from recsys.redis import HeldLock, ModelPointer, Store
from recsys.runtime import fail_points, threads
from recsys.runtime.clock import json_time, now
from recsys.runtime.progress import ProgressReporter
from recsys.settings import Settings
from recsys.storage.archive import Archive
from recsys.storage.artifact import Draft, load_model, load_popularity
from recsys.storage.files import Storage
from recsys.storage.models import ModelStore
from recsys.storage.rounds import RoundLog, RoundRecord
from recsys.storage.segments import IMPORT_PREFIX
from recsys.storage.tuned import model_settings, parameters_of, read_tuned, write_tuned
from recsys.training.fit import Fitted, fit_model
from recsys.training.parameters import Parameters, iterations_of
from trainer.archiver import archive_new_purchases
from trainer.gate import LiveComparison, judge, reason_not_evaluable, unjudged

log = logging.getLogger(__name__)
_DAY_S = 24 * 3600


@dataclass
class Round:
    """How far a round has come: what is left of it if it fails.

    Attributes
    ----------
    version : str
        Published or rejected; empty if nothing was written.
    published : bool
        Whether the model is live.
    live_before : str
        Empty if there was none.
    lists, similar : int
        Written.
    """

    version: str = ""
    published: bool = False
    live_before: str = ""
    gate: GateRecord | None = None
    counts: dict[str, int] = field(default_factory=dict)
    lists: int = 0
    similar: int = 0


def run_round(
    settings: Settings,
    store: Store,
    lock: HeldLock,
    progress: ProgressReporter,
    round_: Round,
    *,
    clock: Callable[[], datetime],
    force: bool = False,
    scheduled: bool = False,
    lost: bool = False,
) -> None:
    """Do one round while holding the trainer's lock.

    A crash at any point leaves a state from which the next round goes on: segments and models are written whole or
    not at all, the pointer moves after the model is on disk, and each list is written by compare-and-set.

    Parameters
    ----------
    round_ : Round
        Filled in on the way.
    force : bool
        Publish the model whatever the gate says.
    scheduled : bool
        Nobody asked for it: it does nothing with fewer new events than `trainer.min_new_events`, and tunes if that is
        due.
    lost : bool
        Redis has lost lists: they are written even if there is no new model.

    Raises
    ------
    NotEnoughData
        When nobody owns anything yet.
    NotEnoughNewEvents
        When there are too few new events.
    LockLost
        When the lock expired; nothing is published then.
    """
    storage = Storage(settings.data_dir)
    archive, models, rounds = Archive(storage), ModelStore(storage), RoundLog(storage)
    pointer_before = store.pointer.value()
    if not force:
        _ensure_data_dir_is_the_one(store, storage, models)
    models.remove_temporaries()
    unpublished = _unpublished(store, models)
    archive_new_purchases(
        settings.kafka,
        archive,
        progress,
        at=clock(),
        decoder=make_decoder(settings),
        before_write=lock.ensure_held,
    )
    for source, partition, first, last in archive.gaps():
        remedy = "import the file again" if source.startswith(IMPORT_PREFIX) else "no model will know them"
        log.warning("archive: %s, partition %d: %d to %d are missing; %s", source, partition, first, last, remedy)
    if scheduled and (pointer := _pointer(store)) is not None:
        too_few = _too_few_new_events(pointer.version, models, archive, settings.trainer.min_new_events)
        if too_few:
            _keep_live(settings, store, models, rounds, pointer.version, progress, clock)
            raise NotEnoughNewEvents(too_few)
    with progress.stage("read the archive"):
        events = archive.events()
    lock.ensure_held()
    newest_s = events.newest_s(int(clock().timestamp()))
    cut_s = newest_s - round(settings.trainer.holdout_days * _DAY_S)
    rival = _rival(store, models, rounds, cut_s)
    round_.live_before = "" if rival is None else rival.version
    parameters = _parameters(settings, storage, events, cut_s, progress, may_tune=scheduled)
    gate, candidate = _judged(settings, parameters, events, rival, cut_s, progress)
    if force and gate.decision is Decision.REJECTED:
        gate = gate.model_copy(update={"decision": Decision.FORCED})
    round_.gate, round_.counts = gate, {"events": len(events)} if candidate is None else _counts(candidate)
    lock.ensure_held()
    if gate.decision is Decision.REJECTED:
        if candidate is not None:  # an operator may want to look at it
            with progress.stage("write the model"):
                round_.version, _, _ = _save(settings, archive, models, candidate, gate, clock)
            _prune(settings, models, live=round_.live_before)
        which = f" model {round_.version}" if round_.version else ""
        log.warning("rejected%s; %s stays live: %s", which, round_.live_before, "; ".join(gate.reasons))
        _keep_live(settings, store, models, rounds, round_.live_before, progress, clock, lost=lost)
        return
    weights = None if candidate is None else candidate.weights  # those that were judged
    fitted = _fit(parameters, events, newest_s, progress, "fit", weights)
    with progress.stage("write the model"):
        version, uri, manifest_sha256 = _save(settings, archive, models, fitted, gate, clock, holdout_model=candidate)
    model = load_model(uri, manifest_sha256=manifest_sha256)  # as consumers will, before they are told
    lock.ensure_held()
    fail_points.reach("before-pointer")
    pointer = store.pointer.move(version, uri, manifest_sha256, seen=pointer_before, at=clock())
    if pointer is None:
        raise LockLost("another process moved the model pointer during the round; its model stays live")
    round_.version, round_.published, round_.counts = version, True, _counts(fitted)
    interactions = fitted.interactions
    log.info("model %s is live: %d users, %d items", version, len(interactions.users), len(interactions.items))
    # Not before: a trainer that lost its lock could have published one of them until the pointer had moved.
    for leftover in unpublished:
        log.info("model %s removed: it never was live", leftover)
    models.remove(unpublished)
    live = LoadedModel(pointer, model)
    written = refresh_all_lists(
        settings,
        store,
        live,
        fitted.popularity,
        users=len(interactions.users),
        progress=progress,
        clock=clock,
    )
    round_.lists, round_.similar = written.lists, written.similar
    if store.pointer.read() != pointer:
        raise LockLost(f"the pointer to model {version} was moved, or lost by Redis, during the round")
    _prune(settings, models, live=version)


def _unpublished(store: Store, models: ModelStore) -> list[str]:
    """Return the versions that rounds before this one wrote and did not publish."""
    pointer = _pointer(store)
    if pointer is None:  # nobody knows which one is live: keep them all
        return []
    return models.unpublished(live=pointer.version, published_at=datetime.fromisoformat(pointer.published_at))


def _too_few_new_events(live: str, models: ModelStore, archive: Archive, least: int) -> str:
    """Say that fewer events are new than a scheduled round waits for; empty if there are enough."""
    try:
        known = models.manifest(live).archive
    except InvalidModel:  # whatever is live, a new model is better
        return ""
    new = sum(
        max(0, end - known.get(source, {}).get(partition, 0))
        for source, ends in archive.positions().items()
        for partition, end in ends.items()
    )
    if new >= least:
        return ""
    return f"{new:,} new events since model {live}; a scheduled round waits for {least:,}"


def _keep_live(
    settings: Settings,
    store: Store,
    models: ModelStore,
    rounds: RoundLog,
    version: str,
    progress: ProgressReporter,
    clock: Callable[[], datetime],
    *,
    lost: bool = False,
) -> None:
    """Let the live model go on, for this round makes no new one.

    If Redis has lost the pointer to it, it is written again. Lists that an earlier round, or a rollback, has left are
    written, and all of them if Redis has ``lost`` some.
    """
    seen, pointer = store.pointer.value(), _pointer(store)
    last, _ = rounds.last_of(version)
    if pointer is not None and last is not None and last.state == "succeeded" and not lost:
        return
    started_at = json_time(clock())
    log.warning("not every list is of model %s: what wrote them was interrupted, or Redis lost them", version)
    uri, manifest_sha256 = models.address(version)
    model = load_model(uri, manifest_sha256=manifest_sha256)
    if pointer is None:
        pointer = store.pointer.move(version, uri, manifest_sha256, seen=seen, at=clock())
        if pointer is None:
            raise LockLost("another process moved the model pointer during the round; its model stays live")
    live, popularity = LoadedModel(pointer, model), load_popularity(uri)
    refresh_all_lists(settings, store, live, popularity, users=None, progress=progress, clock=clock)
    record = RoundRecord(
        kind="refresh",
        asked_by="schedule",
        started_at=started_at,
        finished_at=json_time(clock()),
        state="succeeded",
        published=True,
        version=version,
    )
    rounds.add(record, at=clock())


def _ensure_data_dir_is_the_one(store: Store, storage: Storage, models: ModelStore) -> None:
    """Refuse to make a model of the little that an empty data_dir can lead to, in place of a live one."""
    pointer = _pointer(store)
    if pointer is not None and not models.versions():
        raise DataDirError(
            f"Redis names the live model {pointer.version}, but there is no model at all in {storage.url}: is "
            f"RECSYS_DATA_DIR right, and mounted? recsys retrain --force goes on without"
        )


def _rival(store: Store, models: ModelStore, rounds: RoundLog, cut_s: int) -> LiveComparison | None:
    """Return the live model, with what can be judged by what came from the cut on.

    If Redis has lost the pointer, it is the one that was made live last.
    """
    pointer = _pointer(store)
    kept = models.versions()
    version = pointer.version if pointer else next((r.version for r in rounds.publications() if r.version in kept), "")
    if not version:
        return None
    _, chosen = rounds.last_of(version)
    try:
        manifest = models.manifest(version)
    except InvalidModel as error:
        log.warning("the live model cannot be compared: %s", error)
        return LiveComparison(version, 0, None, chosen)
    return LiveComparison(
        version, manifest.counts.get("events", 0), models.model_for_holdout(version, cut_s=cut_s), chosen
    )


def _pointer(store: Store) -> ModelPointer | None:
    try:
        return store.pointer.read()
    except InvalidModel as error:
        log.warning("%s", error)
        return None


def _judged(
    settings: Settings,
    parameters: Parameters,
    events: EventLog,
    rival: LiveComparison | None,
    cut_s: int,
    progress: ProgressReporter,
) -> tuple[GateRecord, Fitted | None]:
    """Fit a candidate on what precedes the hold-out and judge it; None if it could not be judged."""
    include_purchased = settings.ranking.include_purchased
    split = split_by_time(events, cut_s=cut_s) if settings.trainer.holdout_days else None
    reason = reason_not_evaluable(split, include_purchased=include_purchased)
    if split is None or reason:
        return unjudged(reason, events, rival), None
    before = events.where(events.seconds < cut_s)
    candidate = _fit(parameters, before, cut_s, progress, "fit before the hold-out")
    with progress.stage("judge", 2 if rival is None or rival.model is None else 3) as advance:
        gate = judge(
            split,
            events,
            candidate.model,
            rival,
            include_purchased=include_purchased,
            tolerance=settings.trainer.gate_tolerance,
            on_recommender=lambda: advance(1),
        )
    return gate, candidate


def _parameters(
    settings: Settings,
    storage: Storage,
    events: EventLog,
    until_s: int,
    progress: ProgressReporter,
    *,
    may_tune: bool,
) -> Parameters:
    """Return what to fit with; tuned anew if that is due."""
    current = parameters_of(settings, model_settings(settings, storage))
    tuned = read_tuned(storage)
    every = timedelta(days=settings.trainer.tune_every_days)
    if not may_tune or not every or (tuned is not None and now() - tuned.moment < every):
        return current
    fixed = frozenset(settings.model.model_fields_set)
    from recsys.storage.tuned import study_folder  # which takes long to import, and is rarely needed
    from recsys.training.tuning import Problem, tune  # which takes long to import, and is rarely needed

    try:
        problem = Problem.before_holdout(events, until_s, current, fixed=fixed)
        found = tune(
            problem, study_folder(storage), progress, trials=settings.trainer.tune_trials, jobs=threads.available()
        )
    except RecsysError as error:
        log.warning("not tuned: %s", error)
        return current
    write_tuned(storage, found)
    log.info("tuned in %d trials: %.4f, before %.4f", found.trials, found.objective, found.before)
    return parameters_of(settings, model_settings(settings, storage))


def _fit(
    parameters: Parameters,
    events: EventLog,
    reference_s: int,
    progress: ProgressReporter,
    stage: str,
    weights: BoostWeights | None = None,
) -> Fitted:
    with progress.stage(stage, iterations_of(parameters, learn=weights is None)) as advance:
        return fit_model(events, parameters, reference_s=reference_s, weights=weights, on_iteration=lambda: advance(1))


def _save(
    settings: Settings,
    archive: Archive,
    models: ModelStore,
    fitted: Fitted,
    gate: GateRecord,
    clock: Callable[[], datetime],
    *,
    holdout_model: Fitted | None = None,
) -> tuple[str, str, str]:
    """Write the artifact; return its version, uri and the sha256 of its manifest."""
    return models.save(
        _draft(fitted),
        popular=popular_items(fitted.model.items, fitted.popularity, n=settings.ranking.n),
        archive=archive.positions(),
        gate=gate,
        holdout_model=None if holdout_model is None else _draft(holdout_model),
        at=clock(),
    )


def _draft(fitted: Fitted) -> Draft:
    parameters = fitted.parameters
    return Draft(
        fitted.model,
        fitted.interactions.buyers(),
        fitted.popularity,
        parameters={
            "iterations": parameters.iterations,
            "seed": parameters.seed,
            "repeat_weight": parameters.repeat_weight,
        },
        counts=_counts(fitted),
        weights=fitted.weights,
    )


def _counts(fitted: Fitted) -> dict[str, int]:
    interactions = fitted.interactions
    return {
        "users": len(interactions.users),
        "items": len(interactions.items),
        "pairs": len(interactions.owned.rows),
        "events": fitted.events,
    }


def _prune(settings: Settings, models: ModelStore, *, live: str) -> None:
    keep = settings.trainer.keep_versions
    for version in models.prune(keep=keep, live=live):
        log.info("model %s removed: %d newer ones of its kind are kept", version, keep)
