"""How cost grows: with users stored in Redis, the length of a history, items that want similar ones, pairs of a fit.

Run: .venv/bin/python -m benchmarks growth
"""

from __future__ import annotations

import gc
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from itertools import count
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix

from benchmarks.measuring import (
    BATCH,
    FACTORS,
    LISTED,
    OWNED,
    buyers,
    complete_journey,
    enlarged,
    fitted_model,
    in_turns,
    model_of,
)
from benchmarks.results import Measured
from recsys.data.event import Event
from recsys.data.history import History, read_histories
from recsys.data.interactions import Interactions
from recsys.data.vocabulary import Vocabulary
from recsys.lists.encoding import both_as_json, items_json
from recsys.model.confidence import confidence
from recsys.model.factor_model import FactorModel
from recsys.model.top_n import top_n
from recsys.recommend.item_lists import similar_items
from recsys.recommend.user_lists import RankedLists, refresh
from recsys.redis import ModelStamp, PlacedEvent, Store, UserState, open_store
from recsys.settings import Settings
from recsys.training import als
from tests.services import RedisServer

USERS = (10_000, 50_000, 200_000)
LENGTHS = (10, 30, 100, 300, 1_000)
ITEMS = (100_000, 300_000, 1_000_000)
FITS = ((1_000_000, 100_000), (3_000_000, 300_000), (10_000_000, 1_000_000))
"""Pairs and items."""
SIMILAR = 20
_BATCHES, _ITERATIONS, _FILLED_AT_ONCE = 2, 6, 512
_SOLD_AT = 1_795_342_500_000


@dataclass
class Crowd:
    """Users in a Redis of their own who each own so many items.

    Attributes
    ----------
    owned : csr_matrix, (n_users, n_items)
    """

    store: Store
    model: FactorModel
    owned: csr_matrix
    _numbers: Iterator[int] = field(default_factory=lambda: count(10**9))

    def id_of(self, user: int) -> str:
        """Return a user's id."""
        return f"user-{user:06d}"

    def items_of(self, user: int) -> list[str]:
        """Return what a user owns."""
        rows = self.owned.indices[self.owned.indptr[user] : self.owned.indptr[user + 1]].tolist()
        return [self.model.items.ids[row] for row in rows]

    def fill(self) -> None:
        """Import all histories."""
        for start in range(0, self.owned.shape[0], _FILLED_AT_ONCE):
            users = range(start, min(start + _FILLED_AT_ONCE, self.owned.shape[0]))
            self.store.users.apply_without_reading(
                {
                    self.id_of(user): [
                        PlacedEvent("import:0", place, _sold(item), complete=True)
                        for place, item in enumerate(self.items_of(user))
                    ]
                    for user in users
                }
            )

    def purchases(self, users: Sequence[int]) -> dict[str, list[PlacedEvent]]:
        """Have each of these users buy once more something that is owned: histories stay as long as they are."""
        found = {}
        for user in users:
            number = next(self._numbers)
            owned = self.items_of(user)
            item, event_id = owned[number % len(owned)], f"e{number}"
            event = Event(user_id=self.id_of(user), item_id=item, timestamp=_SOLD_AT, event_id=event_id)
            found[self.id_of(user)] = [PlacedEvent("bench:0", number, event)]
        return found

    def refreshed(self, states: Mapping[str, UserState]) -> RankedLists:
        """Return users' lists."""
        return refresh([state.history for state in states.values()], self.model, n=LISTED)

    def publish(self, states: Mapping[str, UserState], lists: RankedLists) -> None:
        """Write users' lists."""
        revisions = {user: state.revision for user, state in states.items()}
        stamp = ModelStamp(self.model.version, 1)
        with self.store.users.publishing(stamp, at=datetime.now(UTC)) as publishing:
            publishing.send(revisions, both_as_json(lists))
            publishing.outcomes()


@cache
def _sold(item_id: str) -> Event:
    """Return an import's event, one for all users: the store goes by the user it is filed under."""
    return Event(user_id="anyone", item_id=item_id, timestamp=_SOLD_AT)


@contextmanager
def open_crowd(model: FactorModel, owned: csr_matrix) -> Iterator[Crowd]:
    """Start a Redis and import the histories."""
    with ExitStack() as stack:
        server = RedisServer(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        stack.callback(server.kill)
        server.start()
        settings = Settings.model_validate({"redis": {"url": server.url}, "ranking": {"n": LISTED}})
        crowd = Crowd(stack.enter_context(open_store(settings)), model, owned)
        crowd.fill()
        yield crowd


# users ------------------------------------------------------------------------------------------------------------


def rates_by_users(model: FactorModel, owned: csr_matrix, sizes: Sequence[int], *, rounds: int) -> list[Measured]:
    """Return lists per second of batches of purchases by anyone, for each number of users stored."""
    rng = np.random.default_rng(5)
    with ExitStack() as stack:
        crowds = {size: stack.enter_context(open_crowd(model, owned[:size])) for size in sizes}
        rates: dict[int, list[float]] = {size: [] for size in sizes}
        for turn in range(rounds + 1):
            for size, crowd in crowds.items():
                batches = [crowd.purchases(rng.choice(size, BATCH, replace=False).tolist()) for _ in range(_BATCHES)]
                started = time.perf_counter()
                for batch in batches:
                    states = crowd.store.users.apply(batch)
                    crowd.publish(states, crowd.refreshed(states))
                if turn:
                    rates[size].append(BATCH * _BATCHES / (time.perf_counter() - started))
    return [
        Measured("growth", f"{size:,} users in Redis", f"batches of {BATCH}", statistics.median(found), "lists/s")
        for size, found in rates.items()
    ]


# histories --------------------------------------------------------------------------------------------------------


def steps(crowd: Crowd, *, rounds: int) -> dict[str, Callable[[], object]]:
    """Return the steps of a batch, each to be called alone, once a round and once before."""
    users = range(crowd.owned.shape[0])
    batches = iter([crowd.purchases(users) for _ in range(rounds + 1)])
    states = crowd.store.users.apply(crowd.purchases(users))
    lists = crowd.refreshed(states)
    histories: list[History] = [state.history for state in states.values()]
    model = crowd.model
    owned = read_histories(histories, model.items)
    confidences = owned.matrix(
        confidence(owned.quantities, owned.ages_days(0), alpha=model.alpha, half_life_days=0), len(model.items)
    )
    user_factors = model.solver.fold_in(confidences)
    excluded = np.split(owned.rows, owned.starts[1:-1])

    def apply() -> None:
        states.update(crowd.store.users.apply(next(batches)))

    return {
        "apply": apply,
        "refresh": lambda: refresh(histories, model, n=LISTED),
        "of it fold-in": lambda: model.solver.fold_in(confidences),
        "of it top-N": lambda: top_n(user_factors, model.index, excluded=excluded, n=LISTED),
        "publish": lambda: crowd.publish(states, lists),
    }


def costs_by_length(
    model: FactorModel, interactions: Interactions, lengths: Sequence[int], *, rounds: int
) -> list[Measured]:
    """Return µs per user of each step of a batch, for each number of owned items."""
    with ExitStack() as stack:
        candidates: dict[tuple[int, str], Callable[[], object]] = {}
        for owned in lengths:
            crowd = stack.enter_context(open_crowd(model, buyers(interactions, BATCH, owned=owned)))
            candidates |= {(owned, step): call for step, call in steps(crowd, rounds=rounds).items()}
        gc.collect()
        gc.freeze()  # as in the consumer: collections are few, and none looks at what lives long
        taken = in_turns(candidates, rounds=rounds)
        gc.unfreeze()
    return [
        Measured("growth", f"{owned:,} items owned, batch {BATCH}", step, seconds / BATCH * 1e6, "µs/user")
        for (owned, step), seconds in taken.items()
    ]


# similar items ----------------------------------------------------------------------------------------------------


def similar_costs(model: FactorModel, sizes: Sequence[int], *, rounds: int) -> list[Measured]:
    """Return the CPU µs per item of finding similar items, for each number of items."""
    spent: dict[int, list[float]] = {size: [] for size in sizes}
    drawn = {size: _enlarged(model, size) for size in sizes}
    batches = {size: similar_items(large, n=SIMILAR, batch=BATCH) for size, large in drawn.items()}
    for turn in range(rounds + 1):
        for size, found in batches.items():
            started = time.process_time()
            next(found)
            if turn:  # the first one builds an index
                spent[size].append((time.process_time() - started) / BATCH * 1e6)
    return [
        Measured("growth", f"{size:,} items", "similar items", statistics.median(taken), "CPU µs/item")
        for size, taken in spent.items()
    ]


def _enlarged(model: FactorModel, n_items: int) -> FactorModel:
    return model_of(enlarged(model.item_factors, n_items), Vocabulary([f"{row:08d}" for row in range(n_items)]))


def similar_bytes(model: FactorModel, owned: csr_matrix) -> Measured:
    """Return what a list of similar items takes in Redis."""
    with open_crowd(model, owned) as crowd:
        item_ids, lists = next(similar_items(model, n=SIMILAR, batch=BATCH))
        crowd.store.item_lists.write_similar(
            item_ids, items_json(lists), ModelStamp(model.version, 1), at=datetime.now(UTC), ttl_s=3600
        )
        client = crowd.store.connection.client
        sizes = [client.memory_usage(crowd.store.item_lists._keys.similar(item)) for item in item_ids]
    return Measured("growth", "Redis", f"an item's list of {SIMILAR} similar ones", statistics.mean(sizes), "bytes")


# fits -------------------------------------------------------------------------------------------------------------


def fit_cost(pairs: int, n_items: int) -> Measured:
    """Return the CPU µs per pair of one iteration: users who own `OWNED` items each, drawn by a power law."""
    rng = np.random.default_rng(6)
    n_users = pairs // OWNED
    items = (n_items * rng.random(n_users * OWNED) ** 3).astype(np.int32)
    starts = np.arange(n_users + 1, dtype=np.int32) * OWNED
    confidences = csr_matrix((np.full(len(items), 2, np.float32), items, starts), shape=(n_users, n_items))
    confidences.sum_duplicates()
    at: list[float] = []
    als.fit(
        confidences,
        factors=FACTORS,
        regularization=20.0,
        iterations=_ITERATIONS,
        seed=0,
        on_iteration=lambda: at.append(time.process_time()),
    )
    spent = statistics.median(np.diff(at)) / confidences.nnz * 1e6
    case = f"{pairs:,} pairs, {n_items:,} items, {FACTORS} factors"
    return Measured("growth", case, "an iteration of the fit", spent, "CPU µs/pair")


def measure(*, quick: bool) -> list[Measured]:
    """Measure all four."""
    rounds = 5 if quick else 7
    sizes, lengths, items = ((2_000, 10_000), (10, 300), ITEMS[:2]) if quick else (USERS, LENGTHS, ITEMS)
    interactions = complete_journey()
    model = fitted_model(interactions)
    found = rates_by_users(model, buyers(interactions, max(sizes)), sizes, rounds=4 * rounds)
    found += costs_by_length(model, interactions, lengths, rounds=rounds)
    found += similar_costs(model, items, rounds=rounds)
    found.append(similar_bytes(model, buyers(interactions, BATCH)))
    return found + [fit_cost(*size) for size in (FITS[:1] if quick else FITS)]
