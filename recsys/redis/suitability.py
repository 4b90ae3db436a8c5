"""Whether a Redis server can serve, by what it tells of itself: for connections, which refuse it, and for doctors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

OLDEST_VERSION = (6, 2)
IS_A_CLUSTER = "is a node of a Redis Cluster; set RECSYS_REDIS__CLUSTER=true"
IS_NO_CLUSTER = "is not a node of a Redis Cluster; set RECSYS_REDIS__CLUSTER=false"


class Unfit(NamedTuple):
    """Why a server cannot serve: by ``version``, ``mode``, ``role`` or ``eviction``; the words follow its name."""

    code: str
    words: str


def why_unfit(info: Mapping[str, Any], *, on_cluster: bool) -> Iterator[Unfit]:
    """Yield what keeps a server from serving.

    Parameters
    ----------
    info : mapping
        What INFO says in its sections server, replication and memory.
    on_cluster : bool
        Whether the settings say that it is a node of a Redis Cluster.
    """
    version = str(info.get("redis_version", "0"))
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST_VERSION:
        yield Unfit("version", f"is version {version}; 6.2 or newer is needed")
    in_cluster = info.get("redis_mode", info.get("server_mode")) == "cluster"  # Valkey names it server_mode
    if in_cluster != on_cluster:
        yield Unfit("mode", IS_A_CLUSTER if in_cluster else IS_NO_CLUSTER)
    if info.get("role") == "slave" and not in_cluster:  # those of a cluster send writes on to their masters
        yield Unfit("role", "is a read-only replica; connect to its primary")
    policy = str(info.get("maxmemory_policy", ""))
    if policy.startswith("allkeys") and str(info.get("maxmemory")) != "0":
        yield Unfit("eviction", f"may evict histories: its maxmemory-policy is {policy}; set noeviction")
