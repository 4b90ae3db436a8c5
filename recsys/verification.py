"""Checking Redis against the archive and the model by an independent path.

Histories are replayed one event at a time from the archive and from what Kafka holds beyond it. Lists are solved
densely in float64 from the artifact's factors and checked against all scores. None of the code that maintains
histories and lists is used here.
"""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from confluent_kafka import TopicPartition
from numpy.typing import NDArray

from recsys.archive import Archive, Segment
from recsys.errors import MalformedEvent, NoModel
from recsys.events import UNITS_PER_QUANTITY, decode
from recsys.history import HistoryReplay
from recsys.kafka import describe_topic, end_offsets, open_consumer, open_reader, read_range, record_timestamp_ms
from recsys.model import FactorModel
from recsys.model_store import ModelStore, load_model
from recsys.progress import Advance, ProgressReporter
from recsys.settings import Settings
from recsys.storage import Storage
from recsys.store import ModelPointer, Store

_TOLERANCE = 1e-4
_USERS_PER_READ = 256
_ATTEMPTS = 4
_Entries = dict[str, tuple[int, int]]


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
    """Records that the consumers have yet to read."""


def verify(
    settings: Settings,
    store: Store,
    archive: Archive,
    progress: ProgressReporter,
    *,
    sample: int | None,
    with_stream: bool = True,
) -> Verification:
    """Compare histories and lists of all users, or of a random sample, with what they should be.

    Users whose state differs are looked at again, up to three times a second apart, with what the stream brought
    meanwhile: events on their way are no difference.

    Raises
    ------
    NoModel
        When no model is live, or it is not in the archive's storage.
    """
    truth = _Truth.of_live_model(store, settings.ranking.n)
    storage = Storage(settings.data_dir)
    if truth.pointer.version not in ModelStore(storage).versions():
        raise NoModel(
            f"the live model {truth.pointer.version} is not in {storage.url}: is RECSYS_DATA_DIR that of the trainer?"
        )
    segments = archive.segments()  # once: what the trainer archives meanwhile is read from the stream
    users = _choose_users(store, archive, segments, sample)
    replays: dict[str, HistoryReplay] = defaultdict(lambda: HistoryReplay(settings.history.max_items))
    with progress.stage("replay the archive", len(segments)) as advance:
        _replay_archive(archive, segments, replays, None if sample is None else frozenset(users), advance)
    stream = _Stream(settings, archive.positions(segments)) if with_stream else None
    lists = 0
    pending: Collection[str] = users
    differences: list[Difference] = []
    for attempt in range(_ATTEMPTS):
        if stream is not None:
            stream.replay_new(replays)
            if sample is None and attempt == 0:
                pending = sorted(filter(store.users.can_hold, set(users) | set(replays)))
        if attempt > 0:
            truth = truth.renewed(store)
        with progress.stage("compare" if attempt == 0 else "look again", len(pending)) as advance:
            differences, checked = _compare(store, truth, replays, pending, advance)
        if attempt == 0:
            users, lists = list(pending), checked
        if not differences:
            break
        pending = sorted({difference.user_id for difference in differences})
        if attempt < _ATTEMPTS - 1:
            time.sleep(1.0)
    lag = stream.lag() if stream is not None and differences else 0
    if stream is not None:
        stream.close()
    return Verification(len(users), lists, truth.pointer.version, differences, lag)


@dataclass(frozen=True)
class _Truth:
    """What lists must follow from, in float64."""

    pointer: ModelPointer
    model: FactorModel
    factors: NDArray[np.float64]
    gram: NDArray[np.float64]
    """YᵀY + λI."""
    hidden: frozenset[str]
    n: int

    @classmethod
    def of_live_model(cls, store: Store, n: int) -> _Truth:
        pointer = store.shared.model_pointer()
        if pointer is None:
            raise NoModel(
                "Redis names no live model: python -m trainer --once makes a first one; "
                "if Redis was emptied, recsys rebuild brings it back"
            )
        model = load_model(pointer.uri, manifest_sha256=pointer.manifest_sha256)
        factors = model.item_factors.astype(np.float64)
        gram = factors.T @ factors + model.regularization * np.eye(factors.shape[1])
        return cls(pointer, model, factors, gram, store.shared.hidden(), n)

    def renewed(self, store: Store) -> _Truth:
        """Return this, or what has taken its place if another model has been published."""
        if store.shared.model_pointer() == self.pointer:
            return self
        return _Truth.of_live_model(store, self.n)

    def scores(self, owned: dict[int, int]) -> NDArray[np.float64]:
        """Solve one user densely; −∞ for items that may not be listed."""
        rows = np.fromiter(owned, np.int64)
        strengths = np.log2(1.0 + np.fromiter(owned.values(), np.float64) / UNITS_PER_QUANTITY)
        extra = self.model.alpha * strengths  # c − 1
        own = self.factors[rows]
        user_factors = np.linalg.solve(self.gram + own.T @ (own * extra[:, None]), own.T @ (1.0 + extra))
        scores: NDArray[np.float64] = self.factors @ user_factors
        rows_of = self.model.items.rows
        scores[rows] = -np.inf
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


def _replay_archive(
    archive: Archive,
    segments: list[Segment],
    replays: dict[str, HistoryReplay],
    only: frozenset[str] | None,
    advance: Advance,
) -> None:
    columns = ["user_id", "type", "item_id", "quantity", "timestamp", "event_id"]
    for table in archive.tables(columns, segments):
        values = [table[name].to_pylist() for name in columns if name != "timestamp"]
        seconds = table["timestamp"].cast("int64").to_numpy() // 1000
        for user, type_, item, quantity, event_id, second in zip(*values, seconds.tolist(), strict=True):
            if only is None or user in only:
                units = max(1, round(quantity * UNITS_PER_QUANTITY))
                replays[user].apply_fields(type_, item, -units if type_ == "return" else units, second, event_id)
        advance(1)


class _Stream:
    """What Kafka holds beyond the archive, read bit by bit."""

    def __init__(self, settings: Settings, positions: dict[str, dict[int, int]]) -> None:
        self._settings = settings.kafka
        self._reader = open_reader(settings.kafka, "verify")
        self._topic = describe_topic(settings.kafka, settings.kafka.topic)
        self._next = dict(positions.get(self._topic.id, {}))

    def replay_new(self, replays: dict[str, HistoryReplay]) -> None:
        """Apply what came since the last call."""
        watermarks = end_offsets(self._reader, self._settings, self._topic)
        ranges = {
            partition: (max(self._next.get(partition, low), low), end) for partition, (low, end) in watermarks.items()
        }
        for message in read_range(self._reader, self._settings, self._topic, ranges):
            try:
                event = decode(message.value(), record_timestamp_ms=record_timestamp_ms(message))
            except MalformedEvent:
                continue
            replays[event.user_id].apply([event])
        self._next = {partition: end for partition, (_, end) in ranges.items()}

    def lag(self) -> int:
        """Return how many records the consumer group has yet to commit."""
        consumer = open_consumer(self._settings, self._settings.group_id)
        try:
            places = [TopicPartition(self._topic.name, partition) for partition in self._topic.partitions]
            committed = consumer.committed(places, timeout=self._settings.timeout_s)
            ends = end_offsets(consumer, self._settings, self._topic)
            return sum(ends[place.partition][1] - max(place.offset, ends[place.partition][0]) for place in committed)
        finally:
            consumer.close()

    def close(self) -> None:
        """Leave Kafka."""
        self._reader.close()


def _compare(
    store: Store, truth: _Truth, replays: Mapping[str, HistoryReplay], users: Collection[str], advance: Advance
) -> tuple[list[Difference], int]:
    differences: list[Difference] = []
    lists = 0
    for batch in _batches(sorted(users), _USERS_PER_READ):
        states = store.users.read(batch)
        published = store.users.lists(batch)
        for user, found_list in zip(batch, published, strict=True):
            expected = replays[user].entries if user in replays else {}
            state = states[user]
            found = {
                item: (round(quantity * UNITS_PER_QUANTITY), int(last))
                for item, quantity, last in zip(
                    state.history.item_ids, state.history.quantities, state.history.last_event_s, strict=True
                )
            }
            differences.extend(_history_differences(user, expected, found))
            differences.extend(_list_differences(user, expected, found_list, state.revision, truth))
            lists += found_list is not None
        advance(len(batch))
    return differences, lists


def _batches(users: list[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(users), size):
        yield users[start : start + size]


def _history_differences(user: str, expected: _Entries, found: _Entries) -> Iterator[Difference]:
    for item in sorted(expected.keys() | found.keys()):
        if expected.get(item) != found.get(item):
            yield Difference(user, f"history of {item}", _entry(expected.get(item)), _entry(found.get(item)))


def _entry(entry: tuple[int, int] | None) -> str:
    return "none" if entry is None else f"{entry[0] / UNITS_PER_QUANTITY:g}|{entry[1]}"


def _list_differences(
    user: str, entries: _Entries, found: dict[str, Any] | None, revision: int, truth: _Truth
) -> Iterator[Difference]:
    rows_of = truth.model.items.rows
    owned = {rows_of[item]: units for item, (units, _) in entries.items() if units > 0 and item in rows_of}
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
    yield from _ranking_differences(user, listed, scores, truth.model, truth.n)


def _ranking_differences(
    user: str, listed: list[tuple[str, float]], scores: NDArray[np.float64], model: FactorModel, n: int
) -> Iterator[Difference]:
    wanted = min(n, int(np.isfinite(scores).sum()))
    if len(listed) != wanted or len({item for item, _ in listed}) != wanted:
        yield Difference(user, "length of the list", str(wanted), f"{len(listed)}, some twice or fewer")
        return
    previous = np.inf
    for place, (item, score) in enumerate(listed, start=1):
        row = model.items.rows.get(item)
        true_score = -np.inf if row is None else float(scores[row])
        if not abs(true_score - score) <= _TOLERANCE:
            allowed = f"{true_score:.6f}" if np.isfinite(true_score) else "not in the list: owned, hidden or unknown"
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
