"""The servers that settings name: one, one that sentinels watch, or a cluster."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from recsys.redis.cluster import Cluster
from recsys.redis.sentinel import WatchedMaster
from recsys.redis.single_server import SingleServer
from recsys.settings import RedisSettings


def open_servers(settings: RedisSettings, on_connect: Callable[[Any], None]) -> Cluster | SingleServer:
    """Return the servers; they are connected to when they are first needed.

    Raises
    ------
    ValueError, TypeError
        When the URL cannot be theirs.
    """
    if settings.cluster:
        return Cluster(settings, on_connect)
    return (WatchedMaster if settings.sentinel else SingleServer)(settings, on_connect)
