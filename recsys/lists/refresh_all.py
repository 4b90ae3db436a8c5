"""Every list anew: after a new model is published, or Redis has been rebuilt."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

import numpy as np
from joblib.externals.loky import get_reusable_executor
from joblib.externals.loky.process_executor import TerminatedWorkerError
from numpy.typing import NDArray

from recsys.errors import FullRefreshFailed
from recsys.lists.item_lists import write_popular_lists, write_similar_lists
from recsys.lists.live_model import LoadedModel
from recsys.lists.refresh import compute_lists, publish_lists, stale, without_aside
from recsys.logger import logger
from recsys.redis import ModelPointer, PublishOutcome, Store, open_store
from recsys.runtime import fail_points, threads
from recsys.runtime.clock import now
from recsys.runtime.progress import Advance, ProgressReporter
from recsys.settings import Settings
from recsys.storage.data_dir import DataDir, open_data_dir

log = logger(__name__)
_FEW_USERS = 20_000
_PARTS_UNDER_WAY = 3  # for each other process, so that it has work while this one does its own


@dataclass(frozen=True, slots=True)
class Written:
    """How many lists were written: of users, and of similar items."""

    lists: int
    similar: int


def refresh_all_lists(
    settings: Settings,
    store: Store,
    data_dir: DataDir,
    live: LoadedModel,
    popularity: NDArray[np.float64],
    *,
    users: int | None,
    progress: ProgressReporter,
    clock: Callable[[], datetime],
    also_current: bool = False,
) -> Written:
    """Write the lists of all users, of popular items, overall and by category, and of similar ones.

    Parameters
    ----------
    also_current : bool
        Write those of users as well that seem to be there already.
    popularity : float64, (n_items,)
        Of the model's items, see `recsys.recommend.item_lists.popularity`.
    users : int or None
        About how many there are, for the progress; None if nobody knows.
    """
    lists = 0
    while True:
        epoch = store.connection.epoch
        with progress.stage("refresh every list", users) as advance:
            lists += refresh_all_users(settings, store, live, advance, also_current=also_current)
        similar = _write_item_lists(settings, store, data_dir, live, popularity, progress, clock)
        with progress.stage("refresh users with newer events") as advance:
            lists += refresh_all_users(settings, store, live, advance)
        if store.connection.epoch == epoch:
            return Written(lists, similar)
        # One that has taken over may lack lists that the one before had acknowledged.
        log.warning("redis_replaced", "another Redis server answers now; every list is checked again")


def refresh_all_users(
    settings: Settings, store: Store, live: LoadedModel, advance: Advance, *, also_current: bool = False
) -> int:
    """Recompute the list of every user whose list is not from this model; return how many were written.

    Safe beside running consumers: a list is written only if its history has not moved meanwhile, else it is read
    and computed again. Users who come after the scan has passed are the consumers' (see consumer/loop.py); what a
    consumer that died meanwhile left behind, a second one finds.

    Many users are spread over processes, which share the files of a local model in memory; this one does its part.
    """
    processes = settings.trainer.refresh_processes or threads.available()
    parts = _parts(store, settings.trainer.refresh_batch)
    written = 0

    def refresh_here(users: Sequence[str]) -> None:
        nonlocal written
        written += refresh_users(settings, store, live, users, also_current=also_current)
        fail_points.reach("in-full-refresh")
        advance(len(users))

    def note(part: _Part) -> None:
        nonlocal written
        written += part.written
        store.connection.epoch += part.servers_changed
        fail_points.reach("in-full-refresh")
        advance(part.users)

    # Starting processes takes longer than to write the lists of a few users here.
    for users in parts if processes == 1 else islice(parts, _FEW_USERS // settings.trainer.refresh_batch):
        refresh_here(users)
    with _others(processes - 1) as others, threads.limit(1):
        under_way: set[Future[_Part]] = set()
        while True:
            for users in islice(parts, _PARTS_UNDER_WAY * (processes - 1) - len(under_way)):
                under_way.add(others.submit(_refresh_elsewhere, settings, live.pointer, users, also_current))
            if (own := next(parts, None)) is not None:
                refresh_here(own)
            elif not under_way:
                return written
            done, under_way = wait(under_way, None if own is None else 0, return_when=FIRST_COMPLETED)
            for future in done:
                note(future.result())


def refresh_users(
    settings: Settings, store: Store, live: LoadedModel, users: Sequence[str], *, also_current: bool = False
) -> int:
    """Recompute those lists of users that are not from this model and their history; return how many were written.

    ``also_current`` writes the others as well, whatever Redis says of the lists that are there. Users who turn out to
    be damaged are set aside.
    """
    written = 0
    hidden = store.catalogue.hidden()
    while users:
        states = store.users.read(users)
        store.users.set_aside_damaged(states)
        behind = without_aside(states) if also_current else stale(states, live)
        if also_current:
            store.users.forget_what_is_listed(list(behind))
        computed = compute_lists(behind, live, settings.ranking, hidden=hidden)
        outcomes = publish_lists(store.users, computed, at=now())
        written += list(outcomes.values()).count(PublishOutcome.PUBLISHED)
        # MODEL_OLDER and SUPERSEDED: a still newer model is refreshing them already.
        users = [user for user, outcome in outcomes.items() if outcome is PublishOutcome.REVISION_MOVED]
        also_current = False
    return written


@dataclass(frozen=True, slots=True)
class _Part:
    """What another process did: users looked at, lists written, how often another server answered meanwhile."""

    users: int
    written: int
    servers_changed: int


@contextmanager
def _others(processes: int) -> Iterator[Executor]:
    """Yield what runs in other processes, which are started when they are first needed and ended with the block."""
    executor = get_reusable_executor(max_workers=max(1, processes))
    try:
        yield executor
    except TerminatedWorkerError as error:
        raise FullRefreshFailed(
            f"a process of the full refresh was killed, perhaps because memory ran out: {error}"
        ) from error
    finally:
        executor.shutdown(wait=True, kill_workers=True)


_until_the_end = ExitStack()
_opened: tuple[Settings, Store, LoadedModel] | None = None
"""In a process of the full refresh: what it works with."""


def _refresh_elsewhere(settings: Settings, pointer: ModelPointer, users: Sequence[str], also_current: bool) -> _Part:
    store, live = _open(settings, pointer)
    epoch = store.connection.epoch
    written = refresh_users(settings, store, live, users, also_current=also_current)
    return _Part(len(users), written, store.connection.epoch - epoch)


def _open(settings: Settings, pointer: ModelPointer) -> tuple[Store, LoadedModel]:
    global _opened
    if _opened is None or (_opened[0], _opened[2].pointer) != (settings, pointer):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt ends the process that waits for this one
        threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
        _until_the_end.enter_context(threads.limit(1))
        store = _until_the_end.enter_context(open_store(settings))
        store.connection.check()
        models = open_data_dir(settings).models
        live = LoadedModel(pointer, models.load(pointer.version, manifest_sha256=pointer.manifest_sha256))
        _opened = settings, store, live
    return _opened[1], _opened[2]


def _parts(store: Store, size: int) -> Iterator[list[str]]:
    for found in store.users.user_ids():
        for start in range(0, len(found), size):
            yield found[start : start + size]


def _end_with(parent: int) -> None:
    """End this process when its parent has been killed."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


def _write_item_lists(
    settings: Settings,
    store: Store,
    data_dir: DataDir,
    live: LoadedModel,
    popularity: NDArray[np.float64],
    progress: ProgressReporter,
    clock: Callable[[], datetime],
) -> int:
    """Write the popular lists and every item's similar items; return the number of the latter."""
    hidden = store.catalogue.hidden()
    write_popular_lists(settings, store, data_dir, live, popularity, hidden=hidden, clock=clock)
    with progress.stage("similar items", len(live.model.items)) as advance:
        return write_similar_lists(settings, store, live, hidden=hidden, clock=clock, advance=advance)
