"""What the routes of one worker share."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from anyio import CapacityLimiter
from fastapi import Request

from api.live import Live
from api.metrics import ApiMetrics
from api.problems import Kind, ProblemError
from api.purchases import PurchaseSink
from api.rates import RateLimiter
from api.security import Audit, Keyring
from recsys.data.event import EventReading
from recsys.lists.live_model import LoadedModel
from recsys.operations.service_state import what_is_missing
from recsys.redis import Store
from recsys.redis.async_reader import ReadStore
from recsys.redis.service_registry import ApiFacts
from recsys.settings import Settings
from recsys.storage.data_dir import DataDir


@dataclass(frozen=True)
class Services:
    """Opened by `api.app` when a worker starts.

    Attributes
    ----------
    reader : ReadStore
        Redis, for what requests read.
    store : Store
        Redis, for what operators do; it blocks, so it is used in threads.
    sink : PurchaseSink or None
        None = purchases are not taken here.
    rates, posted : RateLimiter
        Of the requests of a key, and of the events that it posts.
    large : asyncio.Semaphore
        How many large bulks are at work at a time.
    computing, operating : CapacityLimiter
        How many threads compute for requests, and do what operators ask for.
    """

    settings: Settings
    event_reading: EventReading
    reader: ReadStore
    store: Store
    data_dir: DataDir
    live: Live
    sink: PurchaseSink | None
    keyring: Keyring
    rates: RateLimiter
    posted: RateLimiter
    audit: Audit
    metrics: ApiMetrics
    large: asyncio.Semaphore
    computing: CapacityLimiter
    operating: CapacityLimiter

    def missing(self, *, redis: bool) -> list[str]:
        """Return what this worker lacks to serve, as `/readyz` says it, given whether Redis answers."""
        return what_is_missing(
            redis=redis,
            histories=not self.live.histories_missing,
            model=self.live.model is not None,
            kafka=self.sink is None or self.sink.is_ready,
        )

    def facts(self) -> ApiFacts:
        """Return what this worker tells of itself in Redis, which answers then."""
        model = self.live.model
        return ApiFacts(missing=self.missing(redis=True), model="" if model is None else model.stamp.version)

    def model(self) -> LoadedModel:
        """Return the model in use; raise 503 if there is none yet."""
        model = self.live.model
        if model is None:
            raise no_model()
        return model

    def knows(self, item_id: str) -> bool:
        """Whether the model or the catalogue knows an item."""
        model = self.live.model
        return item_id in self.live.catalogue or (model is not None and bool(model.model.items.find([item_id])[0] >= 0))

    def ensure_known(self, item_id: str) -> None:
        """Raise 404 unless the model or the catalogue knows an item."""
        if not self.knows(item_id):
            raise ProblemError(Kind.UNKNOWN_ITEM, f"neither the model nor the catalogue knows item {item_id!r}")


def no_lists() -> ProblemError:
    """Return the problem of a Redis without even a popular list."""
    return ProblemError(
        Kind.NO_LISTS,
        "Redis holds no popular list: the trainer's first round writes one; if Redis was emptied, recsys rebuild does",
        headers={"Retry-After": "30"},
    )


def no_model() -> ProblemError:
    """Return the problem of a shop without a model."""
    return ProblemError(
        Kind.NO_MODEL,
        "the trainer's first round makes one; the log says if one could not be loaded",
        headers={"Retry-After": "30"},
    )


def services_of(request: Request) -> Services:
    """Return the services of the worker that serves a request."""
    services: Services = request.app.state.services
    return services
