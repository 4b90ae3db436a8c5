"""The live model, followed in the background and swapped by its user between two pieces of work."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from recsys.data.history import Entry, History
from recsys.errors import DamagedKey, InvalidModel, RedisError
from recsys.lists.encoding import items_json
from recsys.logger import logger
from recsys.model.factor_model import FactorModel
from recsys.recommend.user_lists import refresh
from recsys.redis import ModelPointer, ModelStamp, Store
from recsys.storage.models import ModelStore

log = logger(__name__)
_RETRY_REFUSED_S = 30.0  # a shared disk may show the files later than Redis shows the pointer


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model in memory and its place in the order of publications."""

    pointer: ModelPointer
    model: FactorModel

    @property
    def stamp(self) -> ModelStamp:
        """Its version and place, as lists carry them."""
        return self.pointer.stamp


def prepare(model: FactorModel) -> None:
    """Build all that is otherwise built, and compiled, for the first list."""
    tuple(items_json(refresh([History.of({model.items.ids[0]: Entry.of_event(1, 0)})], model, n=1, again_n=1)))
    model.forget_pages()
    _give_back_free_memory()


def _give_back_free_memory() -> None:
    """Have the allocator return what it has kept since it was used for loading; glibc alone would keep it for good."""
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)


class LiveModel:
    """Follows the model pointer and the hidden items.

    A thread looks every ``poll_s``, loads a newly published model beside the live one, and offers it;
    `take_newest` is where the user of the model swaps. A model that cannot be loaded is refused with a log line,
    once, and the live one stays.

    Parameters
    ----------
    store : Store
    models : ModelStore
        Where they are: Redis says which one is live, never where it is.
    poll_s : float
        Seconds between looks.
    on_refused : callable
        Called once for each model that is refused.
    """

    def __init__(
        self, store: Store, models: ModelStore, *, poll_s: float, on_refused: Callable[[], None] = lambda: None
    ) -> None:
        self._store = store
        self._models = models
        self._poll_s = poll_s
        self._on_refused = on_refused
        self._offered: LoadedModel | None = None
        self._refused: ModelPointer | str | None = None
        self._refused_at = float("-inf")
        self._damage_said = ""
        self._wake = threading.Event()
        self._stopped = threading.Event()
        self.current: LoadedModel | None = None
        self.hidden: frozenset[str] = frozenset()
        self.confirmed_at = float("-inf")
        """When, on the monotonic clock, the last look began that found `current` still live."""
        self._looked_at = float("-inf")
        self._looked = threading.Condition()
        self._served: dict[str, float] = {}
        self._pruned_at = float("-inf")

    @contextmanager
    def followed(self) -> Iterator[LiveModel]:
        """Look once, then follow until the block ends."""
        self._look()
        self.take_newest()
        thread = threading.Thread(target=self._follow, name="live-model", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._stopped.set()
            self._wake.set()
            thread.join()

    def take_newest(self) -> bool:
        """Make the newest loaded model the current one; return whether it changed."""
        offered = self._offered
        if offered is None or offered is self.current:
            return False
        self.current = offered
        return True

    def note_served(self, users: Iterable[str]) -> None:
        """Remember users whose events have just been applied: a full refresh under way may have missed them."""
        self._served.update(dict.fromkeys(users, time.monotonic()))

    def served_unconfirmed(self) -> list[str]:
        """Return the users served since `current` was last known to be live.

        Should another model have been published meanwhile, these are the ones that its full refresh may have missed.
        """
        if self.confirmed_at != self._pruned_at:
            self._pruned_at = self.confirmed_at
            self._served = {user: at for user, at in self._served.items() if at > self._pruned_at}
        return list(self._served)

    def look_now(self) -> None:
        """Ask the thread to look without waiting for its turn."""
        self._wake.set()

    def look_and_wait(self, timeout_s: float) -> None:
        """Have the thread look, and wait until a look that began after this call has ended, if it does in time."""
        asked_at = time.monotonic()
        with self._looked:
            self._looked.wait_for(lambda: self._look_again_unless(asked_at), timeout_s)

    def _look_again_unless(self, since: float) -> bool:
        if self._looked_at < since:
            self._wake.set()
        return self._looked_at >= since

    def _follow(self) -> None:
        while not self._stopped.is_set():
            self._wake.wait(self._poll_s)
            self._wake.clear()
            if not self._stopped.is_set():
                started = time.monotonic()
                self._look()
                with self._looked:
                    self._looked_at = started
                    self._looked.notify_all()

    def _look(self) -> None:
        started = time.monotonic()
        try:
            hidden = self._store.catalogue.hidden()
            pointer = self._store.pointer.read()
        except DamagedKey as error:
            if self._damage_said != str(error):
                log.error(
                    "model_unknown",
                    "{error}; until then model and hidden items stay as this process saw them last",
                    error=error,
                )
            self._damage_said = str(error)
            return
        except RedisError as error:
            log.debug("pointer_unreadable", "cannot look at the model pointer: {error}", error=error)
            return
        except InvalidModel as error:
            self._refuse(str(error), error)
            return
        self.hidden, self._damage_said = hidden, ""
        newest = self._offered
        if pointer is None or (newest is not None and pointer.stamp == newest.stamp):
            self._refused = None
            if newest is self.current:
                self.confirmed_at = started
            return
        if pointer == self._refused and started - self._refused_at < _RETRY_REFUSED_S:
            return
        try:
            model = self._models.load(pointer.version, manifest_sha256=pointer.manifest_sha256)
            prepare(model)  # here, not in the first batch after the swap
        except InvalidModel as error:
            self._refuse(pointer, error)
            return
        except Exception as error:  # nothing that a damaged artifact provokes may end the thread
            log.exception("unexpected_error", "unexpected error while loading model {model}", model=pointer.version)
            self._refuse(pointer, InvalidModel(str(error)))
            return
        log.info(
            "model_loaded",
            "model {model} (sequence {sequence}) loaded: {items} items",
            model=pointer.version,
            sequence=pointer.sequence,
            items=len(model.items),
        )
        self._offered, self._refused = LoadedModel(pointer, model), None

    def _refuse(self, what: ModelPointer | str, error: InvalidModel) -> None:
        self._refused_at = time.monotonic()
        if what == self._refused:
            return
        self._refused = what
        if self.current is not None:
            stays = self.current.stamp.version
            log.error(
                "model_refused", "model refused: {error} (the live model stays: {stays})", error=error, stays=stays
            )
        else:
            log.error(
                "model_refused",
                "model refused: {error} (no other one is loaded: this process computes no lists until one can be)",
                error=error,
            )
        self._on_refused()
