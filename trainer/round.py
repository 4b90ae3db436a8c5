"""One round: archive, fit, judge, write the model, move the pointer, refresh every list."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.errors import DataDirError, InvalidModel, LockLost, NotEnoughNewEvents
from recsys.evaluation.gate_record import Decision, GateRecord
from recsys.evaluation.split import Split
from recsys.kafka.shared_reading import SharedReading
from recsys.lists.live_model import LoadedModel
from recsys.lists.refresh_all import refresh_all_lists
from recsys.logger import logger
from recsys.model.boosts import BoostWeights
from recsys.operations.hidden_items import HiddenItems
from recsys.operations.open_engine import holdout_begins, open_engine
from recsys.recommend.item_lists import popular_items
from recsys.redis import HeldLock, ModelPointer, Store
from recsys.runtime import fail_points
from recsys.runtime.clock import json_time
from recsys.runtime.progress import ProgressReporter
from recsys.settings import Settings
from recsys.storage.artifact import draft_of
from recsys.storage.data_dir import DataDir
from recsys.storage.rounds import RoundRecord
from recsys.storage.segments import IMPORT_PREFIX
from recsys.training.engine import Engine
from recsys.training.fit import Fitted
from recsys.training.parameters import Parameters, iterations_of
from trainer.archiver import archive_new_purchases
from trainer.gate import LiveComparison, judge, reason_not_evaluable, unjudged, unless_forced
from trainer.last_look import look, refused
from trainer.parameters import parameters_for
from trainer.report import RoundOutcome

log = logger(__name__)


class Round:
    """One round, done while holding the trainer's lock.

    A crash at any point leaves a state from which the next round goes on: segments and models are written whole or
    not at all, the pointer moves after the model is on disk, and each list is written by compare-and-set.

    Attributes
    ----------
    outcome : RoundOutcome
        How far the round has come; also after it has failed.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        data_dir: DataDir,
        lock: HeldLock,
        progress: ProgressReporter,
        *,
        clock: Callable[[], datetime],
    ) -> None:
        self.outcome = RoundOutcome()
        self._settings = settings
        self._store = store
        self._data_dir = data_dir
        self._lock = lock
        self._progress = progress
        self._clock = clock

    def run(self, *, force: bool = False, scheduled: bool = False, lost: bool = False) -> None:
        """Do the round.

        Parameters
        ----------
        force : bool
            Publish the model whatever the gate says.
        scheduled : bool
            Nobody asked for it: it does nothing with fewer new events than `trainer.min_new_events`, and tunes if that
            is due.
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
        pointer_before = self._store.pointer.value()
        if not force:
            self._ensure_data_dir_is_the_one()
        HiddenItems(self._store, self._data_dir).keep()
        leftovers = self._never_published()
        self._archive_purchases()
        if scheduled:
            self._ensure_enough_new_events()
        with self._progress.stage("read the archive"):
            engine = open_engine(self._data_dir.archive)
        self._lock.ensure_held()
        now = self._clock()
        cut_s = holdout_begins(engine, now, holdout_days=self._settings.trainer.holdout_days)
        live = self._live_comparison(cut_s)
        parameters = parameters_for(
            self._settings, self._data_dir, engine, cut_s, self._progress, now, may_tune=scheduled
        )
        newest_s = engine.newest_s(int(now.timestamp()))
        split = engine.split(cut_s, end_s=newest_s + 1) if self._settings.trainer.holdout_days else None
        gate, candidate = self._judge(engine, parameters, live, split, force=force)
        self._lock.ensure_held()
        if gate.decision is Decision.REJECTED:
            self._keep_rejected(gate, candidate, lost=lost)
            return
        weights = None if candidate is None else candidate.weights  # those that were judged
        fitted = self._fit("fit", engine, parameters, reference_s=newest_s, weights=weights)
        gate = self._look(engine, fitted, gate, candidate, force=force)
        if gate.decision is Decision.REJECTED:
            self._keep_rejected(gate, fitted, candidate, lost=lost)
            return
        published = self._publish(fitted, gate, candidate, pointer_before)
        self._remove(leftovers)
        self._refresh(published, fitted.popularity, users=fitted.counts["users"])
        self._prune(live=published.stamp.version)

    def _ensure_data_dir_is_the_one(self) -> None:
        """Refuse to make a model of the little that an empty data_dir can lead to, in place of a live one."""
        pointer = self._store.pointer.read_unless_damaged()
        if pointer is not None and not self._data_dir.models.versions():
            raise DataDirError(
                f"Redis names the live model {pointer.version}, but {self._data_dir.url} holds no model: "
                f"check RECSYS_DATA_DIR and its mount, or continue without that model: recsys retrain --force"
            )

    def _never_published(self) -> list[str]:
        """Return the versions that rounds before this one wrote and did not publish."""
        models = self._data_dir.models
        models.remove_temporaries()
        pointer = self._store.pointer.read_unless_damaged()
        if pointer is None:  # nobody knows which one is live: keep them all
            return []
        later = models.unpublished(live=pointer.version, published_at=datetime.fromisoformat(pointer.published_at))
        were_live = {record.version for record in self._data_dir.rounds.publications()}  # whatever the pointer says
        return [version for version in later if version not in were_live]

    def _archive_purchases(self) -> None:
        archive_new_purchases(
            self._settings.kafka,
            self._data_dir.archive,
            self._progress,
            at=self._clock(),
            reading=SharedReading(self._settings, self._store.readings, self._store.applied_offsets.read),
            before_write=self._lock.ensure_held,
        )
        for source, partition, first, last in self._data_dir.archive.gaps():
            remedy = "import the file again" if source.startswith(IMPORT_PREFIX) else "no model will include them"
            log.warning(
                "records_missing",
                "archive: {source}, partition {partition}: {first} to {last} are missing; {remedy}",
                source=source,
                partition=partition,
                first=first,
                last=last,
                remedy=remedy,
            )

    def _ensure_enough_new_events(self) -> None:
        """Raise `NotEnoughNewEvents` if fewer events are new than a scheduled round waits for."""
        pointer = self._store.pointer.read_unless_damaged()
        least = self._settings.trainer.min_new_events
        if pointer is None:
            return
        try:
            known = self._data_dir.models.manifest(pointer.version).archive
        except InvalidModel:  # whatever is live, a new model is better
            return
        new = sum(
            max(0, end - known.get(source, {}).get(partition, 0))
            for source, ends in self._data_dir.archive.positions().items()
            for partition, end in ends.items()
        )
        if new < least:
            self._keep_live(pointer.version)
            raise NotEnoughNewEvents(
                f"{new:,} new events since model {pointer.version}; a scheduled round waits for {least:,}"
            )

    def _live_comparison(self, cut_s: int) -> LiveComparison | None:
        """Return the live model, with what can be judged by what came from the cut on.

        If Redis has lost the pointer, it is the one that was made live last.
        """
        pointer = self._store.pointer.read_unless_damaged()
        models, rounds = self._data_dir.models, self._data_dir.rounds
        kept = models.versions()
        version = (
            pointer.version if pointer else next((r.version for r in rounds.publications() if r.version in kept), "")
        )
        if not version:
            return None
        self._note(live_before=version)
        _, chosen = rounds.last_of(version)
        try:
            manifest = models.manifest(version)
        except InvalidModel as error:
            log.warning("live_model_not_compared", "the live model cannot be compared: {error}", error=error)
            return LiveComparison(version, 0, None, chosen)
        model = models.model_for_holdout(version, cut_s=cut_s)
        return LiveComparison(version, manifest.counts.get("events", 0), model, chosen)

    def _judge(
        self, engine: Engine, parameters: Parameters, live: LiveComparison | None, split: Split | None, *, force: bool
    ) -> tuple[GateRecord, Fitted | None]:
        """Fit a candidate on what precedes the hold-out and judge it; None if it could not be judged."""
        candidate, include_purchased = None, self._settings.ranking.include_purchased
        reason = reason_not_evaluable(split, include_purchased=include_purchased)
        if split is None or reason:
            gate = unjudged(reason, engine.n_events, live)
        else:
            cut_s = split.cut_s
            candidate = self._fit("fit before the hold-out", engine, parameters, reference_s=cut_s, before_s=cut_s)
            with self._progress.stage("judge", 2 if live is None or live.model is None else 3) as advance:
                gate = judge(
                    split,
                    engine.n_events,
                    candidate.model,
                    live,
                    include_purchased=include_purchased,
                    tolerance=self._settings.trainer.gate_tolerance,
                    on_recommender=lambda: advance(1),
                )
        gate = unless_forced(gate, force=force)
        self._note(gate=gate, counts={"events": engine.n_events} if candidate is None else candidate.counts)
        return gate, candidate

    def _look(
        self, engine: Engine, fitted: Fitted, gate: GateRecord, candidate: Fitted | None, *, force: bool
    ) -> GateRecord:
        """Look at what would be published: the gate has judged a model that has not seen the newest purchases."""
        with self._progress.stage("look at the model"):
            models, live, hidden = self._data_dir.models, self.outcome.live_before, self._store.catalogue.hidden()
            reasons = look(models, live, candidate, fitted, engine, self._settings, hidden=hidden)
        looked_at = unless_forced(refused(gate, reasons), force=force) if reasons else gate
        self._note(gate=looked_at)
        return looked_at

    def _fit(
        self,
        stage: str,
        engine: Engine,
        parameters: Parameters,
        *,
        reference_s: int,
        before_s: int | None = None,
        weights: BoostWeights | None = None,
    ) -> Fitted:
        with self._progress.stage(stage, iterations_of(parameters, learn=weights is None)) as advance:
            return engine.fit(
                parameters,
                reference_s=reference_s,
                before_s=before_s,
                weights=weights,
                on_iteration=lambda: advance(1),
            )

    def _publish(
        self, fitted: Fitted, gate: GateRecord, candidate: Fitted | None, pointer_before: bytes
    ) -> LoadedModel:
        """Write the artifact and move the pointer to it, unless another process has moved it since."""
        version, uri, manifest_sha256 = self._save(fitted, gate, holdout_model=candidate)
        # As consumers will, before they are told.
        model = self._data_dir.models.load(version, manifest_sha256=manifest_sha256)
        self._lock.ensure_held()
        fail_points.reach("before-pointer")
        pointer = self._move_pointer(version, uri, manifest_sha256, seen=pointer_before)
        self._note(version=version, published=True, counts=fitted.counts)
        log.info(
            "model_live",
            "model {model} is live: {users} users, {items} items",
            model=version,
            users=fitted.counts["users"],
            items=fitted.counts["items"],
        )
        return LoadedModel(pointer, model)

    def _save(self, fitted: Fitted, gate: GateRecord, *, holdout_model: Fitted | None = None) -> tuple[str, str, str]:
        """Write the artifact; return its version, uri and the sha256 of its manifest."""
        with self._progress.stage("write the model"):
            return self._data_dir.models.save(
                draft_of(fitted),
                popular=popular_items(fitted.model.items, fitted.popularity, n=self._settings.ranking.n),
                archive=self._data_dir.archive.positions(),
                gate=gate,
                holdout_model=None if holdout_model is None else draft_of(holdout_model),
                at=self._clock(),
            )

    def _move_pointer(self, version: str, uri: str, manifest_sha256: str, *, seen: bytes) -> ModelPointer:
        pointer = self._store.pointer.move(version, uri, manifest_sha256, seen=seen, at=self._clock())
        if pointer is None:
            raise LockLost("another process moved the model pointer during the round; the other model stays live")
        return pointer

    def _remove(self, leftovers: Sequence[str]) -> None:
        """Remove what earlier rounds have written and never published.

        Only when the pointer has moved: until then a trainer that lost its lock could have published one of them.
        """
        for version in leftovers:
            log.info("model_removed", "model {model} removed: it was never live", model=version)
        self._data_dir.models.remove(leftovers)

    def _refresh(self, live: LoadedModel, popularity: NDArray[np.float64], *, users: int | None) -> None:
        """Write the lists of all users and items with a model that is live now."""
        written = refresh_all_lists(
            self._settings,
            self._store,
            self._data_dir,
            live,
            popularity,
            users=users,
            progress=self._progress,
            clock=self._clock,
        )
        self._note(lists=written.lists, similar=written.similar)
        if self._store.pointer.read() != live.pointer:
            raise LockLost(f"the pointer to model {live.stamp.version} was moved, or lost by Redis, during the round")

    def _keep_rejected(self, gate: GateRecord, model: Fitted | None, twin: Fitted | None = None, *, lost: bool) -> None:
        """Keep a model that was rejected, for an operator may want to look at it, and the live one."""
        live = self.outcome.live_before
        if model is not None:
            version, _, _ = self._save(model, gate, holdout_model=twin)
            self._note(version=version, counts=model.counts)
            self._prune(live=live)
        which = f" model {self.outcome.version}" if model is not None else ""
        log.warning(
            "model_rejected",
            "rejected{which}; {model} stays live: {reasons}",
            which=which,
            model=live,
            reasons="; ".join(gate.reasons),
        )
        self._keep_live(live, lost=lost)

    def _keep_live(self, version: str, *, lost: bool = False) -> None:
        """Let the live model go on, for this round makes no new one.

        If Redis has lost the pointer to it, it is written again. Lists that an earlier round, or a rollback, has left
        are written, and all of them if Redis has ``lost`` some.
        """
        seen, pointer = self._store.pointer.value(), self._store.pointer.read_unless_damaged()
        last, _ = self._data_dir.rounds.last_of(version)
        if pointer is not None and last is not None and last.state == "succeeded" and not lost:
            return
        started_at = json_time(self._clock())
        log.warning(
            "lists_of_other_models",
            "some lists are not of model {model}: writing them was interrupted, or Redis lost them",
            model=version,
        )
        uri, on_disk = self._data_dir.models.address(version)
        manifest_sha256 = pointer.manifest_sha256 if pointer is not None and pointer.version == version else on_disk
        model = self._data_dir.models.load(version, manifest_sha256=manifest_sha256)
        if pointer is None:
            pointer = self._move_pointer(version, uri, manifest_sha256, seen=seen)
        refresh_all_lists(
            self._settings,
            self._store,
            self._data_dir,
            LoadedModel(pointer, model),
            self._data_dir.models.popularity(version, manifest_sha256=manifest_sha256),
            users=None,
            progress=self._progress,
            clock=self._clock,
        )
        record = RoundRecord(
            kind="refresh",
            asked_by="schedule",
            started_at=started_at,
            finished_at=json_time(self._clock()),
            state="succeeded",
            published=True,
            version=version,
        )
        self._data_dir.rounds.add(record, at=self._clock())

    def _prune(self, *, live: str) -> None:
        keep = self._settings.trainer.keep_versions
        for version in self._data_dir.models.prune(keep=keep, live=live):
            log.info("model_removed", "model {model} removed: {kept} newer ones are kept", model=version, kept=keep)

    def _note(self, **facts: Any) -> None:
        self.outcome = replace(self.outcome, **facts)
