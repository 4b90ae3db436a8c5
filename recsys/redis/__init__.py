"""Redis: the only package that imports redis-py."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from recsys.redis.applied_offsets import AppliedOffsets
from recsys.redis.applying import UserState
from recsys.redis.aside import AsideStore
from recsys.redis.catalogue import CatalogueStore
from recsys.redis.connection import Connection
from recsys.redis.eviction import EvictionWatch
from recsys.redis.item_lists import ItemListStore
from recsys.redis.keys import Keys
from recsys.redis.model_pointer import ModelPointer, ModelPointerStore
from recsys.redis.placed_events import PlacedEvent, calls_by_user
from recsys.redis.readings import ReadingStore
from recsys.redis.rebuild_state import RebuildStage, RebuildState
from recsys.redis.rights import Service
from recsys.redis.service_registry import ServiceRegistry
from recsys.redis.trainer_lock import HeldLock, TrainerLock
from recsys.redis.trainer_requests import TrainerRequests
from recsys.redis.users import ModelStamp, PublishOutcome, UserStore
from recsys.settings import Settings

__all__ = [
    "AppliedOffsets",
    "EvictionWatch",
    "HeldLock",
    "ModelPointer",
    "ModelStamp",
    "PlacedEvent",
    "PublishOutcome",
    "ReadingStore",
    "RebuildStage",
    "RebuildState",
    "Service",
    "Store",
    "TrainerRequests",
    "UserState",
    "calls_by_user",
    "open_store",
]


@dataclass(frozen=True, slots=True)
class Store:
    """Everything in Redis, by who it concerns."""

    users: UserStore
    aside: AsideStore
    pointer: ModelPointerStore
    item_lists: ItemListStore
    catalogue: CatalogueStore
    trainer: TrainerRequests
    trainer_lock: TrainerLock
    applied_offsets: AppliedOffsets
    rebuilding: RebuildState
    readings: ReadingStore
    services: ServiceRegistry
    connection: Connection


@contextmanager
def open_store(settings: Settings) -> Iterator[Store]:
    """Open Redis; no command is sent before the first call.

    Yields
    ------
    Store
        Its methods raise `RedisUnavailable` when Redis is away and may simply be called again.
    """
    connection = Connection(settings.redis)
    keys = Keys(settings.redis.prefix)
    try:
        yield Store(
            users=UserStore(connection, keys, settings.history, settings.ranking),
            aside=AsideStore(connection, keys, settings.history, settings.ranking),
            pointer=ModelPointerStore(connection, keys),
            item_lists=ItemListStore(connection, keys),
            catalogue=CatalogueStore(connection, keys),
            trainer=TrainerRequests(connection, keys),
            trainer_lock=TrainerLock(connection, keys),
            applied_offsets=AppliedOffsets(connection, keys),
            rebuilding=RebuildState(connection, keys),
            readings=ReadingStore(connection, keys),
            services=ServiceRegistry(connection, keys),
            connection=connection,
        )
    finally:
        connection.close()
