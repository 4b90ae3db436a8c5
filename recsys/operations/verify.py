"""Checking Redis against the archive and the model by an independent path.

Histories are replayed one event at a time from the archive and from what Kafka holds beyond it, as far as Redis says
that they are applied: a consumer that is merely behind makes no difference. Lists are solved
densely in float64 from the artifact's factors and checked against all scores. None of the code that maintains
histories and lists is used here.
"""

from __future__ import annotations

import math
import random
import time
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.data.event import UNITS_PER_QUANTITY
from recsys.data.history import Entry, HistoryReplay
from recsys.errors import NoModel
from recsys.model.boosts import HABIT
from recsys.model.factor_model import FactorModel
from recsys.operations.histories import ensure_histories
from recsys.operations.losses import archived_compacted
from recsys.operations.replay import replay_archive
from recsys.operations.stream_replay import AppliedStream, Beyond
from recsys.redis import ModelPointer, Store
from recsys.runtime.progress import Advance, ProgressReporter
from recsys.settings import RankingSettings, Settings
from recsys.storage.archive import Archive
from recsys.storage.data_dir import DataDir
from recsys.storage.models import ModelStore
from recsys.storage.segments import Segment

_TOLERANCE = 1e-4
_USERS_PER_READ = 256
_ATTEMPTS = 4
_Entries = dict[str, Entry]


@dataclass(frozen=True, slots=True)
class Difference:
    """Something in Redis that is not what it should be."""

    user_id: str
    what: str
    expected: str
    found: str


@dataclass(frozen=True, slots=True)
class Verification:
    """What was checked and what was found."""

    users: int
    lists: int
    model: str
    differences: list[Difference]
    lag: int
    """Records that were in the topic at the beginning and that the consumers have yet to apply."""
    compacted: list[str]
    """What was archived of a compacted topic, and may lack purchases."""


def verify(
    settings: Settings,
    store: Store,
    data_dir: DataDir,
    progress: ProgressReporter,
    *,
    sample: int | None,
    with_stream: bool = True,
) -> Verification:
    """Compare histories and lists of all users, or of a random sample, with what they should be.

    Compared is what is applied. While users differ, or consumers are behind, it looks again, up to three times a second
    apart, with what was applied meanwhile: events on their way are no difference.

    Raises
    ------
    NoModel
        When no model is live, or it is not in the archive's storage.
    HistoriesMissing
        When Redis was emptied, wholly or in part.
    """
    if with_stream:
        ensure_histories(settings, store, data_dir)  # first: without them there is no model either
    truth = Truth.of_live_model(store, data_dir.models, settings.ranking)
    archive = data_dir.archive
    if truth.pointer.version not in data_dir.models.versions():
        raise NoModel(
            f"the live model {truth.pointer.version} is not in {data_dir.url}: "
            f"is RECSYS_DATA_DIR the same as for the trainer?"
        )
    segments = archive.segments()  # once: what the trainer archives meanwhile is read from the stream
    users = _choose_users(store, archive, segments, sample)
    replays: dict[str, HistoryReplay] = defaultdict(lambda: HistoryReplay(settings.history.max_items))
    stream = AppliedStream(settings, store, archive.positions(segments)) if with_stream else None
    limits = store.applied_offsets.everything() if stream is None else stream.limits()
    with progress.stage("replay the archive", len(segments)) as advance:
        chosen = frozenset(users)
        replay_archive(
            archive, segments, replays, lambda user: sample is None or user in chosen, advance, limits=limits
        )
    beyond, lists = Beyond(), 0
    pending: Collection[str] = users
    differences: list[Difference] = []
    for attempt in range(_ATTEMPTS):
        if stream is not None:
            stream.replay_new(replays)
            if sample is None and attempt == 0:
                pending = sorted(filter(store.users.can_hold, set(users) | set(replays)))
        if attempt > 0:
            truth = truth.renewed(store, data_dir.models)
        with progress.stage("compare" if attempt == 0 else "compare again", len(pending)) as advance:
            found = _compare(store, truth, replays, pending, advance)
        if stream is not None:
            beyond = stream.beyond()  # after Redis was read: what it held is there by now
        differences = list(found.besides(beyond, replays, settings.history.max_items))
        if attempt == 0:
            users, lists = list(pending), found.lists
        if not differences and not beyond.records:
            break
        pending = sorted({difference.user_id for difference in differences})
        if attempt < _ATTEMPTS - 1:
            time.sleep(1.0)
    if stream is not None:
        stream.close()
    compacted = list(archived_compacted(archive))
    return Verification(len(users), lists, truth.pointer.version, differences, beyond.records, compacted)


@dataclass(frozen=True)
class Truth:
    """What lists must follow from, in float64."""

    pointer: ModelPointer
    model: FactorModel
    factors: NDArray[np.float64]
    gram: NDArray[np.float64]
    """YᵀY + λI."""
    hidden: frozenset[str]
    rules: RankingSettings

    @classmethod
    def of_live_model(cls, store: Store, models: ModelStore, rules: RankingSettings) -> Truth:
        """Read the live model and the hidden items.

        Raises
        ------
        NoModel
            When none is live.
        """
        pointer = store.pointer.read()
        if pointer is None:
            raise NoModel(
                "Redis names no live model: make the first one with python -m trainer --once, "
                "or restore an emptied Redis with recsys rebuild"
            )
        model = models.load(pointer.version, manifest_sha256=pointer.manifest_sha256)
        factors = model.item_factors.astype(np.float64)
        gram = factors.T @ factors + model.regularization * np.eye(factors.shape[1])
        return cls(pointer, model, factors, gram, store.catalogue.hidden(), rules)

    def renewed(self, store: Store, models: ModelStore) -> Truth:
        """Return this, or what has taken its place if another model has been published."""
        if store.pointer.read() == self.pointer:
            return self
        return Truth.of_live_model(store, models, self.rules)

    def strength(self, entry: Entry) -> float:
        """Return s_ui of one owned item."""
        strength = math.log2(1.0 + entry.units / UNITS_PER_QUANTITY)
        if self.model.half_life_days == 0:
            return strength
        age_days = max(0, self.model.reference_s - entry.newest_s) / 86_400
        return strength * math.pow(0.5, age_days / self.model.half_life_days)

    def habit(self, entry: Entry, weights: Mapping[str, float]) -> float:
        """Return the part of g_ui that follows from a user's purchases of an item alone."""
        age = max(0, self.model.reference_s - entry.newest_s) / 86_400
        again = entry.purchases > 1
        interval = (entry.newest_s - entry.first_s) / 86_400 / (entry.purchases - 1) if again else 0.0

        def frequency(half_life: float) -> float:
            if not again:
                return math.log(1 + 0.5 ** (age / half_life))
            return math.log(1 + sum(0.5 ** ((age + k * interval) / half_life) for k in range(max(1, entry.purchases))))

        features = {
            "owned": 1.0,
            "frequency_30d": frequency(30),
            "frequency_120d": frequency(120),
            "purchases": math.log(1 + entry.purchases),
            "recency": math.log(1 + age),
            "again": float(again),
            "interval": math.log(1 + interval) if again else 0.0,
            "lateness": abs(math.log((age + 1) / (interval + 1))) if again else 0.0,
        }
        return sum(weight * features[name] for name, weight in weights.items())

    def again_scores(self, entries: _Entries) -> NDArray[np.float64]:
        """Return what habits say of the owned items; −∞ for all that may not be listed."""
        boosts, rows_of = self.model.boosts, self.model.items.rows
        weights = {"frequency_120d": 1.0, "lateness": -0.2}
        if boosts is not None and boosts.habit.any():
            weights = dict(zip(HABIT, boosts.habit.tolist(), strict=True))
        scores = np.full(len(rows_of), -np.inf)
        for item, entry in entries.items():
            if entry.units > 0 and item in rows_of and item not in self.hidden:
                scores[rows_of[item]] = self.habit(entry, weights)
        return scores

    def scores(self, owned: dict[int, Entry]) -> NDArray[np.float64]:
        """Solve one user densely; −∞ for items that may not be listed."""
        rows = np.fromiter(owned, np.int64)
        strengths = np.array([self.strength(entry) for entry in owned.values()])
        extra = self.model.alpha * strengths  # c − 1
        own = self.factors[rows]
        user_factors = np.linalg.solve(self.gram + own.T @ (own * extra[:, None]), own.T @ (1.0 + extra))
        affinities: NDArray[np.float64] = self.factors @ user_factors
        boosts = self.model.boosts
        scores = affinities.copy() if boosts is None else affinities + boosts.item_bias
        rows_of = self.model.items.rows
        if not self.rules.include_purchased:
            scores[rows] = -np.inf
        elif boosts is not None:
            weights = dict(zip(HABIT, boosts.habit.tolist(), strict=True))
            for row, entry in owned.items():
                scores[row] += boosts.affinity * affinities[row] + boosts.repeat_bias[row] + self.habit(entry, weights)
        scores[[rows_of[item] for item in self.hidden if item in rows_of]] = -np.inf
        return scores


def _choose_users(store: Store, archive: Archive, segments: list[Segment], sample: int | None) -> list[str]:
    known = {user for batch in store.users.user_ids() for user in batch}
    for table in archive.tables(["user_id"], segments):
        known.update(table["user_id"].unique().to_pylist())
    users = sorted(filter(store.users.can_hold, known))  # the others are in the archive from other times only
    if sample is None or sample >= len(users):
        return users
    return sorted(random.Random(time.time_ns()).sample(users, sample))  # noqa: S311 - not for secrets


@dataclass(slots=True)
class _Found:
    """What differs, by user, and the histories that do."""

    differences: dict[str, list[Difference]]
    histories: dict[str, _Entries]
    lists: int

    def besides(self, beyond: Beyond, replays: Mapping[str, HistoryReplay], max_items: int) -> Iterator[Difference]:
        """Yield what differs, but for users in the middle of a batch: their lists are yet to be written."""
        for user, differences in self.differences.items():
            history = self.histories.get(user)
            if history is None or not beyond.explains(user, replays.get(user), history, max_items):
                yield from differences


def _compare(
    store: Store, truth: Truth, replays: Mapping[str, HistoryReplay], users: Collection[str], advance: Advance
) -> _Found:
    found = _Found({}, {}, 0)
    for batch in _batches(sorted(users), _USERS_PER_READ):
        states = store.users.read(batch)
        published = zip(store.users.lists(batch), store.users.again_lists(batch), strict=True)
        for user, (found_list, found_again) in zip(batch, published, strict=True):
            expected = replays[user].entries if user in replays else {}
            state = states[user]
            differences = [
                *_history_differences(user, expected, state.history.entries),
                *_list_differences(user, expected, found_list, state.revision, truth),
                *_again_differences(user, expected, found_again, state.revision, truth),
            ]
            if differences:
                found.differences[user] = differences
            if expected != state.history.entries:
                found.histories[user] = dict(state.history.entries)
            found.lists += found_list is not None
        advance(len(batch))
    return found


def _batches(users: list[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(users), size):
        yield users[start : start + size]


def _history_differences(user: str, expected: _Entries, found: _Entries) -> Iterator[Difference]:
    for item in sorted(expected.keys() | found.keys()):
        if expected.get(item) != found.get(item):
            values = (str(entries.get(item, "none")) for entries in (expected, found))
            yield Difference(user, f"history of {item}", *values)


def _list_differences(
    user: str, entries: _Entries, found: dict[str, Any] | None, revision: int, truth: Truth
) -> Iterator[Difference]:
    rows_of = truth.model.items.rows
    owned = {rows_of[item]: entry for item, entry in entries.items() if entry.units > 0 and item in rows_of}
    scores = truth.scores(owned) if owned else np.empty(0)
    if not np.isfinite(scores).any():
        if found is not None:
            reason = "none: no item known to the model is owned" if not owned else "none: no item is left to recommend"
            yield Difference(user, "list", reason, f"{len(found['items'])} items")
        return
    if found is None:
        yield Difference(user, "list", "a list", "none")
        return
    if found["model"] != truth.pointer.version:
        yield Difference(user, "model of the list", truth.pointer.version, found["model"])
        return
    if found["revision"] != revision:
        yield Difference(user, "revision of the list", str(revision), str(found["revision"]))
        return
    listed = [(entry["item_id"], entry["score"]) for entry in found["items"]]
    yield from ranking_differences(user, listed, scores, truth.model, truth.rules.n)


def _again_differences(
    user: str, entries: _Entries, found: dict[str, Any] | None, revision: int, truth: Truth
) -> Iterator[Difference]:
    what = "what to buy again"
    scores = truth.again_scores(entries)
    wanted = bool(truth.rules.again_n) and bool(np.isfinite(scores).any())
    if wanted != (found is not None):
        yield Difference(user, what, "a list" if wanted else "none", "none" if found is None else "a list")
        return
    if found is None:
        return
    if (found["model"], found["revision"]) != (truth.pointer.version, revision):
        expected = f"of {truth.pointer.version}, revision {revision}"
        yield Difference(user, what, expected, f"of {found['model']}, revision {found['revision']}")
        return
    listed = [(entry["item_id"], entry["score"]) for entry in found["items"]]
    for difference in ranking_differences(user, listed, scores, truth.model, truth.rules.again_n):
        yield replace(difference, what=f"{what}: {difference.what}")


def ranking_differences(
    user: str, listed: list[tuple[str, float]], scores: NDArray[np.float64], model: FactorModel, n: int
) -> Iterator[Difference]:
    """Yield what is wrong with a list of items and scores, given the true scores of all items, −∞ = never listed."""
    wanted = min(n, int(np.isfinite(scores).sum()))
    if len(listed) != wanted or len({item for item, _ in listed}) != wanted:
        yield Difference(user, "length of the list", str(wanted), f"{len(listed)}, some twice or fewer")
        return
    previous = np.inf
    for place, (item, score) in enumerate(listed, start=1):
        row = model.items.rows.get(item)
        true_score = -np.inf if row is None else float(scores[row])
        if not abs(true_score - score) <= _TOLERANCE:
            allowed = f"{true_score:.6f}" if np.isfinite(true_score) else "not in the list: hidden, unknown, or owned"
            yield Difference(user, f"score of {item} in place {place}", allowed, f"{score:.6f}")
        elif true_score > previous + _TOLERANCE:
            yield Difference(user, f"order at place {place}", f"{item} further up", f"{item} here")
        previous = min(previous, true_score)
    rows = [model.items.rows[item] for item, _ in listed if item in model.items.rows]
    others = scores.copy()
    others[rows] = -np.inf
    best = int(np.argmax(others))
    if listed and others[best] > previous + _TOLERANCE:
        yield Difference(user, "missing from the list", f"{model.items.ids[best]} ({others[best]:.6f})", "not there")
